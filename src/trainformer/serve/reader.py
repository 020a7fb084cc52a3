"""What turns texts into items without the model's weights: the task's own reading, the tokenizer and the limit of a bundle."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from trainformer.bundle.facts import facts_in, open_task
from trainformer.core.errors import UserError
from trainformer.core.protocols import Tokens
from trainformer.core.rows import Example
from trainformer.data.encode import Reading, reads_alone
from trainformer.data.fast_tokens import FastTokens
from trainformer.serve.refusals import Refusal


@dataclass(frozen=True, slots=True)
class Read:
    """What was seen of one text, or pair: tokens that the model will read, special ones included, tokens of the text,
    tokens of it that are cut, and tokens that the vocabulary does not know."""

    tokens: int
    own: int
    cut: int
    unknown: int


class Reader:
    """Counts tokens as the bundle will. Thread safe."""

    def __init__(self, folder: Path):
        self.facts = facts_in(folder)
        self.task = open_task(self.facts)
        self.tokens = FastTokens.of(folder)
        self.limit = int(self.facts["max_tokens"])

    @property
    def labels(self) -> list[str]:
        """The labels that it can say."""
        return list(getattr(self.task, "labels", None) or [])

    def read(self, texts: list[tuple[str, ...]], truncate: bool) -> list[Read]:
        """Raises Refusal (422) for what is no text of this task, and for one that is too long unless `truncate`."""
        wanted = 2 if self.task.pair else 1
        for i, each in enumerate(texts):
            if len(each) != wanted:
                what = "a pair of texts: [first, second]" if wanted == 2 else "a single text, not a list"
                raise Refusal(422, "invalid_text", f"Text {i + 1}: this model reads {what}.", text=i + 1)
        try:
            examples = [self.task.parse(each, ..., i, 1.0) for i, each in enumerate(texts)]
        except UserError as error:
            raise Refusal(422, "invalid_text", str(error)) from error
        pieces = self.tokens.pieces([text for e in examples for text in e.texts])
        found = []
        for i, example in enumerate(examples):
            own = pieces[i * wanted : (i + 1) * wanted]
            tokens, cut = self._counted(example, own)
            unknown = sum(p.count(self.tokens.unknown_id) for p in own) if self.tokens.unknown_id is not None else 0
            found.append(Read(tokens, sum(map(len, own)), cut, unknown))
        if not truncate:
            self._refuse_long(found)
        return found

    def _counted(self, example: Example, own: list[list[int]]) -> tuple[int, int]:
        """Tokens of an example that the model will read, and those that are cut."""
        if reads_alone(type(self.task)):
            sequences, cut = cast(Reading, self.task).sequences(own, self.tokens, self.limit)
            return sum(len(ids) for ids, _ in sequences), cut
        item = self.task.encode(example, own, cast(Tokens, self.tokens), self.limit)
        return item.tokens, item.cut_tokens

    def _refuse_long(self, found: list[Read]) -> None:
        for i, item in enumerate(found):
            if item.cut:
                message = f"Text {i + 1} has {item.own} tokens, and the model reads {item.own - item.cut} of them."
                fix = " Send it shorter, or say truncate: true."
                raise Refusal(422, "too_long", message + fix, text=i + 1, tokens=item.own, read=item.own - item.cut)
