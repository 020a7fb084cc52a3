"""Texts that a model writes: prompts of like length go together, and come back in their order."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from trainformer.core.batch import Encoded, Example, pack
from trainformer.core.errors import UserError
from trainformer.core.memory import keep_memory
from trainformer.core.roles import Model
from trainformer.data.tokens import HubTokens
from trainformer.nn.beam_search import beam_search
from trainformer.nn.decoding import Decoding
from trainformer.nn.generate import Prompts, Voice, Written, generate, stream
from trainformer.nn.writing import Writing

MOST_TOKENS, LEAST_TOKENS = 8192, 16
"""Tokens of prompts and sources that go together, the texts of a beam counted; each counts as so many at least, since what is
written and kept for it is longer than a short prompt."""
UNSURE = "\ufffd"
"""Stands where bytes are not a whole character yet."""


@dataclass(frozen=True)
class Text:
    """A text that was written: its log-likelihood in nats, whether it ended by itself, how much of the source was not read."""

    text: str
    score: float
    tokens: int
    ended: bool
    cut_tokens: int


class Author:
    """A model that writes, with its tokenizer: what a bundle and a run ask for texts."""

    def __init__(self, task: Any, model: Model, tokens: HubTokens, limit: int):
        assert isinstance(task, Writing), "only tasks that write are asked for texts"
        self.task: Any = task
        self.tokens, self.limit = tokens, limit
        body: Any = model.body
        head: Any = model.head
        self.voice = Voice(body, head.scores, task.marks[1], limit, self._added)
        self.device = next(model.parameters()).device
        keep_memory()
        model.eval()

    def write(self, texts: Sequence[str], how: Decoding | None = None, first: int = 0) -> list[Text]:
        """A text for each prompt or source, in order. `first`: the number of the first, which its draws follow from.

        Raises UserError for settings that can never stop, and for prompts that leave no room to go on.
        """
        how = self.task if how is None else how
        how.check_decoding()
        items = self._encoded(texts)
        found: dict[int, Text] = {}
        groups = list(_groups(items, MOST_TOKENS // how.beam))
        written = self._ask([self._prompts(group, first) for group in groups], how)
        for item, each in zip(chain.from_iterable(groups), written, strict=True):
            text = self._added(item.parts[-1].ids.tolist(), each.ids) if each.cut is None else each.cut
            found[item.row] = Text(text, each.score, len(each.ids), each.ended, item.cut_tokens)
        return [found[row] for row in range(len(items))]

    def judged(self, examples: Iterable[Example]) -> dict[str, float | str]:
        """What it writes for sources is worth beside their targets; nothing where the task wants no text in particular."""
        pairs = [e.texts for e in examples]
        if type(self.task).judge is Writing.judge or not pairs:
            return {}
        written = [text.text for text in self.write([texts[0] for texts in pairs])]
        found: dict[str, float | str] = self.task.judge(written, [texts[1] for texts in pairs])
        return found

    def stream(self, text: str, how: Decoding | None = None) -> Iterator[str]:
        """One text in pieces, as it is written; nothing of a word that stops it is shown."""
        how = self.task if how is None else how
        how.check_decoding()
        if how.beam > 1:
            raise UserError("a beam knows its text only at its end.", where="beam", fix="Leave out beam, or stream.")
        items = self._encoded([text])
        before = items[0].parts[-1].ids.tolist()
        hidden = max((len(word) for word in how.stop), default=1) - 1  # it may be the beginning of a word that stops the text
        ids: list[int] = []
        shown = ""
        for _, token, _ in stream(self.voice, self._prompts(items, 0), how):
            ids += [token] * (token != self.voice.end)
            sure = _up_to(self._added(before, ids).rstrip(UNSURE), how.stop, hidden)
            if len(sure) > len(shown) and sure.startswith(shown):
                yield sure[len(shown) :]
                shown = sure
        rest = _up_to(self._added(before, ids), how.stop, 0)[len(shown) :]
        if rest:
            yield rest

    def _ask(self, groups: list[Prompts], how: Decoding) -> list[Written]:
        """What is written for each prompt, group by group."""
        if how.beam > 1 and groups:
            return [kept[0][1] for kept in beam_search(self.voice, groups[0], how, groups[1:], wanted=1)]
        return [text for prompts in groups for text in generate(self.voice, prompts, how)]

    def _added(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """What new tokens add to the text of those before: a space between them belongs to it."""
        known, whole = self.task.text(before), self.task.text([*before, *ids])
        found: str = whole.removeprefix(known) if whole.startswith(known) else self.task.text(ids)
        return found

    def _encoded(self, texts: Sequence[str]) -> list[Encoded]:
        pieces = self.tokens.pieces(list(texts))
        examples = [Example((text,), None, row) for row, text in enumerate(texts)]
        return [self.task.prompt(e, [p], self.tokens, self.limit) for e, p in zip(examples, pieces, strict=True)]

    def _prompts(self, group: list[Encoded], first: int) -> Prompts:
        batch = pack(group)
        source = batch.parts[0].to(self.device) if len(batch.parts) > 1 else None
        return Prompts([e.parts[-1].ids.tolist() for e in group], source, [first + e.row for e in group])


def _groups(items: list[Encoded], budget: int) -> Iterator[list[Encoded]]:
    """Examples of like length that together stay within a budget of tokens, the longest first."""
    group: list[Encoded] = []
    used = 0
    for item in sorted(items, key=lambda e: (-e.tokens, e.row)):
        cost = max(LEAST_TOKENS, item.tokens)
        if group and used + cost > budget:
            yield group
            group, used = [], 0
        group.append(item)
        used += cost
    if group:
        yield group


def _up_to(text: str, words: Sequence[str], hidden: int) -> str:
    """The text before the first of the words; where there is none, all but its last few characters."""
    places = [place for word in words if (place := text.find(word)) >= 0]
    return text[: min(places)] if places else text[: len(text) - hidden] if len(text) > hidden else ""
