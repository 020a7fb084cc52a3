"""The loop. It knows roles only: a task, methods, callbacks, a plan.

    for each step of the plan:
        gradient of the step's micro-batches      (methods wrap the loss and the gradient)
        clip, rate, optimiser                     (methods look on: averages of weights)
        report                                    (callbacks watch)
        now and then: score on validation, keep the best weights, checkpoint
    at the end the best weights are put back and folded: what was scored is what ships

All randomness follows from (seed, step, micro-batch), so a run that goes on from a checkpoint gives the same bits.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path
from typing import Any

import torch

from trainformer.bundle.adapters import Adapter, taken
from trainformer.bundle.outputs import batches_of_rows, in_order
from trainformer.core.batch import Batch
from trainformer.core.config import TrainSettings
from trainformer.core.memory import keep_memory
from trainformer.core.protocols import Metric
from trainformer.core.roles import Callback, Decision, EvalReport, Facts, Method, Model, StepReport, Task
from trainformer.core.seeds import seed_of
from trainformer.data.plan import Plan, Rows
from trainformer.engine import checkpoint, optim
from trainformer.engine.limits import Interrupted, Stop, finite, nonfinite, require_scores, require_weights, sick, signals
from trainformer.engine.native import use_kernels
from trainformer.engine.optimizers.schedule_free import ScheduleFree
from trainformer.engine.pace import Pace
from trainformer.engine.pieces import Log, Loop, wrapped
from trainformer.engine.precision import device_of, half
from trainformer.engine.ranks import Ranks
from trainformer.engine.recompute import recompute
from trainformer.engine.writer import Writer
from trainformer.nn.dropout import quicken


@dataclass
class Job:
    """What the loop works on."""

    model: Model
    task: Task
    plan: Plan
    validation: Rows
    settings: TrainSettings
    folder: Path
    methods: dict[str, Method] = field(default_factory=dict)
    callbacks: dict[str, Callback] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    score_start: bool = False
    """Score the model before the first step: it may already be the best (a head from a linear probe)."""
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that share the work."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What methods may know besides: `column` and `tokenizer` of `Facts`."""
    places: Callable[[list[int]], str] = lambda rows: f"training rows {', '.join(map(str, rows))}"
    """Names training rows in messages: by file and line, where that is known."""


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    best_step: int | None = None
    best: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False
    skipped: int = 0


