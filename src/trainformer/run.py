"""Configuration -> bundle, on one page: read, check, build, baselines, train, decide, test once, write."""

import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from trainformer.bundle import Bundle
from trainformer.bundle.outputs import scored
from trainformer.bundle.writing import Contents, write
from trainformer.core import config as settings
from trainformer.core.config import Config
from trainformer.core.errors import UserError
from trainformer.core.files import require_room, write_json, write_text
from trainformer.core.roles import Backbone, Metric, Model, Task
from trainformer.data import prepare
from trainformer.data.check import CheckReport, Part
from trainformer.data.check import check as look
from trainformer.data.plan import Plan, Rows
from trainformer.data.prepare import Prepared
from trainformer.data.tokens import HubTokens
from trainformer.engine import recipe
from trainformer.engine.engine import Engine, Job, Progress
from trainformer.engine.forecast import forecast
from trainformer.engine.probe import fit_probe
from trainformer.nn.few_rows import keep_rows, whole_again
from trainformer.trust import calibrate, card, report
from trainformer.trust.baselines import Baselines
from trainformer.trust.findings import against_baselines, curve, worst

Say = Callable[[str], None]


@dataclass
class Run:
    """A run in the making."""

    config: Config
    folder: Path
    say: Say
    frames: dict[str, Any] = field(default_factory=dict)
    strict: bool = False
    show: Callable[[CheckReport], None] = lambda _: None
    """Shows the pre-flight report."""


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
    began = time.perf_counter()
    config, tokens, limit, prepared = _data(run, labelled=True)
    engine, backbone, config = _engine(run, config, prepared)
    checked = _check(prepared, config, limit, forecast(engine))
    run.show(checked)
    _refuse(checked, run.strict)
    require_room(run.folder, 24 * sum(p.numel() for p in engine.model.parameters()))
    run.folder.mkdir(parents=True, exist_ok=True)
    if resume and (run.folder / "config.yaml").is_file():
        _refuse_change(run.folder / "config.yaml", config)
    write_text(run.folder / "config.yaml", settings.dump_yaml(config))
    begun = resume and any((run.folder / "checkpoints").glob("step-*"))
    cheap = Baselines(config.task, prepared.slices["train"], config.train.seed) if config.train.baselines else None
    baselines = _baselines(run, cheap, prepared, engine, begun)
    for line in engine.resume() if resume else []:
        run.say(line)
    progress = engine.fit()
    model = engine.ship()
    whole_again(model)
    output, target = engine.outputs(prepared.slices["validation"].rows)
    decision, notes = calibrate.fit(config.task, output, target, config.decision)
    validation = scored(config.task, output, target, decision)
    test = engine.evaluate(prepared.slices["test"].rows, decision) if "test" in prepared.slices else None
    results = {
        **_facts(config, checked, prepared, engine, progress, model),
        "baselines": _on_test(baselines, cheap, prepared),
        "validation": _scores(validation),
        "test": None if test is None else _scores(test),
        "decision": asdict(decision),
        "decision_notes": notes,
        "errors": worst(engine.task, prepared.slices["validation"], engine.task.answer(output, decision)),
        "max_tokens": limit,
        "seconds": round(time.perf_counter() - began, 1),
    }
    results["verdict"] = against_baselines(results, engine.task.best, engine.task.higher_is_better)
    contents = Contents(engine.task, backbone, model, tokens, decision, prepared.slices["train"].columns, limit, _kept(results))
    return _write(run, contents, results, config)


def check(run: Run) -> CheckReport:
    """The pre-flight report alone: nothing is trained and nothing is written. Rows in error are listed, not raised."""
    config, _, limit, prepared = _data(run, labelled=False)
    predicted = None
    if not _broken(prepared):
        try:
            prepare.learn(prepared, config.task)
        except UserError:  # the report has this as a finding, with places
            return _check(prepared, config, limit, None)
        predicted = forecast(_engine(run, config, prepared)[0])
    return _check(prepared, config, limit, predicted)


def _data(run: Run, labelled: bool) -> tuple[Config, HubTokens, int, Prepared]:
    """The rows, read and tokenised; with labels they are ready to train on."""
    backbone, said = run.config.model.resolve()
    config = run.config.model_copy(update={"model": backbone})
    tokens = HubTokens.load(str(backbone.settings()["name"]))
    most = backbone.limit()
    limit = config.data.max_tokens or min(512, most)
    if limit > most:
        raise UserError(f"data.max_tokens {limit} is more than the model reads.", where="data", fix=f"At most {most}.")
    prepared = prepare.read(config, run.frames, labelled)
    prepared.said[:0] = said
    for line in prepared.said:
        run.say(line)
    if labelled:
        prepare.learn(prepared, config.task)
        calibrate.check_costs(getattr(config.task, "rule", None), config.decision)
    prepare.encode(prepared, config, tokens, limit, labelled)
    settled = vars(prepared.slices["train"].columns) | {"max_tokens": limit}
    config = config.model_copy(update={"data": config.data.model_copy(update=settled)})
    return config, tokens, limit, prepared


