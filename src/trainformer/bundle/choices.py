"""Multiple choice by likelihood: which of several answers a language model finds likeliest after a prompt."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainformer.bundle.asking import refuse_choices
from trainformer.bundle.outputs import batches_of, is_padded
from trainformer.core.batch import Encoded, Part, Row
from trainformer.core.config import DataSettings
from trainformer.core.errors import UserError, nearest
from trainformer.data.columns import choose, refuse_surrogates, text_of
from trainformer.data.read import open_source
from trainformer.nn.writing import Writing

if TYPE_CHECKING:
    from trainformer.bundle.reading import Bundle

CHUNK_ROWS = 256
"""Questions whose choices go through the model together, longest first."""


@dataclass(frozen=True)
class Question:
    """A prompt, what may follow it, which of that is right, and where it stands."""

    prompt: str
    choices: tuple[str, ...]
    right: int
    where: str


def scores(bundle: "Bundle", given: Any, column: str, settings: DataSettings | None = None) -> dict[str, float]:
    """How often the likeliest of a row's choices is the right one, in constant memory.

    accuracy: the likeliest by the summed log-likelihood of its tokens. accuracy_per_token, accuracy_per_byte: by that sum over
    its tokens (Brown et al. 2020, arXiv:2005.14165) and over its bytes of UTF-8, so that long choices are not behind. chance:
    the mean share that a blind guess has. Of equals the first is taken. Raises UserError with the row's place for what is no
    question.
    """
    refuse_choices(bundle.task)
    asked = iter(questions(given, column, settings or DataSettings()))
    rows, chance, right = 0, 0.0, torch.zeros(3)
    while chunk := list(islice(asked, CHUNK_ROWS)):
        found = likelihoods(bundle, [(q.prompt, choice, q.where) for q in chunk for choice in q.choices])
        for question, own in zip(chunk, found.split([len(q.choices) for q in chunk]), strict=True):
            each = torch.stack([own[:, 0], own[:, 0] / own[:, 1], own[:, 0] / own[:, 2]])
            right += each.argmax(-1) == question.right
            chance += 1 / len(question.choices)
            rows += 1
    if not rows:
        raise UserError("there are no rows.", where="--data")
    names = ("accuracy", "accuracy_per_token", "accuracy_per_byte")
    return {"examples": rows, **dict(zip(names, (right / rows).tolist(), strict=True)), "chance": chance / rows}


@torch.inference_mode()
def likelihoods(bundle: "Bundle", asked: Sequence[tuple[str, str, str]]) -> Tensor:
    """For each (prompt, what follows it, place): log-likelihood in nats, tokens and bytes of what follows, "N 3", float64.

    Text and prompt are one text for the tokenizer; a token that begins in the prompt and ends behind it is told with the rest.
    Raises UserError for what is empty, or longer than the model reads.
    """
    refuse_choices(bundle.task)
    whole = [prompt + text for prompt, text, _ in asked]
    cut = zip(asked, bundle.tokens.pieces(whole), bundle.tokens.spans(whole), strict=True)
    items = [_item(bundle, i, one, ids, [end for _, _, end in spans]) for i, (one, ids, spans) in enumerate(cut)]
    device = next(bundle.model.parameters()).device
    found = torch.zeros(len(asked), 3, dtype=torch.float64)
    for batch in batches_of(items, bundle.micro_tokens, is_padded(bundle.model)):
        log_p = bundle.model(batch.to(device)).float().log_softmax(-1).cpu()
        told = log_p.gather(1, batch.target[:, None]).squeeze(1).double()
        for row, own in zip(batch.rows, told.split([e.units for e in batch.examples]), strict=True):
            found[row] = torch.tensor([float(own.sum()), len(own), len(asked[row][1].encode())], dtype=torch.float64)
    return found


def _item(bundle: "Bundle", row: int, asked: tuple[str, str, str], ids: list[int], ends: list[int]) -> Encoded:
    """[begin] prompt text, of which the tokens of the text are told."""
    prompt, _, where = asked
    told = [k for k, end in enumerate(ends) if end > len(prompt)]
    if not told:
        raise UserError("a choice has no token.", where=where, fix="Give it a text.")
    if len(ids) > bundle.limit:
        what = f"prompt and choice have {len(ids)} tokens, and {bundle.limit} are read."
        raise UserError(what, where=where, fix="Shorten the prompt, or remove the row.")
    assert isinstance(bundle.task, Writing)
    read = torch.tensor([bundle.task.marks[0], *ids[:-1]])
    target = torch.tensor([ids[k] for k in told])
    return Encoded((Part(read, [len(read)]),), target, row, units=len(told), at=torch.tensor(told))


def questions(given: Any, column: str, settings: DataSettings) -> Iterator[Question]:
    """The rows of a file or frame as questions, in order."""
    source = open_source(given, "test")
    if column not in source.columns:
        raise UserError(f"no column '{column}' (--choices).", where=source.name, fix=nearest(column, source.columns))
    columns, _ = choose(source, settings, pair=False, labelled=True)
    for row in source:
        choices = _choices(row, column)
        yield Question(text_of(row, columns.text), choices, _right(row, str(columns.label), choices), row.where)


def _choices(row: Row, column: str) -> tuple[str, ...]:
    found = row.values.get(column)
    if not isinstance(found, list | tuple) or len(found) < 2 or not all(isinstance(each, str) for each in found):
        fix = "Write it as a list, in .jsonl or .parquet."
        raise UserError(f"'{column}' is {found!r:.60}, not two texts or more.", where=row.where, fix=fix)
    for each in found:
        refuse_surrogates(each, row, column)
    return tuple(found)


def _right(row: Row, column: str, choices: tuple[str, ...]) -> int:
    """The number of the right choice, from 0; the label is that number, or the choice itself."""
    label = row.values.get(column)
    if isinstance(label, str) and label in choices:
        return choices.index(label)
    number = label if isinstance(label, int | float) and not isinstance(label, bool) else math.nan
    if number not in range(len(choices)):
        fix = f"Give the number of the right choice, 0 to {len(choices) - 1}, or the choice itself."
        raise UserError(f"the label '{column}' is {label!r:.60}, none of the choices.", where=row.where, fix=fix)
    return int(number)