class Engine:
    """Trains a model, keeps its best weights, and can be killed and resumed."""

    def __init__(self, job: Job):
        self.job, self.settings = job, job.settings
        self.model, self.task, self.plan, self.ranks = job.model, job.task, job.plan, job.ranks
        self.device = device_of(job.settings.device)
        keep_memory()
        quicken(self.model)
        self.half = bool(self.ranks.same(half(job.settings.precision, self.device)))
        self.progress = Progress()
        self.pace = Pace(job.settings, job.plan)
        self.adapter: Adapter | None = None
        self.checkpoints = job.folder / "checkpoints"
        self._whole: Path | None = None
        self._cut: list[int] = []
        self.model.to(self.device)
        self.native, self.said = use_kernels(self)
        if job.settings.recompute:
            recompute(self.model.body)
        self.arm()

    def arm(self) -> None:
        """Methods, optimiser and gradient for the weights as they stand."""
        methods = list(self.job.methods.values())
        self.prepare()
        self.optimizer = optim.build(self.model, methods, self.settings, self.native)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.plan.pick = lambda rows, step: reduce(lambda chosen, method: method.pick(chosen, step), methods, rows)
        self.gradient = wrapped(self.model, self.task, methods, Loop(self.numbers, self._seed, self.ranks, self._cut.append))

    def prepare(self) -> None:
        """Shows the methods the model as it stands: once more if a probe has given its head a start."""
        rows = self.plan.rows
        same = type(self.task).vary is Task.vary
        batches = partial(batches_of_rows, self.model, rows, self.settings.micro_tokens) if same else None
        facts = Facts(self.task, len(self.plan), self.settings.seed, self.plan.steps_an_epoch, self.job.folder, batches,
                      len(rows), lengths=lambda: rows.lengths, **self.job.facts)  # fmt: skip
        for method in self.job.methods.values():
            method.prepare(self.model, facts)

    def fit(self) -> Progress:
        """Trains to the end of the plan, or until a callback asks to stop; then the best weights are in the model.

        Raises Interrupted on a signal, after a checkpoint, and UserError on a loss that is no number.
        """
        require_weights(self.model, f"before step {self.progress.step}")
        self.ranks.begin(self)
        kept, scored = self.job.folder if self.ranks.first else None, [line["step"] for line in self.progress.history]
        self.log = Log(kept and kept / "log.jsonl", self.progress.step, scored)
        self.writer = Writer(kept and self.checkpoints, self.settings, self._whole)
        start = {"run": str(self.job.folder), "steps": len(self.plan), "start": self.progress.step, "config": self.job.config,
                 "minutes": self.settings.minutes}  # fmt: skip
        self.pace.begin()
        try:
            with signals(self.job.folder) as note, self.ranks.guard(self, note) as stop, self.writer:
                for callback in self.job.callbacks.values():
                    callback.on_start({**start, "model": type(self.model.body).__name__})
                if self._unscored():
                    self._score(stop)
                    self.save()
                while self.progress.step < len(self.plan) and not self.progress.stopped:
                    self._step()
                    self._fit_pace()
                    self.ranks.agree()
                    if self._due():
                        self._score(stop)
                        self.save()
                    elif self.ranks.same(self.writer.due(self.progress.step)) or stop.number:
                        self.save()
                    stop.check(self.progress.step)
        finally:
            for callback in self.job.callbacks.values():
                callback.on_end()
            self.log.close()
        return self.progress

    def _step(self) -> None:
        step, began = self.progress.step, time.perf_counter()
        self.model.train()
        batches = self.plan[step]
        tokens = sum(b.tokens for b in batches)
        shape = [(len(p.lengths), p.longest) for b in batches for p in b.parts]
        padded = sum(n * longest for n, longest in shape) - tokens if self.plan.padded else 0
        tokens, padded = self.ranks.add(tokens, padded)
        loss = self.gradient(batches)
        norm = self.ranks.clip(self.trained, self.settings.clip_norm, self.optimizer)
        if not finite(loss, norm):
            return self._pass_over(batches, float(loss), float(norm))
        lr = optim.rate(self.pace.place(step), len(self.plan), self.settings)
        optim.set_rate(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for method in self.job.methods.values():
            method.after_step(self.model, step + 1)
        self.progress.step = step + 1
        report = StepReport(step + 1, len(self.plan), self._epoch, float(loss), lr, tokens, padded,
                            time.perf_counter() - began, float(norm))  # fmt: skip
        cut = {"out_of_memory": self._cut[-1]} if self._cut else {}
        self._cut.clear()
        self.log.write(
            step=step + 1, epoch=round(self._epoch, 6), loss=report.loss, lr=lr, tokens=tokens, seconds=report.seconds, **cut
        )
        for callback in self.job.callbacks.values():
            callback.on_step(report)

    def _pass_over(self, batches: list[Batch], loss: float, norm: float) -> None:
        """A step whose loss or gradient is no number changes no weight; it ends the run, unless some may be skipped."""
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.skipped += 1
        step, skipped = self.progress.step, self.progress.skipped
        epoch = round((step + 1) / self.plan.steps_an_epoch, 6)
        self.log.write(step=step + 1, epoch=epoch, loss=loss, grad_norm=norm, skipped=skipped)
        if skipped > self.settings.skip_nonfinite:
            found = sick(self.model, self.task, batches) if self.ranks.whole_here else []
            rows = self.ranks.rows(found) or self.ranks.rows([r for b in batches for r in b.rows])
            raise nonfinite(f"loss {loss}, gradient norm {norm}", step, self.job.places(rows))
        self.progress.step = step + 1

    def _fit_pace(self) -> None:
        """Under a limit of time: the number of steps, fitted now and then, the same in all processes."""
        step = self.progress.step
        if self.pace.limit is not None and (steps := int(self.ranks.same(self.pace.wanted(step)))):
            self.pace.fit(step, steps)
            self.log.write(step=step, steps=steps, share=self.pace.share(step), used_seconds=self.pace.elapsed())

    def _score(self, stop: Stop) -> None:
        """Scores validation with the weights that would ship, and keeps them if they are the best so far."""
        self._swap()
        try:
            with self.pace.scoring():
                metric = self.evaluate(self.job.validation, stop=stop)
        except Interrupted:
            self._swap(back=True)
            self.save()
            raise
        scores, key, up = metric.value(), self.task.best, self.task.higher_is_better
        require_scores(scores, self.progress.step)
        before = self.progress.best.get(key)
        best = before is None or (scores[key] > before if up else scores[key] < before)
        if best:
            self.progress.best_step, self.progress.best = self.progress.step, scores
            self.writer.best(self.progress.step, self.ranks.whole(self.model.state_dict()))
        for method in self.job.methods.values():
            method.scored(self.model, scores[key] if up else -scores[key])
        self._swap(back=True)
        line = {"step": self.progress.step, "epoch": round(self._epoch, 6), "validation": scores, "best": best}
        self.progress.history.append(line)
        told = {name: words for name, method in self.job.methods.items() if (words := method.told())}
        self.log.write(**line, **({"methods": told} if told else {}))
        report = EvalReport(self.progress.step, self._epoch, scores, best, key, up)
        asked = [callback.on_eval(report) for callback in self.job.callbacks.values()]
        self.progress.stopped = bool(self.ranks.same(any(asked)))

    def cut_to(self, micro_tokens: int) -> None:
        """Other micro-batches from here on; the result of a step stays the same but for rounding."""
        self.plan.micro_tokens = micro_tokens
        self.settings = self.settings.model_copy(update={"micro_tokens": micro_tokens})

    def evaluate(self, rows: Rows, decision: Decision | None = None, stop: Stop | None = None) -> Metric:
        """The task's scores on rows, in float32, batch by batch in constant memory."""
        metric = self.task.metric(decision)
        for output, batch in self._outputs(rows):
            metric.add(output, batch)
            if stop is not None:
                stop.check(self.progress.step)
        return metric

    def outputs(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Raw outputs "N C" and targets of rows, in their order."""
        return in_order(self._outputs(rows), len(rows))

    def ship(self) -> Model:
        """The model with its best weights, methods folded in, ready for the bundle."""
        assert self.progress.best_step is not None, "a run is scored at least once"
        self.model, self.ranks = self.ranks.model(self.model), Ranks()
        self.model.load_state_dict(checkpoint.load_best(self.checkpoints, self.progress.best_step))
        for method in self.job.methods.values():
            method.finish(self.model, self._goodness)
        self.adapter = taken(self.model)
        for method in self.job.methods.values():
            method.fold(self.model)
        return self.model.eval()

    def _goodness(self) -> float:
        """The score on validation of the weights in the model; of two the larger is the better."""
        score = self.evaluate(self.job.validation).value()[self.task.best]
        return score if self.task.higher_is_better else -score

    def resume(self) -> list[str]:
        """Goes back to the newest whole checkpoint; what to say of it. Without one the run starts anew."""
        found = checkpoint.latest(self.checkpoints)
        if found is None:
            return ["no checkpoint yet: starting from the beginning"]
        state, said = found
        self._whole = state.path
        self.take(state)
        return [*said, f"going on from step {self.progress.step} of {len(self.plan)}"]

    def take(self, state: checkpoint.State) -> None:
        """Goes to where the run stood when `state` gave this."""
        self.model.load_state_dict(state.part("model."))
        checkpoint.restore_optimizer(self.optimizer, state.part("optimizer."))
        for name, method in self.job.methods.items():
            method.restore(state.part(f"method.{name}."))
        for name, callback in self.job.callbacks.items():
            callback.restore(state.plain["callbacks"].get(name, {}))
        self.pace.restore(state.plain.get("pace", {}))
        self.progress = Progress(**{k: state.plain[k] for k in Progress.__dataclass_fields__})

    def _outputs(self, rows: Rows) -> Iterator[tuple[torch.Tensor, Batch]]:
        return self.ranks.outputs(self.model, self.task, batches_of_rows(self.model, rows, self.settings.micro_tokens))

    def state(self) -> checkpoint.State:
        """Everything that `take` needs to go on from here with the same bits; the tensors are those in use."""
        tensors = (
            {f"model.{k}": v for k, v in self.model.state_dict().items()}
            | {f"optimizer.{k}": v for k, v in checkpoint.optimizer_tensors(self.optimizer).items()}
            | {f"method.{n}.{k}": v for n, m in self.job.methods.items() for k, v in m.state().items()}
        )
        told = {name: kept for name, callback in self.job.callbacks.items() if (kept := callback.state())}
        plain = vars(self.progress) | {"callbacks": told, "pace": self.pace.state()}
        return checkpoint.State(self.ranks.whole(tensors), plain)

    def save(self) -> None:
        """A checkpoint of this step, which the first process writes beside training."""
        self.writer.state(self.progress.step, self.state(), self.log.sync)

    def _swap(self, back: bool = False) -> None:
        """The weights to ship for those in training, and back again in the other order."""
        if isinstance(self.optimizer, ScheduleFree):
            self.optimizer.swap()
        methods = list(self.job.methods.values())
        for method in reversed(methods) if back else methods:
            method.swap(self.model)

    def _due(self) -> bool:
        """Whether the step just done is followed by an evaluation: at each share of an epoch, and at the end."""
        each = self.settings.evals_per_epoch / self.plan.steps_an_epoch
        step = self.progress.step
        return step == len(self.plan) or int(step * each + 1e-9) > int((step - 1) * each + 1e-9)

    def _unscored(self) -> bool:
        """Whether an evaluation is owed before the next step: of the start, or one that a signal cut short."""
        scored = any(line["step"] == self.progress.step for line in self.progress.history)
        return not scored and (self._due() if self.progress.step else self.job.score_start)

    @property
    def _epoch(self) -> float:
        return self.progress.step / self.plan.steps_an_epoch

    def _seed(self) -> int:
        return seed_of(self.settings.seed, self.progress.step) + self.ranks.rank

    def numbers(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)
