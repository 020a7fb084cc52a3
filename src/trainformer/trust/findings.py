"""What a run has to say for itself: is it better than cheap baselines, which rows did it get most wrong, how did it learn."""

import json
from pathlib import Path
from typing import Any

from trainformer.core.roles import Answer, Task
from trainformer.data.prepare import Slice

POINTS = 400
WORST = 20
WORST_TEXT_CHARS = 400


def against_baselines(results: dict[str, Any], key: str, higher_is_better: bool) -> str:
    """One sentence on validation: how the model stands to the best baseline, and why it may have lost."""
    ours = results["validation"]["scores"][key]
    rivals = {b["name"]: b["validation"][key] for b in results["baselines"]}
    if not rivals:
        return f"No baselines were fitted (train.baselines and train.probe are off): {key} {ours:.4f} on validation stands alone."
    best = (max if higher_is_better else min)(rivals, key=lambda name: rivals[name])
    if (ours > rivals[best]) if higher_is_better else (ours < rivals[best]):
        return f"Fine-tuning is better than every baseline: {key} {ours:.4f} on validation, {best} {rivals[best]:.4f}."
    lost = f"FINE-TUNING DID NOT BEAT A BASELINE: {key} {ours:.4f} on validation, {best} {rivals[best]:.4f}."
    return f"{lost} {_why(results)}"


def _why(results: dict[str, Any]) -> str:
    """The likeliest reason, read from the course of the run."""
    losses = [loss for _, loss, _ in results["curve"]]
    tenth = max(1, len(losses) // 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    course = f"({first:.3f} to {last:.3f})"
    if results["best_step"] == 0:
        return "No epoch was better than the linear probe that training started from, so the probe ships. Try a lower train.lr."
    if last > 0.97 * first:
        return f"The training loss did not fall {course}: the rate may be too high or too low for this model."
    if last < 0.3 * first:
        return f"The training loss fell far {course}: the training rows are few or noisy. Look for wrong labels."
    return "The texts may differ more in their words than in their meaning, or the model is of another language."


def curve(log: Path) -> list[list[float]]:
    """At most POINTS of (step, loss, rate) from a log, each the mean of its neighbours' losses; steps passed over have none."""
    steps = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [s for s in steps if "lr" in s]
    size = max(1, -(-len(steps) // POINTS))
    groups = [steps[i : i + size] for i in range(0, len(steps), size)]
    return [[g[-1]["step"], sum(s["loss"] for s in g) / len(g), g[-1]["lr"]] for g in groups]


def worst(task: Task, part: Slice, answers: list[Answer]) -> list[dict[str, Any]]:
    """The rows that were answered wrong with the most confidence; for numbers, those furthest off."""
    ranked = []
    for place, (item, answer) in enumerate(zip(part.examples(task), answers, strict=True)):
        said = answer["label"]
        if isinstance(said, float):
            ranked.append((abs(said - item.target), place, item, answer))
        elif said is not None and not _same(said, item.target):
            ranked.append((answer["score"] or 0.0, place, item, answer))
        ranked = sorted(ranked, key=lambda r: (-r[0], r[1]))[:WORST]
    return [_shown(item, answer) for _, _, item, answer in ranked]


def _same(said: Any, true: Any) -> bool:
    return sorted(said) == sorted(true) if isinstance(said, list) else bool(said == true)


def _shown(item: Any, answer: dict[str, Any]) -> dict[str, Any]:
    texts = [t if len(t) <= WORST_TEXT_CHARS else t[:WORST_TEXT_CHARS] + " [...]" for t in item.texts]
    label = list(item.target) if isinstance(item.target, list | tuple | set | frozenset) else item.target
    return {
        "text": texts[0],
        "text_b": texts[1] if len(texts) > 1 else None,
        "label": label,
        "said": answer["label"],
        "score": answer["score"],
    }
