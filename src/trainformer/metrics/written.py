"""Scores of texts that were written beside those that were wanted: BLEU and chrF by sacrebleu, and how many are the same."""

from collections.abc import Sequence
from typing import Any, Literal

from trainformer.core.errors import MissingExtra

Tokenize = Literal["auto", "13a", "zh", "char", "intl", "none"]
LOOKED_AT = 1000


def written_scores(written: Sequence[str], wanted: Sequence[str], tokenize: Tokenize = "auto") -> dict[str, float | str]:
    """bleu (Papineni et al. 2002) and chrf (Popovic 2015), 0..100, of the whole corpus, and exact_match, 0..1.

    bleu_signature and chrf_signature say how, as sacrebleu does (Post 2018, arXiv:1804.08771). `tokenize` "auto": zh where a
    third of what is wanted is Han, else 13a. Raises MissingExtra without sacrebleu.
    """
    bleu_kind, chrf_kind = scorers()
    assert len(written) == len(wanted), "one text is written for each that is wanted"
    bleu, chrf = bleu_kind(tokenize=tokenizer(wanted) if tokenize == "auto" else tokenize), chrf_kind()
    scores: dict[str, float | str] = {
        "bleu": bleu.corpus_score(list(written), [list(wanted)]).score,
        "chrf": chrf.corpus_score(list(written), [list(wanted)]).score,
        "exact_match": sum(a.strip() == b.strip() for a, b in zip(written, wanted, strict=True)) / max(1, len(wanted)),
    }
    return scores | {"bleu_signature": str(bleu.get_signature()), "chrf_signature": str(chrf.get_signature())}


def scorers() -> tuple[Any, Any]:
    """sacrebleu's BLEU and CHRF. Raises MissingExtra where it is not installed."""
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise MissingExtra("sacrebleu", "translation") from error
    return BLEU, CHRF


def tokenizer(texts: Sequence[str]) -> Literal["zh", "13a"]:
    """Which of sacrebleu's tokenizers fits."""
    letters = [c for text in texts[:LOOKED_AT] for c in text if not c.isspace()]
    han = sum("\u4e00" <= c <= "\u9fff" for c in letters)
    return "zh" if han > len(letters) / 3 else "13a"
