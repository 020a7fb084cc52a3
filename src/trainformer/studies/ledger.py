"""The trials of a study in an Optuna storage: who has which, what was proposed, what came of it.

A trial is written down, with the folder that it belongs to, before anything of it is done. One that was cut off stays open in
the storage and is gone on with by its own folder, under its own number; other machines leave it alone.
"""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainformer.core.errors import MissingExtra, UserError
from trainformer.data.plan import seed_of
from trainformer.studies.settings import StudySettings

STARTUP = 6
"""Trials before TPE begins to learn; few, for a trial is dear."""
REDUCTION = 3
"""A third of the trials goes on from one rung to the next."""

OUT_OF_TIME = "out of time"
"""The reason of a trial that the clock stopped."""


@dataclass
class Entry:
    """A trial as it stands in the storage."""

    number: int
    state: str
    """open, done, pruned or failed."""
    score: float | None
    scores: dict[int, float]
    """The best score so far at each evaluation."""
    settings: dict[str, Any]
    """What was proposed, choices by their words; empty for trial 0."""
    facts: dict[str, Any] = field(default_factory=dict)
    """seconds, reason, parameters, home (the study folder's own name)."""

    @property
    def ended(self) -> str:
        """Its state in words: what the clock stopped was not pruned for its score, and may be the best."""
        return OUT_OF_TIME if self.facts.get("reason") == OUT_OF_TIME else self.state

    def line(self) -> dict[str, Any]:
        """A line of trials.jsonl."""
        told = {k: v for k, v in self.facts.items() if k != "home"}
        shown = {str(k): v for k, v in self.scores.items()}
        return {
            "trial": self.number,
            "state": self.state,
            "score": self.score,
            "settings": self.settings,
            **told,
            "scores": shown,
        }


