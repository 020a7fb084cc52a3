"""Configuration -> bundle, on one page: read, check, build, baselines, train, decide, test once, write."""

import json
import platform
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainformer import build
from trainformer.build import Run
from trainformer.bundle import Bundle
from trainformer.bundle.adapters import kept, stays
from trainformer.bundle.reference import Reference
from trainformer.bundle.states import summary
from trainformer.bundle.writing import Contents, write
from trainformer.core import config as settings
from trainformer.core.config import Config
from trainformer.core.errors import UserError
from trainformer.core.files import require_room, sweep, write_json, write_text
from trainformer.core.roles import Model
from trainformer.data import prepare
from trainformer.data.check import CheckReport, Part
from trainformer.data.check import check as look
from trainformer.data.prepare import Prepared
from trainformer.engine import begun
from trainformer.engine.engine import Engine, Progress
from trainformer.engine.forecast import forecast
from trainformer.engine.probe import fit_probe
from trainformer.engine.ranks import join
from trainformer.engine.room import make_room
from trainformer.nn.few_rows import whole_again
from trainformer.trust import card, report
from trainformer.trust.baselines import Baselines
from trainformer.trust.findings import against_baselines, curve
from trainformer.trust.judge import Judged, judge

SCORES = "scores.json"
"""Written last: a run that has it is finished."""


@dataclass(frozen=True)
class Result:
    """What a run gives: its folder, its bundle, and its scores on validation and test."""

    folder: Path
    scores: dict[str, Any]

    @property
    def bundle(self) -> Bundle:
        """The finished model, opened."""
        return Bundle.open(self.folder / "bundle")


def train(run: Run, resume: bool = False) -> Result:
    """Trains, and writes RUN/: bundle, report.html, log.jsonl, config.yaml, scores.json, checkpoints.

    Raises UserError for bad input, before anything is written where it can be known, and Interrupted on a signal.
    """
    began, run.ranks = time.perf_counter(), join()
    if not run.ranks.first:
        run.say, run.show = (lambda _: None), (lambda _: None)
    if resume and run.ranks.same(all((run.folder / name).exists() for name in ("bundle", SCORES))):
        return _finished(run)
    config, tokens, limit, prepared = run.ranks.in_turn(lambda: build.rows(run, labelled=True))
    engine, backbone, config = build.engine(run, config, prepared)
    if not run.ranks.first:
        engine.fit()
        return Result(run.folder, run.ranks.word({}))
    checked = _check(prepared, config, limit, None if config.train.shard else _forecast(run, engine))
    run.show(checked)
    _refuse(checked, run.strict)
    require_room(run.folder, 24 * sum(p.numel() for p in engine.model.parameters()))
    wanted = config.train.baselines and run.part != "fit" and not config.task.unlabelled
    cheap = Baselines(config.task, prepared.slices["train"], config.train.seed) if wanted else None
    _begin(run, config, prepared, engine, resume)
    baselines = _baselines(run, cheap, prepared, engine, resume and any((run.folder / "checkpoints").glob("step-*")))
    for line in engine.resume() if resume else []:
        run.say(line)
    progress = engine.progress if run.part == "ship" else engine.fit()
    prepared.require_unchanged()
    if run.part == "fit":
        return _fitted(run, engine)
    model = whole_again(engine.ship())
    judged = judge(engine, prepared, config.decision, tokens, limit)
    results = {
        **_facts(config, checked, prepared, engine, progress, model),
        "baselines": _on_test(baselines, cheap, prepared),
        "validation": judged.validation,
        "test": judged.test,
        "decision": asdict(judged.decision),
        "decision_notes": judged.notes,
        "errors": judged.errors,
        "reference": _remembered(prepared, config, model, judged),
        "max_tokens": limit,
        "seconds": round(run.seconds + time.perf_counter() - began, 1),
    }
    results["verdict"] = against_baselines(results, engine.task.best, engine.task.higher_is_better)
    prepared.require_unchanged()
    columns = prepared.slices["train"].columns
    contents = Contents(engine.task, backbone, model, tokens, judged.decision, columns, limit, _kept(results),
                        stays(config.method), adapter=kept(engine.adapter, config.method, backbone))  # fmt: skip
    return _write(run, contents, results, config)


