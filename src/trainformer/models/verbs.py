"""The verbs of the command line that score models, write texts and look into models. What a verb needs is imported inside it."""

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

BundleDir = Annotated[Path, typer.Argument(help="folder of a bundle", metavar="BUNDLE")]
Out = Annotated[Path | None, typer.Option(help="file of answers, one JSON object a line; it must not exist")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
CHUNK_ROWS = 1024


def evaluate(
    bundle: BundleDir,
    data: Annotated[str, typer.Option(help="labelled rows")],
    text: Annotated[str | None, typer.Option(help="column of the text, or of the prompt")] = None,
    text_b: Annotated[str | None, typer.Option("--text-b", "--target", help="column of the second text of a pair")] = None,
    label: Annotated[
        str | None, typer.Option(help="column of the label or number; of choices the right one or its number")
    ] = None,
    choices: Annotated[str | None, typer.Option(help="column of lists of texts: which is likeliest after the prompt")] = None,
    as_json: AsJson = False,
    adapter: Annotated[str | None, typer.Option(help="which of a bundle's adapters answers")] = None,
) -> None:
    """Score a bundle on labelled rows, through its decision layer; with --choices a language model on multiple choice."""
    from trainformer.core.config import DataSettings
    from trainformer.runtime.opening import opened

    scores = opened(bundle, adapter).evaluate(data, DataSettings(text=text, text_b=text_b, label=label), choices)
    if as_json:
        print(json.dumps(scores))
    else:
        for name, value in scores.items():
            print(f"{name:>12}  {value:.4f}" if name != "examples" else f"{name:>12}  {value:.0f}")


def translate(
    bundle: BundleDir,
    texts: Annotated[list[str] | None, typer.Argument(help="texts to translate")] = None,
    data: Annotated[str | None, typer.Option(help="rows to translate")] = None,
    out: Out = None,
    text: Annotated[str | None, typer.Option(help="column of the source; none: as in training")] = None,
    beam: Annotated[int | None, typer.Option(help="texts that are followed at once; none: as the run was told")] = None,
    length_penalty: Annotated[float | None, typer.Option(help="power of a text's length in its score")] = None,
) -> None:
    """Write a text for each text: one JSON object a line, in their order; of rows all is kept and `translation` added."""
    from trainformer.bundle import Bundle
    from trainformer.core.errors import UserError
    from trainformer.core.files import refuse_existing, write_lines

    if bool(texts) == (data is not None):
        raise UserError("give texts or --data FILE, one of the two.", where="translate")
    if out is not None:
        refuse_existing(out)
    opened = Bundle.open(bundle)
    _refuse_other(opened, "encoder-decoder", "translate")
    how = _how(opened, {"beam": beam, "length_penalty": length_penalty})
    answers = _translated(opened, _rows(opened, texts, data, text), how)
    if out is None:
        for answer in answers:
            print(json.dumps(answer, ensure_ascii=False), flush=True)
    else:
        print(f"{write_lines(out, answers)} texts: {out}", file=sys.stderr)


def _refuse_other(opened: Any, form: str, verb: str) -> None:
    """Raises UserError for a bundle that is asked with another verb."""
    from trainformer.core.errors import UserError

    if opened.task.writes != form:
        other = {"decoder": "generate", "encoder-decoder": "translate"}.get(opened.task.writes, "predict")
        raise UserError(f"its task is {type(opened.task).key}.", where=verb, fix=f"Ask it with: trainformer {other}.")


def _rows(opened: Any, texts: list[str] | None, data: str | None, text: str | None) -> Iterator[tuple[dict[str, Any], str]]:
    """Each row as it stands, with its source."""
    from trainformer.core.config import DataSettings

    if texts:
        return (({"source": each}, each) for each in texts)
    found: Iterator[tuple[dict[str, Any], str]] = opened.rows(data, DataSettings(text=text))
    return found


def _translated(opened: Any, rows: Iterator[tuple[dict[str, Any], str]], how: Any) -> Iterator[dict[str, Any]]:
    first = 0
    while chunk := list(islice(rows, CHUNK_ROWS)):
        written = opened.author.write([source for _, source in chunk], how, first)
        first += len(chunk)
        for (row, _), found in zip(chunk, written, strict=True):
            cut = {"cut_tokens": found.cut_tokens} if found.cut_tokens else {}
            yield {**row, "translation": found.text, **cut}


def generate(
    bundle: BundleDir,
    prompts: Annotated[list[str], typer.Argument(help="what texts begin with")],
    max_tokens: Annotated[int | None, typer.Option(help="most tokens that are written")] = None,
    temperature: Annotated[float | None, typer.Option(help="draw tokens, scores divided by it; 0: the likeliest")] = None,
    top_k: Annotated[int | None, typer.Option(help="draw among so many of the likeliest")] = None,
    top_p: Annotated[float | None, typer.Option(help="draw among the likeliest that have this share together")] = None,
    min_p: Annotated[float | None, typer.Option(help="draw among those at least this share as likely as the likeliest")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="divides scores of tokens that are there already")] = None,
    no_repeat: Annotated[int | None, typer.Option(help="no run of so many tokens comes twice")] = None,
    beam: Annotated[int | None, typer.Option(help="texts that are followed at once")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="a word before which a text ends; may stand several times")] = None,
    seed: Annotated[int | None, typer.Option(help="all draws follow from it")] = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a text: it appears as it is written. Several, or --json: one JSON object a line, in their order."""
    from trainformer.bundle import Bundle

    opened = Bundle.open(bundle)
    _refuse_other(opened, "decoder", "generate")
    given = {"max_new_tokens": max_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
             "repetition_penalty": repetition_penalty, "no_repeat": no_repeat, "beam": beam, "stop": stop or None,
             "decoding_seed": seed}  # fmt: skip
    if temperature is None and any(n is not None for n in (top_k, top_p, min_p)):
        given["temperature"] = 1.0  # to name what is drawn from is to ask for a draw
    how = _how(opened, given)
    if len(prompts) == 1 and not as_json and how.beam == 1:
        print(prompts[0], end="", flush=True)
        for piece in opened.author.stream(prompts[0], how):
            print(piece, end="", flush=True)
        print()
        return
    for prompt, found in zip(prompts, opened.author.write(prompts, how), strict=True):
        line = {"prompt": prompt, "text": found.text, "score": found.score, "tokens": found.tokens, "ended": found.ended}
        print(json.dumps(line, ensure_ascii=False))


def _how(opened: Any, given: dict[str, Any]) -> Any:
    """How the bundle writes, with what is given laid over it. Raises UserError for values that cannot be."""
    from pydantic import ValidationError

    from trainformer.core.component import explain
    from trainformer.nn.decoding import Decoding

    task = opened.author.task
    settings = {name: getattr(task, name) for name in Decoding.model_fields}
    try:
        return Decoding(**settings | {name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise explain(error, "decoding", {"": list(Decoding.model_fields)}) from error


def inspect(
    model: Annotated[str, typer.Argument(help="folder of a bundle or a checkpoint, or the name of a new model")],
    tokens: Annotated[int, typer.Option(min=1, help="length of a text, which attention's cost depends on")] = 512,
    vocabulary: Annotated[int, typer.Option(min=1, help="tokens of the vocabulary, for a new model")] = 32_000,
    task: Annotated[str | None, typer.Option(help="for a new model: causal_lm, seq2seq, ...; none: as it was published")] = None,
    as_json: AsJson = False,
) -> None:
    """Parameters, operations a token and memory of a model, module by module."""
    from trainformer.models.inspection import inspected, render

    rows = inspected(model, tokens, vocabulary, task)
    if as_json:
        print(json.dumps([vars(row) for row in rows]))
    else:
        render(rows, tokens)
