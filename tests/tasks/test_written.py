"""Language modelling and texts from texts: what is told where, by hand; losses by the formula; what is refused."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from trainformer.core.batch import Encoded, pack
from trainformer.core.errors import UserError
from trainformer.core.roles import Decision
from trainformer.tasks.causal_lm import CausalLm
from trainformer.tasks.seq2seq import Seq2seq

BEGIN, END = 1, 2


@dataclass
class Letters:
    """Each letter is a token; a source ends with END."""

    begin: int | None = BEGIN
    end: int | None = END
    vocabulary: int = 128

    def __post_init__(self) -> None:
        self.specials = {1: 1, 2: 2}

    def pieces(self, texts: Any) -> list[list[int]]:
        return [[ord(c) for c in text] for text in texts]

    def wrap(self, *texts: list[int]) -> tuple[list[int], list[int]]:
        ids = [i for text in texts for i in [*text, END]]
        return ids, [0] * len(ids)

    def text(self, ids: Any) -> str:
        return "".join(chr(i) for i in ids if i > 2)


LETTERS = Letters()


def encoded(task: Any, texts: tuple[str, ...], limit: int = 16, how: str = "encode") -> Encoded:
    task.meet(LETTERS)
    example = task.parse(texts, ..., 3, 2.0)
    found: Encoded = getattr(task, how)(example, LETTERS.pieces(example.texts), LETTERS, limit)
    return found


def test_each_token_of_a_document_is_told_once() -> None:
    """Windows of four follow each other, each of its tokens told from those before it in the window."""
    whole = encoded(CausalLm(), ("héllo",), limit=4)
    (part,) = whole.parts
    assert part.ids.tolist() == [BEGIN, *map(ord, "héllo")] and part.lengths == [4, 2]
    assert whole.target.tolist() == [*map(ord, "héllo"), END]
    assert (whole.units, whole.bytes, whole.cut_tokens, whole.row, whole.weight) == (6, 6, 0, 3, 2.0)
    assert pack([whole, whole]).weight.tolist() == [2.0] * 12


def test_an_empty_document_is_its_end() -> None:
    whole = encoded(CausalLm(), ("",))
    assert whole.parts[0].ids.tolist() == [BEGIN] and whole.target.tolist() == [END]


def test_a_target_is_told_from_its_source_and_what_is_before() -> None:
    pair = encoded(Seq2seq(), ("ab", "xyz"))
    source, target = pair.parts
    assert source.ids.tolist() == [97, 98, END] and target.ids.tolist() == [BEGIN, *map(ord, "xyz")]
    assert pair.target.tolist() == [*map(ord, "xyz"), END] and (pair.units, pair.bytes) == (4, 3)
    asked = encoded(Seq2seq(), ("ab",), how="prompt")
    assert [p.ids.tolist() for p in asked.parts] == [[97, 98, END], [BEGIN]]


def test_a_long_pair_is_refused_or_cut_and_counted() -> None:
    for texts, words in ((("abcdef", "x"), "the source has 7 tokens, and 4 are read"),
                         (("a", "vwxyz"), "the target has 6 tokens, and 4 are read")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            encoded(Seq2seq(), texts, limit=4)
    cut = encoded(Seq2seq(long_pair="truncate"), ("abcdef", "vwxyz"), limit=4)
    assert cut.parts[0].ids.tolist() == [97, 98, 99, END] and cut.target.tolist() == [*map(ord, "vwxy")]
    assert cut.cut_tokens == 3 + 2
    assert encoded(Seq2seq(), ("abcdef",), limit=4, how="prompt").cut_tokens == 3


@pytest.mark.parametrize("task", [CausalLm(label_smoothing=0.2), Seq2seq(label_smoothing=0.2)])
def test_the_loss_is_that_of_smoothed_targets(task: Any) -> None:
    """0.8 on the true token, and 0.2 spread over all four: torch's own, written out for the second unit."""
    output = torch.tensor([[0.0, 0, 0, 0], [1, 2, 3, 4]])
    batch: Any = type("B", (), {"target": torch.tensor([2, 3])})
    log_p = [k - torch.tensor([1.0, 2, 3, 4]).exp().sum().log().item() for k in (1, 2, 3, 4)]
    expected = [torch.tensor(4.0).log().item(), -0.8 * log_p[3] - 0.05 * sum(log_p)]
    assert task.loss(output, batch).tolist() == pytest.approx(expected, abs=1e-6)
    peer = torch.nn.functional.cross_entropy(output, batch.target, reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(task.loss(output, batch), peer)


def test_answers_are_texts() -> None:
    task = CausalLm()
    task.meet(LETTERS)  # type: ignore[arg-type]
    assert task.answer(torch.tensor([[104, 105], [106, -1]]), Decision()) == [{"label": "hi"}, {"label": "j"}]


@pytest.mark.parametrize("task", [CausalLm(), Seq2seq()])
def test_a_tokenizer_without_an_end_is_refused(task: Any) -> None:
    with pytest.raises(UserError, match="no token that ends a text"):
        task.meet(Letters(end=None))


def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(UserError, match="the prompt has 6 tokens, and the model reads 6"):
        encoded(CausalLm(), ("abcde",), limit=6, how="prompt")
