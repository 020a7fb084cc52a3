"""The command `trainformer`: words to verbs. What a verb needs is imported inside it, so that --help answers at once."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from trainformer.compress import verbs as smaller
from trainformer.core.errors import Interrupted, UserError, nearest, of_training
from trainformer.data.verbs import tokenizer
from trainformer.models import verbs as model_verbs
from trainformer.serve import verbs as serving
from trainformer.studies import verbs

if TYPE_CHECKING:
    from trainformer.run import Run

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

INTERRUPTED = 130
"""The exit code after Ctrl-C."""
UsageError: Any = typer.BadParameter.__base__
"""A word that no option or verb has; typer gives it no public name."""

Data = Annotated[str | None, typer.Option("--data", help="training rows: .jsonl .csv .tsv .parquet, or a hub data set")]
Validation = Annotated[str | None, typer.Option(help="validation rows; none: a share of the training rows")]
Test = Annotated[str | None, typer.Option(help="test rows, scored once at the end; none: a share of the training rows")]
TaskName = Annotated[str | None, typer.Option("--task", help="see `trainformer list tasks`")]
Text = Annotated[str | None, typer.Option(help="column of the text")]
TextB = Annotated[str | None, typer.Option("--text-b", "--target", help="column of the second text of a pair")]
Label = Annotated[str | None, typer.Option(help="column of the label or number")]
ModelName = Annotated[
    str | None, typer.Option("--model", help="folder or hub name of an encoder, or a new model: transformer-tiny")
]
TokenizerName = Annotated[str | None, typer.Option("--tokenizer", help="folder of the tokenizer, for a model from nothing")]
Methods = Annotated[list[str] | None, typer.Option("--method", help="see `trainformer list methods`; may stand several times")]
Callbacks = Annotated[list[str] | None, typer.Option("--callback", help="see `trainformer list callbacks`")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, any setting of `trainformer schema`")]
ConfigFile = Annotated[str | None, typer.Argument(help="YAML file of settings", metavar="[CONFIG.yaml]")]
Strict = Annotated[bool, typer.Option("--strict", help="warnings of the check are errors")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
AdapterName = Annotated[str | None, typer.Option("--adapter", help="which of a bundle's adapters answers")]
BaseName = Annotated[
    str | None, typer.Option("--base", help="folder or hub name of the model that was trained on; none: as recorded")
]
BundleDir = Annotated[Path, typer.Argument(help="folder of a bundle", metavar="BUNDLE")]


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="folder of the run; it must not exist")],
    config: ConfigFile = None,
    data: Data = None,
    validation: Validation = None,
    test: Test = None,
    task: TaskName = None,
    text: Text = None,
    text_b: TextB = None,
    label: Label = None,
    model: ModelName = None,
    tokenizer: TokenizerName = None,
    method: Methods = None,
    callback: Callbacks = None,
    sets: Sets = None,
    strict: Strict = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint of --out")] = False,
    auto: Annotated[float | None, typer.Option(help="minutes to search for better settings than the default recipe's")] = None,
) -> None:
    """Train a model: check the data, fine-tune, choose the best epoch on validation, score test once, write a bundle."""
    from trainformer import run as running
    from trainformer.api import CONFIG, refuse_existing

    words = {"task": task, "text": text, "text_b": text_b, "label": label, "model": model, "tokenizer": tokenizer,
             "method": method, "callback": callback}  # fmt: skip
    files = {"train": data, "validation": validation, "test": test}
    if auto is not None or (resume and verbs.is_study(out)):
        return verbs.automatic(config, files, words | {"set": sets, "strict": strict}, out, auto, resume)
    refuse_existing(out, resume, told=not (config is None and data is None))
    if resume and config is None and data is None:
        config = str(out / CONFIG)
    run = _run(config, files, words | {"set": sets}, out)
    run.strict = strict
    running.train(run, resume)


@app.command()
def check(
    config: ConfigFile = None,
    data: Data = None,
    validation: Validation = None,
    test: Test = None,
    task: TaskName = None,
    text: Text = None,
    text_b: TextB = None,
    label: Label = None,
    model: ModelName = None,
    tokenizer: TokenizerName = None,
    sets: Sets = None,
    strict: Strict = False,
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option(help="write the report as a page")] = None,
) -> None:
    """Look at the data before training: duplicates, leaks, labels, what is cut. Exit code 2 if it cannot be trained on."""
    from trainformer import run as running
    from trainformer.core.files import write_text
    from trainformer.trust import report

    words = {"task": task, "text": text, "text_b": text_b, "label": label, "model": model, "tokenizer": tokenizer}
    run = _run(config, {"train": data, "validation": validation, "test": test}, words | {"set": sets}, Path("."))
    found = running.check(run)
    if as_json:
        print(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        run.show(found)
    if html is not None:
        write_text(html, report.check_page(found.to_dict()))
    if found.errors or (strict and found.warnings):
        raise typer.Exit(2)


@app.command()
def predict(
    bundle: BundleDir,
    texts: Annotated[list[str] | None, typer.Argument(help="texts; for a pair task two by two")] = None,
    data: Annotated[str | None, typer.Option(help="rows to answer")] = None,
    out: Annotated[Path | None, typer.Option(help="file of answers, one JSON object a line; it must not exist")] = None,
    text: Text = None,
    text_b: TextB = None,
    logits: Annotated[bool, typer.Option("--logits", help="add the raw outputs")] = False,
    adapter: AdapterName = None,
) -> None:
    """Answer texts: one JSON object a line, in their order, with label, score, scores and cut_tokens."""
    from trainformer.core.config import DataSettings
    from trainformer.core.files import refuse_existing, write_lines
    from trainformer.runtime.opening import opened as open_bundle

    if bool(texts) == (data is not None):
        raise UserError("give texts or --data FILE, one of the two.", where="predict")
    if out is not None:
        refuse_existing(out)
    opened = open_bundle(bundle, adapter)
    if data is not None:
        answers = opened.predict_file(data, DataSettings(text=text, text_b=text_b), logits=logits)
    else:
        given: list[Any] = list(texts or [])
        if opened.task.pair and not opened.task.writes:
            if len(given) % 2:
                raise UserError(
                    f"this bundle reads pairs; {len(given)} texts are given.", where="predict", fix="Give two by two."
                )
            given = list(zip(given[::2], given[1::2], strict=True))
        answers = iter(opened.predict(given, logits=logits))
    if out is None:
        for answer in answers:
            print(json.dumps(answer, ensure_ascii=False))
    else:
        print(f"{write_lines(out, answers)} answers: {out}", file=sys.stderr)


@app.command()
def gather(
    bundles: Annotated[
        list[str], typer.Argument(help="adapters as NAME=BUNDLE, the first answers by default", metavar="NAME=BUNDLE")
    ],
    out: Annotated[Path, typer.Option(help="folder of the new bundle; it must not exist")],
    base: BaseName = None,
) -> None:
    """Put the adapters of several bundles on one base into one bundle; `--adapter NAME` then chooses."""
    from trainformer.bundle import adapters

    named = {name: Path(path) for name, equals, path in (b.partition("=") for b in bundles) if equals and name.isidentifier()}
    if len(named) != len(bundles):
        raise UserError(
            "each is written NAME=BUNDLE, and no name twice.", where="gather", fix="As: en=run1/bundle fr=run2/bundle"
        )
    adapters.gather(named, base, out)
    print(f"bundle of {len(named)} adapters: {out}", file=sys.stderr)


READING = (model_verbs.evaluate, model_verbs.translate, model_verbs.generate, model_verbs.inspect)
SERVING = (serving.serve, serving.key, serving.reload, serving.rollback)
for verb in (verbs.search, verbs.compare, smaller.compress, smaller.export, *READING, *SERVING):
    app.command()(verb)
app.add_typer(tokenizer, name="tokenizer")


@app.command()
def verify_resume(
    config: Annotated[Path, typer.Argument(help="YAML file of settings", metavar="CONFIG.yaml")],
    kills: Annotated[int, typer.Option(min=1, help="how often runs are killed")] = 20,
    seed: Annotated[int, typer.Option(help="of the instants at which they are killed")] = 0,
    out: Annotated[Path | None, typer.Option(help="folder to keep the runs in; it must not exist")] = None,
) -> None:
    """Prove on your own run that killing and resuming it changes no bit. Exit code 1 if anything differs."""
    import tempfile

    from trainformer.api import refuse_existing
    from trainformer.studies.verify import verify

    if out is not None:
        refuse_existing(out, resume=False, told=True)
        out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        verdict = verify(config, kills, seed, out or Path(place), lambda line: print(line, file=sys.stderr))
    for line in [*verdict.wrong, verdict]:
        print(line)
    raise typer.Exit(1 if verdict.wrong else 0)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="tasks, methods, models or callbacks")],
) -> None:
    """What there is: tasks, methods, models, callbacks, with their settings."""
    from trainformer.core import registry
    from trainformer.core.roles import Backbone, Callback, Method, Task
    from trainformer.models.families import HEADS

    roles: dict[str, Any] = {"tasks": Task, "methods": Method, "models": Backbone, "callbacks": Callback}
    if what not in roles:
        raise UserError(f"nothing is called '{what}'.", where="list", fix=nearest(what, roles))
    for name, found in registry.classes(roles[what]):
        print(f"{name:<20} {found.summary()}")
        for setting, field in found.model_fields.items():
            default = field.get_default(call_default_factory=True)
            print(f"    {setting:<18} {field.description}  [{json.dumps(default, ensure_ascii=False, default=str)}]")
    if what == "models":
        print("\nHeads map onto the transformers library's for: " + ", ".join(sorted(HEADS)) + ".")


@app.command()
def schema() -> None:
    """JSON Schema of the settings: point a YAML editor at it to complete and check."""
    from trainformer.studies import settings

    print(json.dumps(settings.schema(), indent=1, ensure_ascii=False))


def _run(config: str | None, files: dict[str, str | None], words: dict[str, Any], out: Path) -> "Run":
    """A run from the words of the command line."""
    from rich.console import Console

    from trainformer.api import configured
    from trainformer.data.check_text import render
    from trainformer.run import Run

    console = Console(stderr=True, soft_wrap=True)
    checked = configured(config, {k: v for k, v in files.items() if v is not None}, words)
    return Run(checked, out, lambda line: console.print(line, highlight=False, markup=False), show=lambda r: render(r, console))


def _version(value: bool) -> None:
    if value:
        from trainformer import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it and end")] = False,
) -> None:
    """Trains Transformers: from a file of texts to a model that can be trusted."""


def main() -> None:
    """The entry point: a user's mistake is one message and exit code 2, a signal 130 or 143."""
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="trainformer", standalone_mode=False)
    except UserError as error:
        _end(f"error: {error}", 2)
    except UsageError as error:
        verb = error.ctx.command_path if error.ctx else "trainformer"
        _end(f"error: {error.format_message()} See: {verb} --help", 2)
    except OSError as error:
        from trainformer.core.files import disk_error

        told = disk_error(error, Path(error.filename or "the disk"))
        if told is error:
            raise
        _end(f"error: {told}", 2)
    except ModuleNotFoundError as error:
        missing = of_training(error)
        if missing is None:
            raise
        _end(f"error: {missing}", 2)
    except Interrupted as error:
        _end(f"{error} Go on with: trainformer train --out {shlex.quote(str(error.folder))} --resume", error.code)
    _end("stopped", code) if code == INTERRUPTED else sys.exit(code or 0)


def _speaks() -> bool:
    """Whether it is this process, of several, that says why they end."""
    from trainformer.engine.exchange import speaks

    return speaks()


def _end(message: str, code: int) -> NoReturn:
    if os.environ.get("WORLD_SIZE", "1") == "1" or _speaks():
        print(message, file=sys.stderr)
    sys.exit(code)
