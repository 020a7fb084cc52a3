"""The verbs of the command line that run over runs. What a verb needs is imported inside it, so that --help answers at once."""

from pathlib import Path
from typing import Annotated

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
