"""The pre-flight check of one part alone: its labels, duplicates, size, and its texts in tokens."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from trainformer.core.roles import Task
from trainformer.data.finding import Finding, Severity, named
from trainformer.data.near import loose
from trainformer.data.part import Part

IMBALANCE = 10
"""Times that the most frequent label outnumbers the rarest, from which it is worth a warning."""
UNKNOWN_SHARE = 0.02
CUT_SHARE = 0.05
REPEATED_SHARE = 0.01
"""Shares from which unknown tokens, cut texts and repeated texts are worth a warning."""
FEW_ROWS = 20
STABLE_ROWS, SHAKY_ROWS = 384, 96
"""Rows at which the 95 % interval of an accuracy is +-5 and +-10 points wide at worst."""
MANY_LABELS_SHARE = 0.3


def look(part: Part, group: Tensor, task: Task, max_tokens: int | None) -> list[Finding]:
    """All findings of a part; `group` "N" numbers its (near) duplicates."""
    if len(part) == 0:
        return [Finding("no_rows", "error", f"{part.name} has no rows.", fix="Add rows, or leave the part out.")]
    found = [*_size(part, task), *_labels(part), *_repeated(part, group)]
    if part.cache is not None:
        found += [*_cut(part, task, max_tokens), *_unknown(part)]
    return found


def _size(part: Part, task: Task) -> Iterator[Finding]:
    rows = len(part)
    if part.name == "train":
        if rows < FEW_ROWS:
            yield Finding("few_rows", "warning", f"there are only {rows} rows to train on.", rows, 1.0, [], "Add rows.")
    elif rows < STABLE_ROWS:
        known = f"an accuracy measured on them is known to +-{98 / math.sqrt(rows):.1f} points at worst (95 %)."
        fix = "Differences below that mean nothing; add rows."
        if task.unlabelled:
            known, fix = "what is measured on so few is rough.", "Small differences mean nothing; add rows."
        severity: Severity = "warning" if rows < SHAKY_ROWS else "note"
        yield Finding("few_to_score", severity, f"{part.name} has {rows} rows: {known}", rows, 1.0, [], fix)


def _labels(part: Part) -> Iterator[Finding]:
    """What the counts of labels tell; nothing where targets are numbers or rows have none."""
    counts, rows = part.survey.label_counts(part.numbers), len(part)
    if not counts:
        return
    label, most = next(iter(counts.items()))
    what = f"always saying '{label:.60}' is right in {100 * most / rows:.1f} % of {part.name}: the score to beat."
    yield Finding("majority", "note", what, most, most / rows)
    if part.name == "train":
        yield from _learnable(part, counts)


def _learnable(part: Part, counts: dict[str, int]) -> Iterator[Finding]:
    rows = len(part)
    if len(counts) == 1:
        what = f"all rows have the label '{next(iter(counts)):.60}': there is nothing to tell apart."
        yield Finding("one_class", "error", what, rows, 1.0, part.where(torch.ones(rows, dtype=torch.bool)), "Add other rows.")
        return
    if len(counts) > max(FEW_ROWS, MANY_LABELS_SHARE * rows):
        what = f"{len(counts)} different labels in {rows} rows: is this the column of the label?"
        fix = "--label chooses another; for numbers: --task regression."
        yield Finding("many_labels", "warning", what, len(counts), 1.0, [], fix)
    yield from _rare(part, counts)
    most, least = max(counts.values()), min(counts.values())
    if most >= IMBALANCE * least:
        few = min(counts, key=lambda name: counts[name])
        what = f"'{next(iter(counts)):.60}' has {most} rows and '{few:.60}' has {least}: {most / least:.0f} to 1."
        fix = "See task.class_weights, and read F1 beside accuracy."
        yield Finding("imbalance", "warning", what, least, least / rows, [], fix)
    yield from _alike(counts)


def _rare(part: Part, counts: dict[str, int]) -> Iterator[Finding]:
    single = [name for name, count in counts.items() if count == 1]
    if single:
        keys = [key for key, names in part.survey.labels.items() if set(names) & set(single)]
        mask = torch.isin(part.pick(part.survey.label_hash), torch.tensor(keys))
        what = f"{named(single)}: one row each, and nothing can be learnt from one."
        fix = "Add rows, merge or remove the label."
        yield Finding("single_row_class", "error", what, len(single), len(single) / len(part), part.where(mask), fix)


def _alike(counts: dict[str, int]) -> Iterator[Finding]:
    """Labels that differ by case, space or punctuation alone are mostly one label, mistyped; numbers are not."""
    by_form: dict[str, list[str]] = {}
    for name in counts:
        if any(c.isalpha() for c in name):
            by_form.setdefault("".join(c for c in name if c.isdigit()) + loose(name), []).append(name)
    for names in by_form.values():
        if len(names) > 1:
            count = sum(counts[n] for n in names[1:])
            what = f"{named(names)} differ by case, space or punctuation alone."
            yield Finding("similar_labels", "warning", what, count, count / sum(counts.values()), [], "Write them in one way.")


def _repeated(part: Part, group: Tensor) -> Iterator[Finding]:
    """Rows whose text has stood before in the part: exactly, or nearly."""
    exact = repeats(part.pick(part.survey.text_hash))
    near = repeats(group) & ~exact
    for code, mask, words in (("duplicates", exact, "repeat a text exactly"), ("near_duplicates", near, "nearly repeat a text")):
        count = int(mask.sum())
        if count:
            share = count / len(part)
            what = f"rows of {part.name} that {words}: {count} ({100 * share:.1f} %)."
            severity: Severity = "warning" if share >= REPEATED_SHARE else "note"
            yield Finding(code, severity, what, count, share, part.where(mask), "A repeated text counts more than once.")


def repeats(values: Tensor) -> Tensor:
    """Bool "N": whether an equal value stands at an earlier place."""
    order = torch.argsort(values, stable=True)
    ordered = values[order]
    mask = torch.zeros(len(values), dtype=torch.bool)
    mask[order[1:]] = ordered[1:] == ordered[:-1]
    return mask


def _cut(part: Part, task: Task, max_tokens: int | None) -> Iterator[Finding]:
    assert part.cache is not None
    cut, kept = part.pick(part.cache.cut).long(), part.pick(part.cache.lengths).long()
    texts, tokens = int((cut > 0).sum()), int(cut.sum())
    if texts:
        share = texts / len(part)
        limit = "the limit" if max_tokens is None else f"max_tokens {max_tokens}"
        percent = 100 * tokens / int((cut + kept).sum())
        what = f"texts of {part.name} that {limit} cuts: {texts} ({100 * share:.1f} %), in all {tokens} tokens ({percent:.1f} %)."
        windows = ", or read all of a text with task.long_text=window" if "long_text" in type(task).model_fields else ""
        fix = f"Raise data.max_tokens{windows}."
        yield Finding("cut", "warning" if share >= CUT_SHARE else "note", what, texts, share, part.where(cut > 0), fix)


def _unknown(part: Part) -> Iterator[Finding]:
    assert part.cache is not None
    unknown, kept = part.pick(part.cache.unknown).long(), part.pick(part.cache.lengths).long()
    count = int(unknown.sum())
    share = count / max(1, int(kept.sum()))
    if share > UNKNOWN_SHARE:
        what = f"{100 * share:.1f} % of the tokens of {part.name} are unknown to the tokenizer: it knows another language."
        fix = "Choose a model of this language."
        yield Finding("unknown_tokens", "warning", what, count, share, part.where(unknown > 0), fix)
