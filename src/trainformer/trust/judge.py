"""What a finished run is worth: its decision, its scores on validation and test, and the rows that it got most wrong."""

from dataclasses import dataclass, field
from typing import Any

from trainformer.bundle.generated import Author
from trainformer.bundle.outputs import scored
from trainformer.core.config import DecisionSettings
from trainformer.core.protocols import Metric
from trainformer.core.roles import Answer, Decision
from trainformer.data.prepare import Prepared, Slice
from trainformer.data.tokens import HubTokens
from trainformer.engine.engine import Engine
from trainformer.trust import calibrate
from trainformer.trust.findings import worst


@dataclass
class Judged:
    """Scores and detail of validation and test (None without test rows), under a decision that validation alone has fitted;
    the answers on validation, in order."""

    validation: dict[str, Any]
    test: dict[str, Any] | None
    decision: Decision = field(default_factory=Decision)
    notes: list[str] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)


def judge(engine: Engine, prepared: Prepared, settings: DecisionSettings, tokens: HubTokens, limit: int) -> Judged:
    """The engine's model, as it ships. Where tokens are told there is nothing to decide; texts are written for the last part."""
    held, task, test = prepared.slices["validation"], engine.task, prepared.slices.get("test")
    if task.vocabulary:
        author = Author(task, engine.model, tokens, limit) if task.writes else None
        last = _scores(engine.evaluate((test or held).rows), author, test or held)
        return Judged(last if test is None else _scores(engine.evaluate(held.rows)), None if test is None else last)
    output, target = engine.outputs(held.rows)
    decision, notes = calibrate.fit(task, output, target, settings)
    validation = _scores(scored(task, output, target, decision))
    found = None if test is None else _scores(engine.evaluate(test.rows, decision))
    said = task.answer(output, decision)
    return Judged(validation, found, decision, notes, worst(task, held, said), said)


def _scores(metric: Metric, author: Author | None = None, part: Slice | None = None) -> dict[str, Any]:
    judged = author.judged(part.examples(author.task)) if author is not None and part is not None else {}
    words = {name: word for name, word in judged.items() if isinstance(word, str)}
    return {"scores": metric.value() | {n: s for n, s in judged.items() if n not in words}, "detail": metric.detail() | words}
