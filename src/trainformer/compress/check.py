"""Whether what was written answers as the bundle does: the same labels, and logits within a stated tolerance."""

from typing import Any

import torch

from trainformer.bundle import Bundle
from trainformer.core.config import DataSettings
from trainformer.core.errors import UserError
from trainformer.core.roles import Answer

TOLERANCE = 1e-4
"""Largest difference of a logit, as a share of the largest logit of all: float32 sums in another order."""
TEXTS, LONGEST = 64, 200


def require_same(bundle: Bundle, other: Bundle, what: str, data: Any = None, settings: DataSettings | None = None) -> str:
    """Asks both the same texts; what to say of it. Raises UserError where a label differs or a logit by too much.

    The texts are the rows of `data`, else 64 that are made of the tokenizer's own vocabulary, of 1 to 200 tokens.
    """
    ours, theirs = (_answers(each, data, settings) for each in (bundle, other))
    if not ours:
        raise UserError("there are no rows to check with.", where="--data")
    one, two = (torch.tensor([answer["logits"] for answer in each]) for each in (ours, theirs))
    largest = float(one.abs().max())
    differs = float((one - two).abs().max())
    wrong = sum(a["label"] != b["label"] for a, b in zip(ours, theirs, strict=True))
    numbers = _is_number(ours[0])
    if not differs <= TOLERANCE * largest or (wrong and not numbers):
        said = f"{what} answers otherwise: logits differ by up to {differs:.2g} (largest: {largest:.3g}), {wrong} labels differ."
        raise UserError(said, where=bundle.tokens.where, fix="Nothing is written. Please report the model's family.")
    told = "" if numbers else "all labels are the same, "
    return f"checked on {len(ours)} texts: {told}logits differ by {differs:.1e} at most (allowed: {TOLERANCE:g} of {largest:.3g})"


def _is_number(answer: Answer) -> bool:
    """Whether the answer is a number or nothing, which is compared by its logits."""
    return not isinstance(answer["label"], str | list) and not answer.get("abstained")


def _answers(bundle: Bundle, data: Any, settings: DataSettings | None) -> list[Answer]:
    if data is not None:
        return list(bundle.predict_file(data, settings, logits=True))
    return bundle.predict(made_up(bundle), logits=True)


def made_up(bundle: Bundle) -> list[Any]:
    """Texts, or pairs of texts, of words drawn from the vocabulary, short ones and long ones."""
    draw = torch.Generator().manual_seed(0)
    special = set(bundle.tokens.tokenizer.all_special_ids)
    words = [i for i in range(len(bundle.tokens.tokenizer)) if i not in special]
    texts = []
    for i in range(TEXTS * (2 if bundle.task.pair else 1)):
        longest = min(LONGEST, bundle.limit) if i % 4 == 0 else 24
        size = int(torch.randint(1, longest, (1,), generator=draw))
        chosen = [words[j] for j in torch.randint(len(words), (size,), generator=draw).tolist()]
        texts.append(bundle.tokens.tokenizer.decode(chosen))
    return list(zip(texts[::2], texts[1::2], strict=True)) if bundle.task.pair else texts
