"""What every bundle does with what it is asked, whatever runs its model: texts, pairs and rows become examples."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice
from typing import Any

from trainformer.core.config import DataSettings
from trainformer.core.errors import UserError
from trainformer.core.roles import Answer, Decision, Task
from trainformer.core.rows import Example
from trainformer.data.columns import Columns, choose, example
from trainformer.data.read import Source, open_source

CHUNK_ROWS = 2048
"""Rows that are sorted by length together; memory does not grow beyond them."""


class Asked(ABC):
    """A task with its decision layer and the facts of its training."""

    def __init__(self, task: Task, facts: dict[str, Any]):
        self.task, self.facts = task, facts
        self.decision = Decision(**facts["decision"])
        self.limit = int(facts["max_tokens"])

    @property
    def labels(self) -> list[str]:
        """The labels that it can say, in the order of its outputs."""
        return list(getattr(self.task, "labels", None) or [])

    def predict(self, texts: str | Sequence[Any], *, logits: bool = False) -> list[Answer]:
        """An answer for each text, or for each pair (text, text), in order.

        Each has `label`, `score`, `scores` and `cut_tokens`, the number of tokens that were not read; with `logits` also
        the raw outputs. Raises UserError for what is no text.
        """
        if isinstance(texts, bytes | Mapping | Set) or not isinstance(texts, Iterable):
            raise UserError(f"a text or a list of texts is expected, not {texts!r:.80}.", where="predict")
        listed = [texts] if isinstance(texts, str) else list(texts)
        return list(self.stream((self._example(i, t) for i, t in enumerate(listed)), logits=logits))

    def predict_file(self, given: Any, settings: DataSettings | None = None, *, logits: bool = False) -> Iterator[Answer]:
        """An answer for each row of a file or frame, in order, in constant memory."""
        source, columns = self._open(given, settings, labelled=False)
        rows = (example(row, columns, self.task, i, labelled=False) for i, row in enumerate(source))
        return self.stream(rows, logits=logits)

    @abstractmethod
    def stream(self, examples: Iterable[Example], *, logits: bool = False) -> Iterator[Answer]:
        """Answers to examples, in order, some thousand rows at a time."""

    @abstractmethod
    def evaluate(self, given: Any, settings: DataSettings | None = None, choices: str | None = None) -> dict[str, float]:
        """The task's scores on labelled rows, in constant memory, through the shipped decision layer."""

    def rows(self, given: Any, settings: DataSettings | None = None) -> Iterator[tuple[dict[str, Any], str]]:
        """Each row of a file or frame as it stands, with its text, in order."""
        source, columns = self._open(given, settings, labelled=False)
        for number, row in enumerate(source):
            yield row.values, example(row, columns, self.task, number, labelled=False).texts[0]

    def examples(self, given: Any, settings: DataSettings | None = None) -> Iterator[Example]:
        """Labelled rows of a file or frame as the task understands them, in order."""
        source, columns = self._open(given, settings, labelled=True)
        return (example(row, columns, self.task, i) for i, row in enumerate(source))

    def _open(self, given: Any, settings: DataSettings | None, labelled: bool) -> tuple[Source, Columns]:
        """A source with the columns of training, unless others are named."""
        trained = self.facts["columns"]
        asked = settings or DataSettings()
        named = {k: getattr(asked, k) or trained.get(k) for k in ("text", "text_b", "label", "weight")}
        if asked.weight is None:
            named["weight"] = None
        pair = self.task.pair and (labelled or not self.task.writes)
        if not pair:
            named["text_b"] = None
        source = open_source(given, "test")
        columns, _ = choose(source, DataSettings(**named), pair, labelled and not self.task.unlabelled)
        return source, columns

    def _example(self, number: int, given: Any) -> Example:
        texts = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else (given,)
        wanted = 2 if self.task.pair and not self.task.writes else 1
        if len(texts) != wanted or not all(isinstance(t, str) for t in texts):
            what = "a pair of texts is" if wanted == 2 else "one text is"
            raise UserError(f"{what} expected, not {given!r:.80}.", where=f"text {number + 1}")
        return self.task.parse(texts, ..., number, 1.0)


def chunks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Some thousand at a time."""
    iterator = iter(examples)
    while chunk := list(islice(iterator, CHUNK_ROWS)):
        yield chunk


def refuse_choices(task: Task) -> None:
    """Raises UserError for a task whose models cannot tell how likely a text is."""
    if task.writes != "decoder":
        what = f"its task is {type(task).key}, and choices are judged by a model that goes on with texts (causal_lm)."
        raise UserError(what, where="--choices")
