"""Whose head a model starts with, and what it reads: from what the checkpoint says of itself."""

from typing import Any

import torch

from trainformer.core.roles import Model, Task
from trainformer.models.heads import SequenceHead, start_anew, start_as_identity
from trainformer.nn.pool import Pooling


def family_pooling(config: Any, poolerless: bool) -> Pooling:
    """The family's own pooling. A bare encoder stored without its pooler was trained to be averaged, not for its first token."""
    if hasattr(config, "classifier_pooling"):
        return "mean" if config.classifier_pooling == "mean" else "cls"
    bare = (config.architectures or ["Model"])[0].endswith("Model")
    return "mean" if bare and poolerless else "cls"


def grow(library: Any, task: Task) -> list[str]:
    """A row of the table, the mean of the others, for a mask token that the checkpoint did not know; says so."""
    mask, table = getattr(task, "mask_id", None), library.get_input_embeddings()
    rows = table.num_embeddings
    if not task.vocabulary or mask is None or mask < rows:
        return []
    library.resize_token_embeddings(mask + 1, mean_resizing=False)
    with torch.no_grad():
        for values in (library.get_input_embeddings().weight, library.get_output_embeddings().bias):
            values[rows:] = values[:rows].mean(0)
    return [f"mask: token {mask}, new to this model; its embedding starts as the mean of the {rows:,} others"]


def settle_head(model: Model, had: Any, task: Task, missing: list[str], own_pooling: bool) -> str:
    """Says whose head it is; a checkpoint's own is put into the task's order of labels, a new one into a good start."""
    head = model.head
    if task.vocabulary:
        return f"head: {'new' if missing else 'kept from the checkpoint'}, it scores the vocabulary"
    assert isinstance(head, SequenceHead)
    if task.embeds:
        return f"head: none of its own, {head.pooling} pooling"
    classifier = (had.architectures or [""])[0].endswith("ForSequenceClassification")
    if classifier and own_pooling and _same_labels(had, task) and not missing:
        order = [{str(v): int(k) for k, v in had.id2label.items()}[label] for label in getattr(task, "labels", [])]
        with torch.no_grad():
            head.last.weight.copy_(head.last.weight[order].clone())
            head.last.bias.copy_(head.last.bias[order].clone())
        return "head: kept from the checkpoint, its labels are those of the data"
    if classifier or f"{head.paths[-1]}.weight" not in missing:
        start_anew(head, getattr(had, "initializer_range", 0.02), classifier)
    if head.eps is not None or any("pooler" in n or "dense" in n for n in missing):
        start_as_identity(head)
    others = ", the checkpoint's labels are others" if classifier and not _same_labels(had, task) else ""
    return f"head: new, {head.pooling} pooling{others}"


def _same_labels(config: Any, task: Task) -> bool:
    labels = getattr(task, "labels", None) or []
    return sorted(map(str, config.id2label.values())) == sorted(labels) and len(labels) == task.outputs()
