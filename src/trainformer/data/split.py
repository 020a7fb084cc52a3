"""Cuts one file into training, validation and test rows: by content, so that duplicates stay together and nothing leaks."""

import torch
from torch import Tensor

from trainformer.core.errors import UserError
from trainformer.data.near import mix
from trainformer.data.survey import Survey

SPLITS = ("train", "validation", "test")


def split(survey: Survey, validation_share: float, test_share: float, seed: int, stratify: bool = True) -> dict[str, Tensor]:
    """Row numbers int64 of "train", "validation" and "test", each sorted; a function of (content, seed) alone.

    A group of (near) duplicates goes to one side whole. With `stratify` each label is cut in the same shares, and each
    label keeps at least two rows in training if it has two. A group larger than half of what is held out stays in training.
    Raises UserError where a split that was asked for would be empty.
    """
    held_share = validation_share + test_share
    if held_share >= 1:
        what = f"validation_share {validation_share:g} and test_share {test_share:g} leave no rows to train on."
        raise UserError(what, where="data", fix="Together they must be below 1.")
    ids, place, size = torch.unique(survey.near_group, return_inverse=True, return_counts=True)
    rank = _rank(survey, place, len(ids), seed)
    label = survey.label_hash if stratify else torch.zeros_like(survey.label_hash)
    fixed = _kept_for_training(place, rank, label, stratify) | (size * 2 > max(2.0, held_share * survey.rows))
    stratum = torch.empty_like(ids).scatter_reduce_(0, place, label, "amin", include_self=False)
    order = _ordered(stratum, rank)
    order = order[~fixed[order]]
    mean_rows = int(size[order].sum()) / max(1, len(order))
    asked = (validation_share > 0) + (test_share > 0)
    held = order[_spread(len(order), held_share * survey.rows / max(1.0, mean_rows), asked, seed)]
    tested = _spread(len(held), len(held) * test_share / max(held_share, 1e-9), int(test_share > 0), seed + 1)
    side = torch.zeros(len(ids), dtype=torch.uint8)
    side[held] = 1
    side[held[tested]] = 2
    found = {name: (side[place] == i).nonzero().squeeze(1) for i, name in enumerate(SPLITS)}
    _refuse_empty(found, {"validation": validation_share, "test": test_share}, survey)
    return found


def _rank(survey: Survey, place: Tensor, groups: int, seed: int) -> Tensor:
    """A random number of each group that follows from its texts and the seed, not from where it stands."""
    drawn = mix(survey.text_hash ^ int(mix(torch.tensor(seed + 1))))
    return torch.full((groups,), 2**63 - 1).scatter_reduce_(0, place, drawn, "amin")


def _kept_for_training(place: Tensor, rank: Tensor, label: Tensor, stratify: bool) -> Tensor:
    """The groups of the first two rows of each label: one row teaches nothing."""
    kept = torch.zeros(len(rank), dtype=torch.bool)
    if stratify:
        order = _ordered(label, rank[place])
        ordered = label[order]
        starts = torch.ones(len(order), dtype=torch.bool)
        starts[2:] = ordered[2:] != ordered[:-2]
        kept[place[order[starts]]] = True
    return kept


def _ordered(first: Tensor, second: Tensor) -> Tensor:
    """The order by two keys."""
    order = torch.argsort(second)
    return order[torch.argsort(first[order], stable=True)]


def _spread(count: int, wanted: float, least: int, seed: int) -> Tensor:
    """About `wanted` of `count` places at even distances, the first drawn from the seed: each stratum gives its share."""
    take = min(count, max(least, round(wanted)))
    start = int(mix(torch.tensor(seed + 1)) & (2**32 - 1)) / 2**32
    return ((torch.arange(take, dtype=torch.float64) + start) * count / max(1, take)).long()


def _refuse_empty(found: dict[str, Tensor], shares: dict[str, float], survey: Survey) -> None:
    texts = len(torch.unique(survey.near_group))
    for name, rows in found.items():
        if len(rows) == 0 and shares.get(name, 1.0) > 0:
            asked = f"a share of {shares[name]:g} of" if name in shares else "what is left of"
            raise UserError(
                f"no rows for {name}: {asked} {survey.rows} rows ({texts} different texts) is none.",
                where=survey.file,
                fix="Add rows, or give the parts in files of their own (--validation, --test).",
            )
