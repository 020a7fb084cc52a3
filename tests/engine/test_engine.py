"""The loop: the same result however a step is cut, the same bits each time and after any interruption."""

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainformer.callbacks.early_stopping import EarlyStopping
from trainformer.core.batch import cut, join
from trainformer.core.errors import UserError
from trainformer.core.roles import Callback, Decision, StepReport
from trainformer.engine import checkpoint
from trainformer.engine.limits import Interrupted
from trainformer.tasks.text_classification import TextClassification

Make = Callable[..., Any]
METHODS = [["llrd"], ["ema"], ["rdrop"], ["fgm"], ["lora"], ["llrd", "lora", "rdrop", "fgm", "ema"],
           ["supcon", "neftune", "swa", "soup"], ["curriculum", "group_dro", "vat", "mixup", "freelb"]]  # fmt: skip


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two models have the same bits."""
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


class Interrupt(Callback):
    """Sends this process a signal after a step."""

    at: int
    number: int = signal.SIGINT

    def on_step(self, report: StepReport) -> None:
        if report.step == self.at:
            os.kill(os.getpid(), self.number)


def interrupt(at: int, number: int = signal.SIGINT) -> dict[str, Callback]:
    return {"interrupt": Interrupt(at=at, number=number)}


ALONE = [
    "llrd", "rdrop", "fgm", "lora", "sam", "pgd", "freelb", "smart", "vat", "neftune", "mixup", "supcon", "simcse", "group_dro",
]  # fmt: skip


@pytest.mark.parametrize("method", [*([name] for name in ALONE), ["supcon", "vat", "mixup", "simcse", "fgm"]], ids="+".join)
def test_micro_batches_change_nothing(engine: Make, method: list[str]) -> None:
    """16 rows at once, 2 times 8, 16 times 1: loss to 1e-6, gradient to 1e-5 of its length; no dropout."""
    loop = engine("run", method=method, model={"dropout": 0}, task={"name": "text_classification", "class_weights": {"good": 3}})
    for module in loop.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    whole = join(loop.plan[0])
    assert len(whole) == 16 and len(set(whole.weight.tolist())) == 3, "rows of unequal weight"
    found = []
    for pieces in (1, 2, 16):
        loop.model.train()
        loss = loop.gradient(cut(whole, pieces))
        found.append((float(loss), torch.cat([p.grad.flatten() for p in loop.trained])))
        loop.optimizer.zero_grad(set_to_none=True)
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], abs=1e-6)
        assert (gradient - found[0][1]).norm() <= 1e-5 * found[0][1].norm()


@pytest.mark.parametrize("method", METHODS, ids="+".join)
def test_two_runs_give_the_same_bits(engine: Make, bits: Any, log: Any, method: list[str]) -> None:
    one, other = engine("one", method=method, epochs=1), engine("other", method=method, epochs=1)
    start = bits(one)
    one.fit(), other.fit()
    assert same(bits(one), bits(other)) and not same(bits(one), start)
    assert log(one) == log(other)


def test_another_seed_gives_another_run(engine: Make, bits: Any) -> None:
    one, other = engine("one", epochs=1), engine("other", epochs=1, seed=1)
    one.fit(), other.fit()
    assert not same(bits(one), bits(other))


@pytest.mark.parametrize("method", METHODS, ids="+".join)
@pytest.mark.parametrize("micro_tokens", [8192, 40])
def test_a_run_that_goes_on_gives_the_bits_of_one_that_was_never_stopped(
    engine: Make, bits: Any, log: Any, method: list[str], micro_tokens: int
) -> None:
    """Stopped within the second epoch of 4 steps, and again at its end, before it is scored."""
    words = {"method": method, "micro_tokens": micro_tokens}
    whole = engine("whole", **words)
    if micro_tokens == 40:
        assert len(whole.plan[0]) > 2, "several micro-batches a step"
    whole.fit()
    for at in (6, 8):
        with pytest.raises(Interrupted) as stopped:
            broken = engine("broken", callbacks=interrupt(at), **words)
            if at > 6:
                broken.resume()
            broken.fit()
        assert (stopped.value.step, stopped.value.code, stopped.value.folder.name) == (at, 130, "broken")
    rest = engine("broken", **words)
    assert rest.resume() == ["going on from step 8 of 12"]
    rest.fit()
    assert log(rest) == log(whole)
    assert same(bits(rest), bits(whole))
    assert same({k: v.clone() for k, v in rest.ship().state_dict().items()}, dict(whole.ship().state_dict()))


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adafactor", "lion", "muon", "schedule_free"])
def test_other_optimisers_go_on_too(engine: Make, bits: Any, optimizer: str) -> None:
    whole = engine("whole", optimizer=optimizer)
    whole.fit()
    with pytest.raises(Interrupted) as stopped:
        engine("broken", optimizer=optimizer, callbacks=interrupt(5, signal.SIGTERM)).fit()
    assert stopped.value.code == 143
    rest = engine("broken", optimizer=optimizer)
    rest.resume()
    rest.fit()
    assert same(bits(rest), bits(whole))


def test_signals_are_given_back(engine: Make) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=r"^stopped by SIGINT at step 2; its checkpoint is kept\.$"):
        engine("run", callbacks=interrupt(2)).fit()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_run_without_a_checkpoint_starts_anew(engine: Make) -> None:
    assert engine("run").resume() == ["no checkpoint yet: starting from the beginning"]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(engine: Make, bits: Any) -> None:
    whole = engine("run")
    whole.fit()
    expected, folder = bits(whole), whole.checkpoints
    newest = folder / "step-00000012" / "state.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    rest = engine("run")
    damaged, going_on = rest.resume()
    assert damaged.startswith("checkpoint step-00000012 is damaged and was passed over: ") and "SHA-256 differs" in damaged
    assert going_on == "going on from step 8 of 12"
    rest.fit()
    assert same(bits(rest), expected)
    for state in folder.glob("step-*/state.json"):
        state.write_text("{}")
    with pytest.raises(UserError, match=r"no checkpoint is whole.*Start anew with another --out."):
        engine("run").resume()


def test_two_checkpoints_and_what_they_need_are_kept(engine: Make) -> None:
    loop = engine("run")
    loop.fit()
    names = sorted(p.name for p in loop.checkpoints.iterdir())
    steps = [n for n in names if n.startswith("step")]
    assert steps == ["step-00000008", "step-00000012"]
    needed = {json.loads((loop.checkpoints / s / "state.json").read_text())["best_step"] for s in steps}
    assert [n for n in names if n.startswith("best")] == [f"best-{n:08d}" for n in sorted(needed)]


def test_what_scored_best_is_what_ships(engine: Make, bits: Any) -> None:
    """A rate at which the last epoch is worse than an earlier one; also the average of weights, which is what is scored."""
    for method, lr in (("llrd", 0.05), ("ema", 0.05)):
        loop = engine(method, method=method, lr=lr)
        progress = loop.fit()
        key = loop.task.best
        scores = {line["step"]: line["validation"][key] for line in progress.history}
        assert list(scores) == [0, 4, 8, 12]
        assert progress.best_step == max(scores, key=lambda step: (scores[step], -step)), "of equals the first"
        last = bits(loop)
        loop.ship()
        if progress.best_step != 12:
            assert not same(bits(loop), last)
        assert loop.evaluate(loop.job.validation).value() == progress.best
        assert progress.best[key] == max(scores.values())


def test_choosing_never_makes_a_metric_of_anything_but_validation(engine: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One metric an evaluation: at the start and after each of three epochs."""
    made: list[Any] = []
    metric = TextClassification.metric

    def count(self: TextClassification, decision: Decision | None = None) -> Any:
        made.append(metric(self, decision))
        return made[-1]

    monkeypatch.setattr(TextClassification, "metric", count)
    engine("run").fit()
    assert [m.value()["examples"] for m in made] == [20, 20, 20, 20]


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_weights(engine: Make, bits: Any) -> None:
    loop = engine("run")
    loop.job.score_start = False
    loss = loop.gradient
    loop.gradient = lambda batches: loss(batches) * (float("nan") if loop.progress.step == 2 else 1.0)
    kept: list[Any] = []
    step = loop._step

    def watched() -> None:
        kept.append(bits(loop))
        step()

    loop._step = watched
    with pytest.raises(UserError) as refused:
        loop.fit()
    rows = sorted(r for b in loop.plan[2] for r in b.rows)
    assert refused.value.where == f"step 2, training rows {', '.join(map(str, rows))}"
    assert "loss nan" in refused.value.what and "The weights were not changed." in refused.value.what
    assert "train.precision=float32" in refused.value.fix
    assert len(kept) == 3 and same(bits(loop), kept[-1])