def _remembered(prepared: Prepared, config: Config, model: Model, judged: Judged) -> Reference | None:
    """What the bundle remembers of the data, for who watches a service; a task that tells tokens is not watched."""
    if config.task.vocabulary:
        return None
    rows = (prepared.slices["train"].rows, prepared.slices["validation"].rows)
    return summary(config.task, model, rows, judged.answers)


def _fitted(run: Run, engine: Engine) -> Result:
    """What is known before anything is shipped: the best scores on validation, as they came."""
    sizes = {"parameters": sum(p.numel() for p in engine.model.parameters())}
    sizes["trained_parameters"] = sum(p.numel() for p in engine.trained)
    return Result(run.folder, {"validation": engine.progress.best, "best_step": engine.progress.best_step, **sizes})


def _begin(run: Run, config: Config, prepared: Prepared, engine: Engine, resume: bool) -> None:
    """The run's folder with its settings and what else its bits depend on; a run that goes on is held to both."""
    run.folder.mkdir(parents=True, exist_ok=True)
    now = begun.facts(engine, prepared.files)
    if resume and (run.folder / "config.yaml").is_file():
        begun.refuse_change(run.folder, config, prepared.files)
        for line in begun.differences(run.folder, now):
            run.say(line)
    sweep(run.folder)
    write_text(run.folder / "config.yaml", settings.dump_yaml(config))
    begun.write(run.folder, now)


def _finished(run: Run) -> Result:
    """Nothing is left to do: the scores are written when all else is."""
    run.say(f"--out {run.folder}: this run is finished, and nothing is done. Its bundle: {run.folder / 'bundle'}")
    found = json.loads((run.folder / SCORES).read_text(encoding="utf-8"))
    return Result(run.folder, {split: found[split] for split in ("validation", "test")})


def check(run: Run) -> CheckReport:
    """The pre-flight report alone: nothing is trained and nothing is written. Rows in error are listed, not raised."""
    config, _, limit, prepared = build.rows(run, labelled=False)
    if _broken(prepared):
        return _check(prepared, config, limit, None)
    try:
        prepare.learn(prepared, config.task)
    except UserError:  # the report has this as a finding, with places
        return _check(prepared, config, limit, None)
    return _check(prepared, config, limit, _forecast(run, build.engine(run, config, prepared)[0]))


def _forecast(run: Run, engine: Engine) -> dict[str, Any]:
    """Time and memory; micro-batches that do not fit are cut, and a run that does not fit is refused."""
    memory, said = make_room(engine)
    for line in said:
        run.say(line)
    return forecast(engine, memory)


def _broken(prepared: Prepared) -> bool:
    return any(f.severity == "error" for s in prepared.slices.values() for f in s.survey.findings)


def _check(prepared: Prepared, config: Config, limit: int, predicted: dict[str, Any] | None) -> CheckReport:
    parts = [Part(s.name, s.source.name, s.survey, s.chosen, s.cache) for s in prepared.slices.values()]
    return look(parts, config.task, limit, predicted)


def _refuse(report: CheckReport, strict: bool) -> None:
    """Raises UserError for what cannot be trained on; with `strict` for warnings too."""
    grave = report.errors or (report.warnings if strict else [])
    if grave:
        more = f" ({len(grave) - 1} more findings above)" if len(grave) > 1 else ""
        first = grave[0]
        raise UserError(f"{first.message}{more}", where=first.where[0] if first.where else "check", fix=first.fix)


