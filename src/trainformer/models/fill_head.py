"""The head of a masked language model: the library's own modules, read at the places of the units alone."""

from typing import Any

import torch
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.models.heads import First
from trainformer.nn.blocks import ByBlocks

FILLS = {
    "bert": "cls.predictions",
    "ernie": "cls.predictions",
    "electra": "generator_predictions generator_lm_head",
    "albert": "predictions",
    "distilbert": "vocab_transform activation vocab_layer_norm vocab_projector",
    "modernbert": "head decoder",
    "deberta": "cls.predictions",
    "deberta-v2": "cls.predictions",
} | dict.fromkeys(["roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "mpnet"], "lm_head")
"""How the library's heads run, family by family: the modules, in order."""

JUDGES = {
    "bert": "{base}.pooler cls.seq_relationship",
    "albert": "first {base}.pooler {base}.pooler_activation sop_classifier",
}
"""The same for the judgement of two sentences, read at the first token of a sequence."""
MANY = 1024
"""Outputs of a layer that tells a vocabulary."""
LOW = -1e4
"""The score of a token where two sentences are judged: the two verdicts alone share the chance."""


class FillHead(nn.Module):
    """Hidden states -> scores "U V" of the vocabulary, at `batch.at`; of a unit at the first token of a sequence, with a
    judge, the two verdicts and LOW. `paths` are the library's names of the modules."""

    def __init__(self, fill: dict[str, nn.Module], judge: dict[str, nn.Module]):
        super().__init__()
        self.paths, self.fills = [*fill, *judge], len(fill)
        self.steps = nn.ModuleList([*fill.values(), *judge.values()])

    def forward(self, hidden: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """A batch whose units are nowhere has one at each token."""
        part = batch.parts[0]
        at = torch.arange(len(part.ids), device=part.ids.device) if batch.at is None else batch.at
        if len(self.steps) == self.fills:
            return self._run(hidden[0][at], 0, self.fills)
        first = torch.isin(at, torch.tensor(part.starts[:-1], device=at.device))
        scores = self._run(hidden[0][at[~first]], 0, self.fills)
        verdict = self._run(hidden[0][at[first]][:, None], self.fills, len(self.steps))
        verdict = nn.functional.pad(verdict, (0, scores.shape[1] - verdict.shape[1]), value=LOW)
        order = torch.cat([first.nonzero(), (~first).nonzero()]).squeeze(1).argsort()
        return torch.cat([verdict, scores.to(verdict.dtype)])[order]

    def _run(self, state: Tensor, start: int, end: int) -> Tensor:
        for step in list(self.steps)[start:end]:
            state = step(state)
        return state


def fill_head(library: nn.Module, family: str, base: str, judges: bool) -> FillHead:
    """The head of the library's model; KeyError for a family without one."""
    fill = {path: _module(library, path) for path in FILLS[family].split()}
    judge = JUDGES[family].format(base=base).split() if judges else []
    head = FillHead(fill, {path: _module(library, path) for path in judge})
    for module in head.modules():
        if type(module) is nn.Linear and module.out_features > MANY:
            module.__class__ = ByBlocks
    return head


def _module(library: nn.Module, path: str) -> nn.Module:
    found: Any = First() if path == "first" else library.get_submodule(path)
    return found
