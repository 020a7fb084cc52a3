"""The pre-flight check of parts against each other: texts that leak, labels that contradict, labels never learnt."""

from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor

from trainformer.data.finding import MAX_PLACES, Finding, Severity, named
from trainformer.data.part import Part

LEAK_SHARE = 0.01
"""Share of near overlap from which it is worth a warning; exact overlap always is."""
SHIFT_SHARE = 0.1
"""Share of the rows of a part that would need another label to have the mixture of train, from which it is worth a warning."""


def look(parts: list[Part], group: list[Tensor]) -> list[Finding]:
    """All findings between parts; `group` numbers (near) duplicates, in the same numbers for all parts."""
    full = [(part, own) for part, own in zip(parts, group, strict=True) if len(part)]
    found: list[Finding] = []
    for one, other in combinations(full, 2):
        found += [*_overlap(*one, *other), *_labels(one[0], other[0])]
    return found + list(_conflicts([part for part, _ in full]))


def _overlap(one: Part, one_group: Tensor, other: Part, other_group: Tensor) -> Iterator[Finding]:
    """Rows of the later part whose text stands in the earlier one too: its score is then partly remembered."""
    text = [p.pick(p.survey.text_hash) for p in (one, other)]
    exact = torch.isin(text[1], text[0])
    near = torch.isin(other_group, one_group) & ~exact
    for code, mask, words in (("overlap", exact, "also stand in"), ("near_overlap", near, "nearly stand in")):
        count = int(mask.sum())
        if count:
            share = count / len(other)
            what = f"texts of {other.name} that {words} {one.name}: {count} ({100 * share:.1f} %); the score there is too good."
            fix = f"Remove them from one of the two ({one.source_name}, {other.source_name})."
            severity: Severity = "warning" if code == "overlap" or share >= LEAK_SHARE else "note"
            yield Finding(code, severity, what, count, share, other.where(mask), fix)


def _labels(one: Part, other: Part) -> Iterator[Finding]:
    """Labels of the other part that training never saw, and the reverse."""
    if one.name != "train":
        return
    seen, asked = (p.survey.label_counts(p.numbers) for p in (one, other))
    if not seen or not asked:
        return
    unseen = [name for name in asked if name not in seen]
    if unseen:
        keys = [key for key, names in other.survey.labels.items() if set(names) & set(unseen)]
        mask = torch.isin(other.pick(other.survey.label_hash), torch.tensor(keys))
        what = f"labels of {other.name} that train does not have: {named(unseen)}. They cannot be predicted."
        fix = "Add training rows for them, or remove the rows."
        yield Finding("unseen_label", "warning", what, int(mask.sum()), float(mask.float().mean()), other.where(mask), fix)
    untested = [name for name in seen if name not in asked]
    if untested:
        what = f"labels of train that {other.name} does not have: {named(untested)}. Nothing is measured on them."
        yield Finding("untested_label", "note", what, len(untested), len(untested) / len(seen), [], "Add rows for them.")
    yield from _shift(other, seen, asked)


def _shift(other: Part, seen: dict[str, int], asked: dict[str, int]) -> Iterator[Finding]:
    """Labels in another mixture than train has them, by more than chance would: half the sum of differences of shares.

    Two samples of n and m rows of one mixture of k labels differ by less than sqrt(k * (1/n + 1/m)) in all but rare cases.
    """
    rows = (sum(seen.values()), sum(asked.values()))
    shares = {name: (seen.get(name, 0) / rows[0], asked.get(name, 0) / rows[1]) for name in {**seen, **asked}}
    share = sum(abs(a - b) for a, b in shares.values()) / 2
    if share >= SHIFT_SHARE and share > (len(shares) * (1 / rows[0] + 1 / rows[1])) ** 0.5:
        name, (before, now) = max(shares.items(), key=lambda item: abs(item[1][0] - item[1][1]))
        what = (
            f"labels of {other.name} come in another mixture than in train: '{name}' {100 * before:.1f} % there, "
            f"{100 * now:.1f} % here. How often a label is right was learnt otherwise, and accuracy tells little."
        )
        fix = "Draw both alike, or look at f1_macro and at the scores of each label."
        yield Finding("label_shift", "warning", what, round(share * rows[1]), share, [], fix)


def _conflicts(parts: list[Part]) -> Iterator[Finding]:
    """One text with more than one label, within a part and between parts."""
    text = torch.cat([p.pick(p.survey.text_hash) for p in parts])
    label = torch.cat([p.pick(p.survey.label_hash) for p in parts])
    _, place = torch.unique(text, return_inverse=True)
    size = int(place.max()) + 1
    least = torch.full((size,), 2**63 - 1).scatter_reduce_(0, place, label, "amin")
    most = torch.full((size,), -(2**63)).scatter_reduce_(0, place, label, "amax")
    mask = ((least != most) & (least != 0) & (most != 0))[place]
    count = int(mask.sum())
    if count:
        texts = len(torch.unique(place[mask]))
        what = f"texts that stand with different labels: {texts} ({count} rows); at least one label of each is wrong."
        fix = "Decide which label is right; a model can only guess between them."
        yield Finding("conflicting_labels", "warning", what, count, count / len(text), _places(parts, mask, place), fix)


def _places(parts: list[Part], mask: Tensor, place: Tensor) -> list[str]:
    """The first places, rows of one text beside each other: "a.csv line 3"."""
    rows = mask.nonzero().squeeze(1)
    _, inverse = torch.unique(place[rows], return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(mask)).scatter_reduce_(0, inverse, rows, "amin")
    rows = rows[torch.argsort(first[inverse], stable=True)][:MAX_PLACES]
    places = []
    for row in rows.tolist():
        for part in parts:
            if row < len(part):
                places += part.survey.where(part.numbers[row : row + 1])
                break
            row -= len(part)
    return places