def _baselines(run: Run, cheap: Baselines | None, prepared: Prepared, engine: Engine, again: bool) -> list[dict[str, Any]]:
    """Majority class, TF-IDF and linear probe on validation; a run that goes on reads what it found before."""
    path = run.folder / "baselines.json"
    before: dict[str, Any] = {}
    if again and path.is_file():
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        if run.part != "ship":
            return found
        before = {b["name"]: b["validation"] for b in found}  # a trial of a study has fitted the probe alone
    held = prepared.slices["validation"]
    scores = (cheap.scores(held) if cheap else {}) | before
    if engine.task.unlabelled:
        scores["not fine-tuned"] = engine.evaluate(held.rows).value()
    elif engine.settings.probe and not before:
        scores["linear probe"] = fit_probe(engine, prepared.slices["train"].rows, held.rows)
        engine.prepare()
    for name, values in scores.items():
        run.say(f"baseline {name}: {engine.task.best} {values[engine.task.best]:.4f} on validation")
    listed = [{"name": name, "validation": values, "test": None} for name, values in scores.items()]
    write_json(path, listed)
    return listed


def _on_test(baselines: list[dict[str, Any]], cheap: Baselines | None, prepared: Prepared) -> list[dict[str, Any]]:
    """The baselines with their test scores; the probe has none, since its weights have been trained on."""
    scores = cheap.scores(prepared.slices["test"]) if cheap and "test" in prepared.slices else {}
    return [each | {"test": scores.get(each["name"])} for each in baselines]


def _facts(
    config: Config, checked: CheckReport, prepared: Prepared, engine: Engine, progress: Progress, model: Model
) -> dict[str, Any]:
    """What the report and the bundle tell of the run, apart from scores."""
    packages = ("trainformer", "torch", "transformers", "tokenizers", "safetensors")
    return {
        "task": type(config.task).key,
        "model": Path(str(config.model.settings()["name"])).name,
        "labels": getattr(config.task, "labels", None),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "config": settings.dump_yaml(config),
        "said": prepared.said,
        "data": checked.to_dict(),
        "fingerprint": prepared.fingerprint,
        "history": progress.history,
        "curve": curve(engine.job.folder / "log.jsonl"),
        "key": engine.task.best,
        "higher_is_better": engine.task.higher_is_better,
        "best_step": progress.best_step,
        "parameters": sum(p.numel() for p in model.parameters()),
        "methods": {name: method.told() for name, method in config.method.items()},
        "trained_parameters": sum(p.numel() for p in engine.trained),
    }


def _kept(results: dict[str, Any]) -> dict[str, Any]:
    """What of the results the bundle itself remembers."""
    scores = {split: results[split]["scores"] for split in ("validation", "test") if results[split]}
    return {k: results[k] for k in ("created", "versions", "fingerprint")} | {"scores": scores}


def _write(run: Run, contents: Contents, results: dict[str, Any], config: Config) -> Result:
    """Bundle with card and report, and the scores beside it."""
    contents = replace(contents, reference=results.pop("reference"))
    results["opens_in_transformers"] = contents.backbone.opens_in_library(contents.model)
    page = report.render(results)
    contents.pages.update({"README.md": card.render(results), "report.html": page})
    write(run.folder / "bundle", contents)
    write_text(run.folder / "report.html", page)
    scores = {"validation": results["validation"]["scores"], "test": (results["test"] or {}).get("scores")}
    flat = {f"test_{k}": v for k, v in (scores["test"] or {}).items()}
    facts = {k: results[k] for k in ("baselines", "verdict", "seconds", "parameters", "trained_parameters")}
    write_json(run.folder / SCORES, {**scores, **flat, **facts})
    run.say(results["verdict"])
    key = config.task.best
    if scores["test"]:
        run.say(f"test, scored once: {', '.join(f'{k} {v:.4f}' for k, v in scores['test'].items() if k != 'examples')}")
    run.say(
        f"bundle: {run.folder / 'bundle'}    report: {run.folder / 'report.html'}    ({key} chose step {results['best_step']})"
    )
    return Result(run.folder, run.ranks.word(scores))