def test_weights_that_are_no_numbers_stop_the_run_too(engine: Make, bits: Any) -> None:
    loop = engine("run")
    loop.job.score_start = False
    with torch.no_grad():
        loop.model.head.last.bias[0] = float("inf")
    with pytest.raises(UserError, match="not finite"):
        loop.fit()


def test_a_rate_of_each_step_is_in_the_log(engine: Make, log: Any) -> None:
    """12 steps, of which ceil(0.1 * 12) = 2 warm up, then a line to 0."""
    loop = engine("run", lr=1e-3)
    loop.fit()
    lrs = [line["lr"] for line in log(loop) if "lr" in line]
    assert lrs == pytest.approx([0.5e-3, 1e-3, *(1e-3 * (1 - k / 10) for k in range(10))])


def test_evaluations_within_an_epoch(engine: Make, log: Any) -> None:
    loop = engine("run", epochs=1.5, evals_per_epoch=2)
    loop.fit()
    assert [line["step"] for line in log(loop) if "validation" in line] == [0, 2, 4, 6]


def test_a_callback_may_stop_the_run(engine: Make) -> None:
    loop = engine("run", lr=1e-9, epochs=50, callbacks={"early_stopping": EarlyStopping(patience=2)})
    assert loop.fit().step == 8, "scored at 0, then twice without a better score"


def test_a_checkpoint_holds_no_pickle(engine: Make) -> None:
    loop = engine("run", epochs=1)
    loop.fit()
    assert {p.suffix for p in loop.checkpoints.rglob("*") if p.is_file()} == {".safetensors", ".json"}
    found = checkpoint.latest(loop.checkpoints)
    assert found is not None and found[0].plain["step"] == 4
