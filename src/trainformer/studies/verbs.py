"""The verbs of the command line that run over runs. What a verb needs is imported inside it, so that --help answers at once."""

from pathlib import Path
from typing import Annotated, Any

import typer

Text = Annotated[str | None, typer.Option(help="column of the text")]
TextB = Annotated[str | None, typer.Option("--text-b", help="column of the second text of a pair")]
Label = Annotated[str | None, typer.Option(help="column of the label or number")]


def compare(
    runs: Annotated[list[Path], typer.Argument(help="folders of runs or bundles; the first is what the others are held against")],
    data: Annotated[str, typer.Option(help="labelled test rows")],
    text: Text = None,
    text_b: TextB = None,
    label: Label = None,
    into: Annotated[Path | None, typer.Option("--json", help="file for all numbers; it must not exist")] = None,
) -> None:
    """Compare runs on the same test rows: paired bootstrap, McNemar's test, cost, size, speed."""
    from trainformer.core.config import DataSettings
    from trainformer.core.errors import UserError
    from trainformer.core.files import write_json
    from trainformer.studies.compare import compare as compared
    from trainformer.studies.compare import render

    if into is not None and into.exists():
        raise UserError("it exists; nothing is written over.", where=f"--json {into}", fix="Choose another name.")
    result = compared(runs, data, DataSettings(text=text, text_b=text_b, label=label))
    if into is not None:
        write_json(into, result)
    print(render(result))


def search(
    out: Annotated[Path, typer.Option(help="folder of the study; it must not exist")],
    config: Annotated[str | None, typer.Argument(help="YAML file of settings", metavar="[CONFIG.yaml]")] = None,
    data: Annotated[str | None, typer.Option(help="training rows")] = None,
    validation: Annotated[str | None, typer.Option(help="validation rows, which choose the trial")] = None,
    test: Annotated[str | None, typer.Option(help="test rows, scored once, for the winner")] = None,
    model: Annotated[str | None, typer.Option(help="folder or hub name of an encoder")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
    minutes: Annotated[float | None, typer.Option(help="minutes in all")] = None,
    trials: Annotated[int | None, typer.Option(help="trials in all")] = None,
    storage: Annotated[str | None, typer.Option(help="Optuna storage that several machines share")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the search in --out")] = False,
) -> None:
    """Search for the best settings in a space; ship the best on validation, with a report of all trials."""
    words = {"model": model, "set": sets}
    files = {"train": data, "validation": validation, "test": test}
    limits = {"minutes": minutes, "trials": trials, "storage": storage}
    _search(config, (files, words), out, limits, resume, auto=False)


def is_study(folder: Path) -> bool:
    """Whether a search has begun in the folder."""
    from trainformer.studies.asked import FILE

    return (folder / FILE).is_file()


def automatic(
    config: str | None, files: dict[str, str | None], words: dict[str, Any], out: Path, minutes: float | None, resume: bool
) -> None:
    """`trainformer train --auto MINUTES`: a search in a good space, whose trial 0 is the run that there would be without it."""
    from trainformer.core.errors import UserError

    if words.pop("strict"):
        raise UserError("--strict and --auto do not go together.", where="train", fix="Run `trainformer check --strict` first.")
    _search(config, (files, words), out, {"minutes": minutes}, resume, auto=True)


def _search(
    config: str | None, given: tuple[Any, dict[str, Any]], out: Path, limits: dict[str, Any], resume: bool, auto: bool
) -> None:
    """Begins or goes on with a search, and prints its table."""
    from rich.console import Console

    from trainformer.studies import asked as asking
    from trainformer.studies.search import search as run
    from trainformer.studies.ship import render

    files = {name: file for name, file in given[0].items() if file is not None}
    words = given[1]
    told = config is not None or "train" in files
    asking.refuse_existing(out, resume, told)
    begun = is_study(out)
    if begun:
        limits = asking.limits(out, limits)
    asked = asking.ask(config, files, words, limits, auto) if told else None
    if begun or asked is None:
        asked = asking.go_on(out, asked, limits)
    console = Console(stderr=True, soft_wrap=True)
    print(render(run(asked, out, lambda line: console.print(line, highlight=False, markup=False))))
