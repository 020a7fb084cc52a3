"""What tasks that write texts have in common: they know the tokenizer, how texts are written, and what they are worth."""

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr
from torch import Tensor

from trainformer.core.batch import Encoded, Example
from trainformer.core.errors import UserError
from trainformer.core.protocols import Tokens
from trainformer.core.roles import Answer, Decision
from trainformer.nn.decoding import Decoding


class Writing(Decoding):
    """Settings and words of a task whose answers are texts."""

    best: ClassVar[str] = "loss"
    higher_is_better: ClassVar[bool] = False
    unlabelled: ClassVar[bool] = True
    vocabulary: ClassVar[bool] = True

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread over the vocabulary, 0..1 (Vaswani et al. 2017, arXiv:1706.03762, take 0.1)."""
    training_rows: int | None = None
    """Training rows in all; filled by training."""

    _tokens: Tokens | None = PrivateAttr(None)
    _rows: int = PrivateAttr(0)

    def meet(self, tokens: Tokens) -> None:
        """Raises UserError where a text could never end: no token for that, or limits that cannot be met."""
        self.check_decoding()
        if tokens.end is None or tokens.begin is None:
            what = "its tokenizer has no token that ends a text, so no text that is written would ever end."
            raise UserError(what, where="model.tokenizer", fix="Give it an eos or sep token.")
        self._tokens = tokens

    @property
    def tokens(self) -> Tokens:
        """The tokenizer."""
        assert self._tokens is not None, "the tokenizer is met before anything is learnt or written"
        return self._tokens

    @property
    def marks(self) -> tuple[int, int]:
        """The tokens that begin and end a text."""
        begin, end = self.tokens.begin, self.tokens.end
        assert begin is not None and end is not None, "meet() refuses a tokenizer without them"
        return begin, end

    def prompt(self, example: Example, pieces: list[list[int]], tokens: Tokens, limit: int) -> Encoded:
        """What is there when a text begins to be written; its last part is gone on with. Raises UserError without room."""
        raise NotImplementedError("a task says what it is asked")

    def text(self, ids: Sequence[int]) -> str:
        """What tokens that were written say."""
        return self.tokens.text(ids)

    def judge(self, written: Sequence[str], wanted: Sequence[str]) -> dict[str, float | str]:
        """What texts are worth beside those that were wanted, and how that was found; nothing where there is no such thing."""
        return {}

    def observe(self, example: Example) -> None:
        self._rows += 1

    def settle(self) -> None:
        self.training_rows = self._rows

    def outputs(self) -> int:
        return self.tokens.vocabulary

    def answer(self, output: Tensor, decision: Decision) -> list[Answer]:
        """Texts from ids "B L", -1 after their ends."""
        found: list[dict[str, Any]] = [{"label": self.text([i for i in ids if i >= 0])} for ids in output.long().tolist()]
        return found
