"""Which tokens are hidden, and behind what: shares within binomial bounds, words whole, draws that repeat."""

import math

import pytest
import torch
from torch import Tensor

from trainformer.core.errors import MissingExtra
from trainformer.data.masking import chosen, chunks, folds, hidden
from trainformer.data.sentences import halves
from trainformer.data.words import word_numbers

MASK, SIZE = 4, 1000
OTHERS = torch.arange(5, SIZE)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def words(*sizes: int) -> Tensor:
    """[CLS], words of so many tokens, [SEP]."""
    return torch.tensor([-1, *(i for i, size in enumerate(sizes) for _ in range(size)), -1])


MIXED = words(*[1, 1, 2, 1, 3, 1, 1, 5, 2, 1] * 5)


def test_the_mean_share_is_exact_and_specials_are_never_chosen() -> None:
    draws, real = 3000, int((MIXED >= 0).sum())
    counts = torch.zeros(len(MIXED))
    for seed in range(draws):
        counts += chosen(MIXED, 0.15, rng(seed)).float()
    assert counts[0] == counts[-1] == 0
    share = float(counts.sum()) / draws / real
    assert abs(share - 0.15) < 4 * math.sqrt(0.15 * 0.85 / draws / real), "more even than independent draws, so well inside"
    assert float((counts[MIXED >= 0] / draws).std()) < 0.02, "no place is preferred"


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_words_are_chosen_whole(share: float) -> None:
    for seed in range(300):
        picked = chosen(MIXED, share, rng(seed))
        told, left = set(MIXED[picked].tolist()), set(MIXED[~picked].tolist())
        assert not told & left and told


def test_short_and_empty_texts() -> None:
    assert all(int(chosen(words(1), 0.15, rng(seed)).sum()) == 1 for seed in range(20))
    assert all(chosen(words(3, 3), 0.15, rng(seed)).sum() == 3 for seed in range(20)), "one word, whole"
    assert not chosen(words(), 0.15, rng(0)).any() and folds(words(), 0.15, rng(0)) == []


def test_eighty_ten_ten_within_binomial_bounds() -> None:
    ids = torch.randint(5, SIZE, (40_000,), generator=rng(1))
    picked = torch.rand(len(ids), generator=rng(2)) < 0.5
    seen = hidden(ids, picked, MASK, OTHERS, rng(3))
    assert torch.equal(seen[~picked], ids[~picked])
    told, n = seen[picked], int(picked.sum())
    masked, same = told == MASK, told == ids[picked]
    random_same = 0.1 / len(OTHERS)  # a random token may be the true one
    for found, share in ((masked, 0.8), (same, 0.1 + random_same), (~masked & ~same, 0.1 - random_same)):
        assert abs(float(found.double().mean()) - share) < 4 * math.sqrt(share * (1 - share) / n)
    drawn = told[~masked & ~same]
    assert int(drawn.min()) >= 5 and len(drawn.unique()) > 800, "any ordinary token, and no special one"


def test_folds_choose_every_word_once() -> None:
    found = folds(MIXED, 0.15, rng(0))
    assert len(found) == 7 and torch.equal(torch.stack(found).sum(0), (MIXED >= 0).long())
    for mask in found:
        assert not set(MIXED[mask].tolist()) & set(MIXED[~mask].tolist())
        assert 0.07 < float(mask.sum()) / int((MIXED >= 0).sum()) < 0.22
    assert torch.equal(torch.stack(folds(words(1, 1), 0.15, rng(0))).sum(0), torch.tensor([0, 1, 1, 0]))


def test_equal_generators_choose_equally() -> None:
    assert torch.equal(chosen(MIXED, 0.15, rng(5)), chosen(MIXED, 0.15, rng(5)))
    assert not torch.equal(chosen(MIXED, 0.15, rng(5)), chosen(MIXED, 0.15, rng(6)))


def test_long_texts_are_read_in_even_pieces() -> None:
    found = chunks((list(range(10)), list(range(10))), 4)
    assert [ids for ids, _ in found] == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
    assert chunks(([], []), 4) == [([], [])] and len(chunks((list(range(8)), list(range(8))), 4)) == 2


def test_words_of_wordpieces_and_of_chinese() -> None:
    text = "unhappy 清华大学 film"
    spans = [(0, 0, 2), (0, 2, 7), (1, 8, 9), (2, 9, 10), (3, 10, 11), (4, 11, 12), (5, 13, 17)]
    assert word_numbers(text, spans) == [0, 0, 1, 2, 3, 4, 5], "a Han character is a word, as BERT reads it"
    pytest.importorskip("rjieba")
    assert word_numbers(text, spans, chinese=True) == [0, 0, 1, 1, 1, 1, 2], "清华大学 is one word"


def test_words_inside_a_run_of_pieces() -> None:
    """A run of Han characters is one word to a tokenizer of runs; the dictionary finds the words in it."""
    pytest.importorskip("rjieba")
    text, spans = "我来到北京", [(0, 0, 1), (0, 1, 3), (0, 3, 5)]
    assert word_numbers(text, spans) == [0, 1, 2]
    assert word_numbers(text, [(0, 0, 2), (0, 2, 3), (0, 3, 5)], chinese=True) == [0, 0, 1], (
        "a piece across a border joins the words"
    )
    assert word_numbers(text, spans, chinese=True) == [0, 1, 2]
    assert word_numbers("北京", [(0, 0, 1), (0, 0, 1), (0, 1, 2)]) == [0, 0, 1], "bytes of one character"
    assert word_numbers("a 北京", [(0, 0, 1), (1, 1, 4)], chinese=True) == [0, 1], "a piece with the space before it"


def test_without_the_dictionary_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(MissingExtra, match=r"trainformer\[chinese\]"):
        word_numbers("北京", [(0, 0, 1), (1, 1, 2)], chinese=True)
    assert word_numbers("plain words", [(0, 0, 5), (1, 6, 11)], chinese=True) == [0, 1], "and it is not asked without need"


def test_a_text_as_two_halves() -> None:
    for text in (
        "One. Two! Three?",
        "下雨了。我们没出门。",
        "no end of a sentence here",
        "unbroken",
        "a",
        "",
        'Dr. No came. "Yes." Then we left.',
    ):
        first, second = halves(text)
        assert first + second == text
    assert halves("下雨了。我们没出门。")[0] == "下雨了。" and halves("one two three four")[0] == "one two "
