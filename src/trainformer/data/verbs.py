"""The verbs `trainformer tokenizer ...`. What a verb needs is imported inside it, so that --help answers at once."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from trainformer.data.formats import Source

tokenizer = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
Data = Annotated[list[str], typer.Option("--data", help="rows: .jsonl .csv .tsv .parquet; may stand several times")]
Text = Annotated[list[str] | None, typer.Option("--text", help="column of texts; may stand several times; none: found")]
AsJson = Annotated[bool, typer.Option("--json", help="the report as JSON on standard output")]


@tokenizer.callback()
def _about() -> None:
    """Train a tokenizer from texts, or see how well one fits them."""


@tokenizer.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="folder of the tokenizer; it must not exist")],
    text: Text = None,
    kind: Annotated[str, typer.Option(help="unigram, bpe, byte_bpe or wordpiece")] = "unigram",
    size: Annotated[int, typer.Option(help="entries of the vocabulary, special tokens included")] = 8000,
    like: Annotated[
        str | None, typer.Option(help="whose special tokens: bert, roberta, gpt2, t5 or marian; none: the kind's usual")
    ] = None,
    lowercase: Annotated[bool, typer.Option("--lowercase", help="read all letters as small ones")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a tokenizer, one vocabulary for all columns, and report how it fits; the transformers library opens it."""
    from trainformer.core.files import refuse_existing, write_folder, write_json
    from trainformer.data import vocabulary
    from trainformer.data.tokens import write_tokenizer
    from trainformer.data.vocabulary_report import report

    refuse_existing(out)
    wanted = vocabulary.Wanted(kind, size, like, lowercase)
    style = wanted.style
    sources = _sources(data)
    columns = _columns(sources, text)
    backend, said = vocabulary.train(lambda: (t for column in columns for t in _texts(sources, column)), wanted)
    for line in said:
        print(line, file=sys.stderr)
    lines = report(backend, backend.token_to_id(style.roles["unk_token"]), {c: _texts(sources, c) for c in columns})

    def fill(beside: Path) -> None:
        write_tokenizer(backend, style.roles, style.typed, beside)
        files = {source.name: source.fingerprint for source in sources}
        write_json(beside / "report.json", {"settings": vars(wanted), "files": files, "fit": lines})

    write_folder(out, fill)
    _show(lines, as_json)
    print(f"tokenizer of {backend.get_vocab_size():,} entries: {out}", file=sys.stderr)


@tokenizer.command()
def check(
    folder: Annotated[str, typer.Argument(help="folder or hub name of a tokenizer or model", metavar="TOKENIZER")],
    data: Data,
    text: Text = None,
    as_json: AsJson = False,
) -> None:
    """How well a tokenizer fits texts: tokens a character, and what it does not know, by column and script."""
    from trainformer.data.tokens import HubTokens
    from trainformer.data.vocabulary_report import report

    sources = _sources(data)
    columns = _columns(sources, text)
    found = HubTokens.load(folder)
    _show(report(found.backend, found.unknown_id, {c: _texts(sources, c) for c in columns}), as_json)


def _sources(data: list[str]) -> list["Source"]:
    from trainformer.data.read import open_source

    return [open_source(name) for name in data]


def _columns(sources: list["Source"], named: list[str] | None) -> list[str]:
    """The columns to read, each in every file. Raises UserError for one that is missing, or named twice."""
    from trainformer.core.config import DataSettings
    from trainformer.core.errors import UserError, nearest
    from trainformer.data.columns import choose

    if not named:
        found, said = choose(sources[0], DataSettings(), pair=False, labelled=False)
        print(*said, sep="\n", file=sys.stderr)
        named = [found.text]
    for i, column in enumerate(named):
        if column in named[:i]:
            raise UserError(f"the column '{column}' is named twice.", where="--text")
        for source in sources:
            if column not in source.columns:
                raise UserError(f"no column '{column}' (--text).", where=source.name, fix=nearest(column, source.columns))
    return named


def _texts(sources: list["Source"], column: str) -> Iterator[str]:
    from trainformer.data.columns import text_of

    return (text_of(row, column) for source in sources for row in source)


def _show(lines: list[dict[str, Any]], as_json: bool) -> None:
    """The report as JSON, or as a table with shares in percent."""
    if as_json:
        print(json.dumps(lines, ensure_ascii=False))
        return
    names = ("texts", "characters", "tokens", "tokens/char", "unknown", "decoded")
    print(f"{'column':<16} {'script':<6} " + " ".join(f"{name:>11}" for name in names))
    for line in lines:
        counts = f"{line['texts']:>11} {line['characters']:>11} {line['tokens']:>11} {line['tokens_a_character']:>11.3f}"
        shares = f"{line['unknown_share']:>11.3%} {line['decoded_share']:>11.1%}"
        print(f"{line['column']:<16} {line['script']:<6} {counts} {shares}")