def _engine(run: Run, config: Config, prepared: Prepared) -> tuple[Engine, Backbone, Config]:
    """Model, plan and loop, with the recipe's open settings filled in and said."""
    torch.manual_seed(config.train.seed)
    model, backbone, said = config.model.load(config.task)
    for method in config.method.values():
        method.extend(model)
    if type(config.task).vary is Task.vary:  # it may bring in any token
        keep_rows(model, model.body.embed(), torch.cat([s.rows.cache.tokens for s in prepared.slices.values()]))
    rows = prepared.slices["train"].rows
    scaled = Rows(rows.cache, rows.index, _weight_scale(rows))
    share = sum(p.numel() for p in model.parameters() if p.requires_grad) / sum(p.numel() for p in model.parameters())
    chosen, words = recipe.settle(config.train, len(rows), model.body.width, share)
    prepared.said += [*said, *words]
    for line in [*said, *words]:
        run.say(line)
    config = config.model_copy(update={"train": chosen, "model": backbone})
    padded = not getattr(model.body, "packed", True)
    plan = Plan(scaled, chosen.step_rows, chosen.micro_tokens, chosen.epochs or 1.0, chosen.seed, padded, vary=config.task.vary)
    job = Job(model, config.task, plan, prepared.slices["validation"].rows, chosen, run.folder, config.method,
              config.callbacks, config.dump(), score_start=chosen.probe)  # fmt: skip
    engine = Engine(job)
    prepared.said += engine.said
    for line in engine.said:
        run.say(line)
    if config.train.native == "auto":  # a run that goes on shall go on with the same
        config = config.model_copy(update={"train": chosen.model_copy(update={"native": "on" if engine.native else "off"})})
    return engine, backbone, config


def _weight_scale(rows: Rows) -> float:
    """What makes the mean weight of the training rows 1."""
    mean = float(rows.cache.weights[rows.index].mean())
    if mean <= 0:
        raise UserError("all row weights are 0.", where="data.weight", fix="Some rows must count.")
    return 1.0 / mean


def _broken(prepared: Prepared) -> bool:
    return any(f.severity == "error" for s in prepared.slices.values() for f in s.survey.findings)


def _check(prepared: Prepared, config: Config, limit: int, predicted: dict[str, Any] | None) -> CheckReport:
    parts = [Part(s.name, s.source.name, s.survey, s.chosen, s.cache) for s in prepared.slices.values()]
    return look(parts, config.task, limit, predicted)


def _refuse_change(path: Path, config: Config) -> None:
    """Raises UserError if the run was begun with other settings than those it shall go on with."""
    before, now = _flat(settings.read_yaml(path)), _flat(config.dump())
    for name in [*before, *(n for n in now if n not in before)]:
        if before.get(name) != now.get(name) and not name.startswith(("callbacks.", "data.cache", "train.device")):
            what = f"{name} was {before.get(name)!r:.60} when the run began, and is {now.get(name)!r:.60} now."
            raise UserError(what, where=f"--out {path.parent}", fix="Go on with --resume and no settings, or start another run.")


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Settings by their full names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return found


def _refuse(report: CheckReport, strict: bool) -> None:
    """Raises UserError for what cannot be trained on; with `strict` for warnings too."""
    grave = report.errors or (report.warnings if strict else [])
    if grave:
        more = f" ({len(grave) - 1} more findings above)" if len(grave) > 1 else ""
        first = grave[0]
        raise UserError(f"{first.message}{more}", where=first.where[0] if first.where else "check", fix=first.fix)


def _baselines(run: Run, cheap: Baselines | None, prepared: Prepared, engine: Engine, begun: bool) -> list[dict[str, Any]]:
    """Majority class, TF-IDF and linear probe on validation; a run that goes on reads what it found before."""
    path = run.folder / "baselines.json"
    if begun and path.is_file():
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return found
    held = prepared.slices["validation"]
    scores = cheap.scores(held) if cheap else {}
    if engine.settings.probe:
        scores["linear probe"] = fit_probe(engine, prepared.slices["train"].rows, held.rows)
        engine.prepare()
    key = engine.task.best
    for name, values in scores.items():
        run.say(f"baseline {name}: {key} {values[key]:.4f} on validation")
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
    every = sum(p.numel() for p in model.parameters())
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
        "parameters": every,
        "trained_parameters": sum(p.numel() for p in engine.trained),
    }


def _scores(metric: Metric) -> dict[str, Any]:
    return {"scores": metric.value(), "detail": metric.detail()}


def _kept(results: dict[str, Any]) -> dict[str, Any]:
    """What of the results the bundle itself remembers."""
    scores = {split: results[split]["scores"] for split in ("validation", "test") if results[split]}
    return {k: results[k] for k in ("created", "versions", "fingerprint")} | {"scores": scores}


def _write(run: Run, contents: Contents, results: dict[str, Any], config: Config) -> Result:
    """Bundle with card and report, and the scores beside it."""
    results["opens_in_transformers"] = contents.backbone.opens_in_library(contents.model)
    page = report.render(results)
    contents.pages.update({"README.md": card.render(results), "report.html": page})
    write(run.folder / "bundle", contents)
    write_text(run.folder / "report.html", page)
    scores = {"validation": results["validation"]["scores"], "test": (results["test"] or {}).get("scores")}
    flat = {f"test_{k}": v for k, v in (scores["test"] or {}).items()}
    write_json(run.folder / "scores.json", {**scores, **flat, "baselines": results["baselines"], "verdict": results["verdict"],
                                            "seconds": results["seconds"]})  # fmt: skip
    run.say(results["verdict"])
    key = config.task.best
    if scores["test"]:
        run.say(f"test, scored once: {', '.join(f'{k} {v:.4f}' for k, v in scores['test'].items() if k != 'examples')}")
    run.say(
        f"bundle: {run.folder / 'bundle'}    report: {run.folder / 'report.html'}    ({key} chose step {results['best_step']})"
    )
    return Result(run.folder, scores)
