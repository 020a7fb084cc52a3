"""The search over made-up trials: number, time, pruning, resume, machines, and who wins. The clock is made up too."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainformer.core.errors import UserError
from trainformer.studies.asked import go_on, read
from trainformer.studies.ship import render

LR = {"train.lr": {"log": [1e-5, 1e-1]}}
Run = Callable[..., Any]


def peak(values: dict[str, Any]) -> list[float]:
    """Scores that rise towards 1 the nearer the rate is to 1e-3; the configuration as it stands has 0.5."""
    lr = values["train"]["lr"]
    top = 0.5 if lr is None else 1 - abs(math.log10(lr) + 3) / 4
    return [top - 0.2, top - 0.1, top]


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]


def test_as_many_trials_as_asked_for_and_the_best_ships(world: Any, asked: Any, run: Run, tmp_path: Path) -> None:
    world.plan = peak
    outcome = run(asked(LR, trials=8, pruner="none"))
    assert [number for number, _ in world.seen] == list(range(8))
    assert world.seen[0][1]["train"]["lr"] is None, "trial 0 is the configuration as it stands"
    finals = {number: max(peak(values)) for number, values in world.seen}
    winner = max(finals, key=lambda n: finals[n])
    assert outcome.best.number == winner and world.shipped == [winner]
    assert outcome.best.score == pytest.approx(finals[winner])
    assert [line["trial"] for line in told(tmp_path / "study")] == list(range(8))
    assert [line["score"] for line in told(tmp_path / "study")] == pytest.approx(list(finals.values()))


def test_trial_0_has_its_place_in_the_space(world: Any, asked: Any, run: Run) -> None:
    outcome = run(asked(LR | {"train.epochs": {"int": [1, 8]}}, trials=1))
    assert outcome.entries[0].settings == {"train.lr": 1e-3, "train.epochs": 4}


def test_of_equals_the_configuration_as_it_stands_wins(world: Any, asked: Any, run: Run) -> None:
    world.plan = lambda values: [0.4, 0.7]
    assert run(asked(LR, trials=4)).best.number == 0


def test_lower_is_better_for_a_loss(world: Any, asked: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainformer.tasks.text_classification import TextClassification

    monkeypatch.setattr(TextClassification, "higher_is_better", False)
    world.plan = lambda values: [0.9] if values["train"]["lr"] is None else [abs(math.log10(values["train"]["lr"]))]
    outcome = run(asked(LR, trials=3, pruner="none"))
    assert outcome.best.number == 0 and outcome.best.score == 0.9


def test_the_poor_are_pruned_and_trial_0_never(world: Any, asked: Any, run: Run) -> None:
    # trial 0 is the worst of all at its first score, and would be pruned
    order = iter([[0.1, 0.2, 0.3], [0.8, 0.8, 0.9], [0.2, 0.3, 0.99], [0.9, 0.9, 0.95]])
    by_number: dict[str, list[float]] = {}
    world.plan = lambda values: by_number.setdefault(json.dumps(values), next(order, [0.0]))
    outcome = run(asked(LR, trials=4, pruner="asha"))
    assert [(e.state, e.score) for e in outcome.entries] == [("done", 0.3), ("done", 0.9), ("pruned", 0.2), ("done", 0.95)]
    assert outcome.entries[2].facts["reason"] == "pruned" and list(outcome.entries[2].scores) == [1]


@pytest.mark.parametrize("minutes", [1, 2, 5])
def test_the_time_is_kept(world: Any, asked: Any, run: Run, minutes: float) -> None:
    """A trial is 5 s until it is ready, then 10 s a score; 5 s are kept for shipping."""
    world.plan = peak
    start = world.now
    outcome = run(asked(LR, minutes=minutes, pruner="none"))
    used = world.now - start
    assert used <= 60 * minutes - 5, "a score that would come too late is not waited for"
    assert used > 60 * minutes - 5 - 15, "and there was no room for another trial with a score"
    assert all(e.state in ("done", "pruned") for e in outcome.entries), "no trial began that could not reach a score"
    cut = [e.ended for e in outcome.entries if e.state == "pruned"]
    assert cut in ([], ["out of time"]) and ("1 out of time" in render(outcome)) == bool(cut)


def test_a_score_that_comes_late_ends_the_search(world: Any, asked: Any, run: Run) -> None:
    """The forecast says 10 s, and it takes 40: over by one score at most, and the trial counts with what it had."""

    def slow(values: dict[str, Any]) -> list[float]:
        world.now += 30 if len(world.seen) > 1 else 0
        return [0.3, 0.4, 0.5, 0.6]

    world.plan = slow
    start = world.now
    run(asked(LR, minutes=1.5))
    assert world.now - start <= 90 + 40


def test_a_trial_that_cannot_reach_a_score_in_time_does_not_begin(world: Any, asked: Any, run: Run) -> None:
    """Its own forecast says so; it stays open, and would begin with more time."""
    world.plan = lambda values: [0.5]

    def forecast(number: int) -> float:
        return 10.0 if number == 0 else 1000.0

    original = world.plan
    world.plan = lambda values: setattr(world, "forecast", forecast(len(world.seen) - 1)) or original(values)
    outcome = run(asked(LR, minutes=2))
    assert [e.state for e in outcome.entries] == ["done", "open"]
    world.forecast, world.plan = 10.0, lambda values: [0.9]
    longer = run(asked(LR, minutes=2.9, trials=2))
    assert [n for n, _ in world.seen] == [0, 1, 1]
    assert longer.best.number == 1


def test_both_a_number_and_a_time(world: Any, asked: Any, run: Run) -> None:
    assert len(run(asked(LR, minutes=60, trials=3)).entries) == 3


def test_killed_in_a_trial_it_goes_on_as_if_nothing_had_been(world: Any, asked: Any, run: Run, tmp_path: Path) -> None:
    world.plan = peak
    whole = run(asked(LR, trials=6, pruner="none"), "whole")
    world.seen.clear()
    world.kill_at = (3, 2)
    with pytest.raises(BaseException, match=r"^$"):
        run(asked(LR, trials=6, pruner="none"))
    assert [n for n, _ in world.seen] == [0, 1, 2, 3]
    again = run(go_on(tmp_path / "study", None, {}))
    assert [n for n, _ in world.seen] == [0, 1, 2, 3, 3, 4, 5], "the same number again, and no other twice"
    assert world.seen[3][1] == world.seen[4][1], "with the same settings"
    assert [e.settings for e in again.entries] == [e.settings for e in whole.entries]
    assert [e.scores for e in again.entries] == [e.scores for e in whole.entries]
    assert again.best.number == whole.best.number


def test_killed_in_trial_0(world: Any, asked: Any, run: Run, tmp_path: Path) -> None:
    world.plan = peak
    world.kill_at = (0, 1)
    with pytest.raises(BaseException, match=r"^$"):
        run(asked(None, minutes=3))
    outcome = run(go_on(tmp_path / "study", None, {}))
    assert [n for n, _ in world.seen][:3] == [0, 0, 1]
    assert outcome.entries[0].state == "done"


def test_time_used_before_a_kill_counts(world: Any, asked: Any, run: Run, tmp_path: Path) -> None:
    world.plan = peak
    world.kill_at = (2, 1)
    start = world.now
    with pytest.raises(BaseException, match=r"^$"):
        run(asked(LR, minutes=3, pruner="none"))
    run(go_on(tmp_path / "study", None, {}))
    assert world.now - start <= 180 + 20, "what the killed session had not written down is lost, here from its last score on"


def test_more_trials_for_a_search_that_has_ended(world: Any, asked: Any, run: Run, tmp_path: Path) -> None:
    world.plan = peak
    run(asked(LR, trials=2, pruner="none"))
    outcome = run(go_on(tmp_path / "study", None, {"trials": 5}))
    assert len(outcome.entries) == 5 and [n for n, _ in world.seen] == [0, 1, 2, 3, 4]
    assert read(tmp_path / "study").study.trials == 5


def test_a_failed_trial_is_not_the_end(world: Any, asked: Any, run: Run, tmp_path: Path) -> None:
    world.plan = peak
    refused = {"kind": "refused", "what": "loss nan: not finite.", "where": "step 3", "fix": "Lower train.lr."}
    world.die = lambda number, values: refused if number == 1 else {} if number == 2 else None
    outcome = run(asked(LR, trials=4, pruner="none"))
    assert [e.state for e in outcome.entries] == ["done", "failed", "failed", "done"]
    assert outcome.entries[1].facts["reason"] == "step 3 loss nan: not finite. Lower train.lr."
    assert outcome.entries[2].facts["reason"] == "its process ended with code 1: ValueError: it died"
    assert [line["state"] for line in told(tmp_path / "study")] == ["done", "failed", "failed", "done"]


def test_many_failures_in_a_row_are_the_end(world: Any, asked: Any, run: Run) -> None:
    world.die = lambda number, values: {} if number else None
    with pytest.raises(UserError, match="5 trials failed one after the other; the last: its process ended with code 1"):
        run(asked(LR, trials=100))
    assert len(world.seen) == 6


def test_settings_that_were_tried_are_not_run_again(world: Any, asked: Any, run: Run) -> None:
    world.plan = lambda values: [0.5 if values["train"]["schedule"] == "linear" else 0.6]
    space = {"train.schedule": {"choice": ["linear", "cosine", "constant"]}}
    outcome = run(asked(space, minutes=60, pruner="none"))
    ran = [values["train"]["schedule"] for _, values in world.seen]
    assert sorted(ran) == ["constant", "cosine", "linear"], "each once; then the space is used up, and the search ends"
    again = next(e for e in outcome.entries if e.facts.get("reason", "").startswith("the same settings as trial"))
    assert again.score == outcome.entries[int(again.facts["reason"].split()[-1])].score


def test_checkpoints_are_kept_for_the_best_alone(world: Any, asked: Any, run: Run, tmp_path: Path) -> None:
    world.plan = peak
    best = run(asked(LR, trials=6, pruner="none")).best.number
    kept = [p.parent.name for p in sorted((tmp_path / "study" / "trials").glob("*/checkpoints"))]
    assert kept == [f"{best:04d}"]


def test_a_good_space_is_written_around_trial_0_and_kept(world: Any, asked: Any, run: Run, opened: Any) -> None:
    world.plan = peak
    before = asked(None, trials=4)
    outcome = run(before)
    space = opened(before).ledger.known("space")
    assert space["train.lr"] == {"log": [2.5e-4, 4e-3]}
    assert all(2.5e-4 <= values["train"]["lr"] <= 4e-3 for _, values in world.seen[1:])
    assert set(outcome.entries[0].settings) == set(space)


def test_auto_wants_the_whole_default_run_in_the_time(world: Any, asked: Any, run: Run, tmp_path: Path) -> None:
    world.plan, world.forecast = (lambda values: [0.5] * 6), 10.0
    with pytest.raises(UserError, match=r"about 60 s are needed by the configuration as it stands, and 50 s are left"):
        run(asked(None, auto=True, minutes=1))
    assert not (tmp_path / "study").exists(), "nothing stays, so that it can be said again with more minutes"
    assert run(asked(None, auto=True, minutes=2)).entries[0].state == "done"


def test_two_machines_share_the_trials(world: Any, asked: Any, run: Run, opened: Any, tmp_path: Path) -> None:
    """One storage, two folders: numbers are shared out, an open trial is left to its folder, and the last to end ships."""
    world.plan = peak
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    world.kill_at = (2, 1)
    with pytest.raises(BaseException, match=r"^$"):
        run(asked(LR, trials=5, pruner="none", storage=storage), "one")
    assert [n for n, _ in world.seen] == [0, 1, 2]
    run(asked(LR, trials=5, pruner="none", storage=storage), "two")
    assert [n for n, _ in world.seen] == [0, 1, 2, 3, 4], "trial 2 belongs to the first folder"
    assert world.shipped == [] and "trial 2 is still at work at" in world.lines[-1]
    outcome = run(go_on(tmp_path / "one", None, {}), "one")
    assert [n for n, _ in world.seen] == [0, 1, 2, 3, 4, 2]
    own = sorted(p.name for p in (tmp_path / "one" / "trials").iterdir())
    assert own == ["0000", "0001", "0002"]
    if f"{outcome.best.number:04d}" in own:
        assert world.shipped == [outcome.best.number]
    else:
        assert world.shipped == [] and f"the best trial, {outcome.best.number}, lies at" in world.lines[-1]
        run(go_on(tmp_path / "two", None, {}), "two")
        assert world.shipped == [outcome.best.number]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("pruner", ["asha", "hyperband", "none"])
def test_every_sampler_with_every_pruner(world: Any, asked: Any, run: Run, sampler: str, pruner: str) -> None:
    pytest.importorskip("peft")
    world.plan = peak
    space = LR | {"method": {"choice": [["llrd", "ema"], ["lora"]]}, "method.lora.rank": {"int": [2, 8]}}
    outcome = run(asked(space, trials=12, sampler=sampler, pruner=pruner))
    assert len(outcome.entries) == 12
    assert outcome.best.score is not None and outcome.best.score > 0.5
    ranks = ["method.lora.rank" in e.settings for e in outcome.entries]
    assert ranks == [e.settings["method"] == '["lora"]' for e in outcome.entries]


def test_auto_goes_on_with_a_default_run_that_was_cut_off(world: Any, asked: Any, run: Run, tmp_path: Path) -> None:
    """What is left of the time need not hold the whole run again: most of it is done."""
    world.plan = lambda values: [0.5] * 6
    world.kill_at = (0, 6)
    with pytest.raises(BaseException, match=r"^$"):
        run(asked(None, auto=True, minutes=2))
    outcome = run(go_on(tmp_path / "study", None, {}))
    assert outcome.entries[0].state in ("done", "pruned") and outcome.best.score == 0.5