class Ledger:
    """One study. `home` names this folder among all that share the storage."""

    def __init__(self, settings: StudySettings, folder: Path, home: str, higher: bool):
        self.optuna, self.settings, self.home, self.higher = library(), settings, home, higher
        self.optuna.logging.set_verbosity(self.optuna.logging.ERROR)
        url = settings.storage or f"sqlite:///{(folder / 'study.db').absolute()}"
        try:
            self.study = self.optuna.create_study(
                storage=url, study_name=settings.name, load_if_exists=True, pruner=self._pruner(),
                direction="maximize" if higher else "minimize",
            )  # fmt: skip
        except (ImportError, ValueError, OSError, self._sql_error()) as error:
            raise UserError(f"it cannot be opened: {str(error).splitlines()[0]:.200}", where=f"storage {url}") from error

    def close(self) -> None:
        """Gives the connections back."""
        storage = getattr(self.study._storage, "_backend", self.study._storage)
        if hasattr(storage, "engine"):
            storage.remove_session()
            storage.engine.dispose()

    def agree(self, name: str, value: Any) -> Any:
        """Writes a fact of the whole study down if it is not there yet; what stands there."""
        if name not in self.study.user_attrs:
            self.study.set_user_attr(name, value)
        return self.study.user_attrs[name]

    def known(self, name: str) -> Any:
        """A fact of the whole study, None if nobody has written it."""
        return self.study.user_attrs.get(name)

    def entries(self) -> list[Entry]:
        """All trials, by number, those of other machines too."""
        return [_entry(frozen) for frozen in self.study.get_trials(deepcopy=False)]

    def cut_off(self) -> Any | None:
        """The first trial of this folder that is still open."""
        for frozen in self.study.get_trials(deepcopy=False):
            if not frozen.state.is_finished() and frozen.user_attrs["home"] == self.home:
                return self._opened(frozen)
        return None

    def begin(self) -> Any:
        """A new trial, open, in one write: it never stands there without its home."""
        state = self.optuna.trial.TrialState.RUNNING
        token = f"{self.home}-{len(self.study.get_trials(deepcopy=False))}"
        self.study.add_trial(self.optuna.create_trial(state=state, user_attrs={"home": self.home, "token": token}))
        trials = self.study.get_trials(deepcopy=False)
        return self._opened(next(t for t in reversed(trials) if t.user_attrs["token"] == token))

    def _opened(self, frozen: Any) -> Any:
        """A trial that proposes. What it proposes follows from the study's seed, its number and the trials before it."""
        self.study.sampler = self._sampler(seed_of(self.settings.seed, frozen.number) % 2**32)
        return self.optuna.trial.Trial(self.study, frozen._trial_id)

    def place(self, trial: Any, found: dict[str, Any], dimensions: list[Any]) -> None:
        """Writes down where trial 0, which was not proposed, lies in the space, so that the sampler learns from it."""
        there = self.study.get_trials(deepcopy=False)[trial.number].params
        for each in dimensions:
            if each.name in found and each.name not in there:
                distribution = self._distribution(each)
                inner = distribution.to_internal_repr(found[each.name])
                trial.storage.set_trial_param(trial._trial_id, each.name, inner, distribution)

    def report(self, trial: Any, evaluation: int, score: float) -> bool:
        """Writes a score down, once; whether the pruner would end the trial. Trial 0, the one to beat, is never pruned."""
        if evaluation not in self.study.get_trials(deepcopy=False)[trial.number].intermediate_values:
            trial.report(score, evaluation)
        return trial.number > 0 and bool(trial.should_prune())

    def note(self, trial: Any, **facts: Any) -> None:
        """Writes down what is known of a trial beside its scores, all in one."""
        if facts:
            trial.set_user_attr("facts", trial.user_attrs.get("facts", {}) | facts)

    def end(self, trial: Any, state: str, score: float | None = None, **facts: Any) -> None:
        """Closes a trial as done, pruned or failed."""
        self.note(trial, **facts)
        kinds = self.optuna.trial.TrialState
        named = {"done": kinds.COMPLETE, "pruned": kinds.PRUNED, "failed": kinds.FAIL}[state]
        self.study.tell(trial, score if state == "done" else None, state=named)

    def best(self) -> Entry | None:
        """The trial of the best score among all."""
        return self.best_of(self.entries())

    def best_of(self, entries: list[Entry]) -> Entry | None:
        """Of equal scores the first, so that trial 0 is only replaced by a better one."""
        scored = [e for e in entries if e.score is not None and e.state in ("done", "pruned")]
        sign = 1 if self.higher else -1
        return max(scored, key=lambda e: (sign * (e.score or 0.0), -e.number), default=None)

    def forget(self) -> None:
        """Takes the study out of the storage, if no other machine has part in it."""
        if all(e.facts["home"] == self.home for e in self.entries()):
            self.optuna.delete_study(study_name=self.settings.name, storage=self.study._storage)

    def importance(self, names: list[str]) -> dict[str, float]:
        """Share of each setting in what sets good trials apart (PED-ANOVA: Watanabe et al. 2023, arXiv:2304.10255); sums to 1.

        Pruned trials count with the score that they had reached. Empty for fewer than 4 trials that have all of the names, and
        where their scores are too much alike to tell.
        """
        kinds = self.optuna.trial.TrialState
        trials = [t for t in self.study.get_trials() if t.values and {*names} <= {*t.params}]
        if len(trials) < 4 or not names:
            return {}
        copy = self.optuna.create_study(direction=self.study.direction)
        for each in trials:
            kept = {n: each.params[n] for n in names}, {n: each.distributions[n] for n in names}
            copy.add_trial(
                self.optuna.create_trial(state=kinds.COMPLETE, value=each.values[0], params=kept[0], distributions=kept[1])
            )
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            try:
                found: dict[str, float] = self.optuna.importance.get_param_importances(copy, params=names)
            except UserWarning:  # the better trials are all of the trials
                return {}
        return found

    def _sampler(self, seed: int) -> Any:
        if self.settings.sampler == "random":
            return self.optuna.samplers.RandomSampler(seed=seed)
        with _quiet(self.optuna):
            return self.optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True, group=True)

    def _pruner(self) -> Any:
        pruners = self.optuna.pruners
        if self.settings.pruner == "asha":
            return pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
        if self.settings.pruner == "hyperband":
            return pruners.HyperbandPruner(min_resource=1, reduction_factor=REDUCTION)
        return pruners.NopPruner()

    def _distribution(self, each: Any) -> Any:
        kinds = self.optuna.distributions
        if each.kind == "choice":
            return kinds.CategoricalDistribution(list(each.choices))
        if each.kind == "int":
            return kinds.IntDistribution(int(each.low), int(each.high))
        return kinds.FloatDistribution(each.low, each.high, log=each.kind == "log")

    def _sql_error(self) -> Any:
        from importlib import import_module

        return import_module("sqlalchemy.exc").SQLAlchemyError


def _entry(frozen: Any) -> Entry:
    state = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}.get(frozen.state.name, "open")
    scores = dict(sorted(frozen.intermediate_values.items()))
    score = frozen.values[0] if frozen.values else None
    facts = {"home": frozen.user_attrs["home"], **frozen.user_attrs.get("facts", {})}
    return Entry(frozen.number, state, score, scores, dict(frozen.params), facts)


def lines(entries: list[Entry]) -> str:
    """The text of trials.jsonl: an object for each trial that is closed."""
    return "".join(json.dumps(e.line(), ensure_ascii=False) + "\n" for e in entries if e.state != "open")


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """What is marked as experimental is used knowingly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def library() -> Any:
    """Optuna. Raises MissingExtra if it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise MissingExtra("optuna", "search") from error
    return optuna
