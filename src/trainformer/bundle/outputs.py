"""Raw outputs of a model for many rows: longest first, in constant memory, put back in order."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from trainformer.core.batch import Batch, Encoded, pack
from trainformer.core.roles import Decision, Metric, Model, Task
from trainformer.data.plan import Rows, by_length, grouped


@torch.inference_mode()
def outputs(model: Model, task: Task, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Batch]]:
    """The raw output of each batch, in float32."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))  # an ONNX graph has none of its own
    model.eval()
    for batch in batches:
        moved = batch.to(device)
        yield task.predict(model, moved).float(), moved


def batches_of(items: Sequence[Encoded], micro_tokens: int, padded: bool) -> Iterator[Batch]:
    """Examples in memory as batches, longest first."""
    longest_first = sorted(items, key=lambda e: (-e.tokens, e.row))
    return (pack(group) for group in grouped(longest_first, micro_tokens, padded))


def batches_of_rows(model: Model, rows: Rows, micro_tokens: int) -> Iterator[Batch]:
    """Examples of a cache as batches, longest first."""
    return by_length(rows, micro_tokens, is_padded(model))


def is_padded(model: Model) -> bool:
    """Whether the body pads inside: then padding counts in the budget of tokens."""
    return not getattr(model.body, "packed", True)


def in_order(found: Iterable[tuple[Tensor, Batch]], rows: int) -> tuple[Tensor, Tensor]:
    """Outputs "N C" and targets "N" or "N C" of one-unit examples, in the order of their row numbers 0..N-1."""
    result: Tensor | None = None
    targets: Tensor | None = None
    for output, batch in found:
        target = batch.target.view(len(batch), -1).cpu()
        if result is None or targets is None:
            result = torch.empty(rows, output.shape[1])
            targets = target.new_empty(rows, target.shape[1])
        result[batch.rows], targets[batch.rows] = output.cpu(), target
    assert result is not None and targets is not None, "there is at least one row"
    return result, targets.squeeze(1) if targets.shape[1] == 1 else targets


def scored(task: Task, output: Tensor, target: Tensor, decision: Decision | None = None) -> Metric:
    """The task's metric over outputs "N C" and targets of one-unit examples that are in memory."""
    metric = task.metric(decision)
    rows = list(range(len(output)))
    metric.add(output, Batch((), target.reshape(-1), torch.ones(len(output)), rows, [*rows, len(rows)]))
    return metric
