"""Writes docs/settings.md, docs/methods.md and docs/reference/schema.json from the code, so that they cannot say anything else.

python docs/make_reference.py [--check]       # --check: write nothing, exit code 1 if one is stale
"""

import inspect
import json
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from trainformer.core import registry
from trainformer.core.component import Component
from trainformer.core.config import Config
from trainformer.core.roles import Backbone, Callback, Method, Task
from trainformer.serve.settings import ServeSettings
from trainformer.studies import settings as studies

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "methods_table.py"
"""Tells what was measured of methods."""
HEAD = """# Settings

Written from the code by `make docs`; do not edit it. Each setting is `--set section.key=value` on the command line, and the same
words in YAML:

```yaml
task: multi_label              # or {name: multi_label, separator: ";"}
data: {train: tags.jsonl}
method: {llrd: {decay: 0.9}}   # --set method.llrd.decay=0.9
train: {epochs: 3}             # --set train.epochs=3
```

A value is JSON or YAML: `3`, `1e-4`, `true`, `[a, b]`. *None* as a default means that the run chooses, and says so.
An unknown name or a value out of range ends the run before it begins.

[reference/schema.json](reference/schema.json) is the JSON Schema, as `trainformer schema` prints it. A YAML file with the line
`# yaml-language-server: $schema=...` at its top is completed and checked by editors.
"""
METHODS = """# Methods

Written by `make docs` from the code and from `benchmarks/methods.jsonl`; do not edit it. A method is a change to training.
Several stand beside each other, the last outermost; naming any replaces the default recipe's two, `llrd` and `ema`
([recipe.md](recipe.md)).

Where to begin:

- Small files, many models on one base: `lora`; `adapter` to combine trained ones; `prefix` to change no matrix.
- Short of time or memory: `freeze`.
- The best score from thousands of rows: the default recipe; on `en_sentiment` what trains less was 1.5 to 3.8 points below it.
- Few rows: the default recipe, or `freeze`; `rdrop`, `fgm` and `freelb` made it worse where they were measured, with 200 rows.
- A better score from the same run: `ema` (it is there), `swa` or `soup`.
- A small model beside a better, slower one: `distil`. A group that must not be left behind: `group_dro`.

What trains few weights has a rate of its own, a multiple of the recipe's, which is said before training; `train.lr` overrides it.
With `lora`, `adalora`, `adapter` and `prefix` the head learns at a tenth of the run's rate (a fifth with `prefix`), which is the
recipe's unless `train.lr` says otherwise: it starts fitted, and at theirs it leaves that start.
Label smoothing, focal loss and class weights are settings of the tasks ([settings.md](settings.md)). What was measured stands
[at the end](#measured).
"""
MEASURED = """## Measured

    python benchmarks/methods.py --shared DIR

A way is what stands after `trainformer train` beside data and model: `full` is the default recipe; `lora`, `adalora`,
`adapter`, `prefix` and `dora` stand beside its `ema`, the others that train few weights alone; `no_ema` is `llrd` alone, `swa`
and `soup` stand beside `llrd`, and `rdrop`, `fgm` and `freelb` beside both. Test rows are scored once;
there are about 1,000, so a score has a standard error of one point or so. Shipped is the adapter's
file or, where a bundle has none, the whole model.
"""
PART = re.compile(r"^(When|Cost|With|See|Command): ", re.MULTILINE)
"""How the parts of a method's docstring begin."""
SETTINGS = "<!-- settings -->", "<!-- /settings -->"
WORDS = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}
ROLES: list[tuple[str, str, Any, str]] = [
    (
        "Tasks",
        "task",
        Task,
        "`--task NAME`, or `task.name`. Settings: `--set task.key=value`; training fills some of them.",
    ),
    ("Models", "model", Backbone, "`--model NAME|DIR` is `model.name`. Settings: `--set model.key=value`."),
    ("Methods", "method", Method, "`--method NAME`, several times if you like. Settings: `--set method.NAME.key=value`."),
    ("Callbacks", "callbacks", Callback, "`--callback NAME` adds one. Settings: `--set callbacks.NAME.key=value`."),
]


def page() -> str:
    """The page of settings."""
    parts = [HEAD, "## Sections\n", *(f"- `{name}`: {field.description}" for name, field in Config.model_fields.items()), ""]
    for section in ("data", "train", "decision"):
        kind = Config.model_fields[section].annotation
        assert isinstance(kind, type) and issubclass(kind, Component)
        parts += [f"## {section}\n", f"{kind.summary()}\n", table(kind.model_fields.items(), section)]
    parts += ["## study\n", f"{studies.StudySettings.summary()} With `search`, the space: see [search.md](search.md).\n"]
    parts += [table(studies.StudySettings.model_fields.items(), "study")]
    for title, section, role, words in ROLES:
        parts += [f"## {title}\n", f"{words}\n"]
        for name, found in registry.classes(role):
            parts += [f'<a id="{section}-{name}"></a>\n', f"### {name}\n", f"{found.summary()}\n"]
            prefix = f"{section}.{name}" if section in ("method", "callbacks") else section
            parts += [table(found.model_fields.items(), prefix)] if found.model_fields else ["It has no settings.\n"]
    return "\n".join(parts)


def methods_page() -> str:
    """The page of methods: a section each, and what was measured."""
    results = runpy.run_path(str(RESULTS))
    found, _ = results["read"]()
    role: Any = Method
    every = dict(registry.classes(role))
    parts = [METHODS, *(section(name, every, results["measured"](found, name)) for name in every), MEASURED, results["page"]()]
    return "\n".join(parts)


def section(name: str, every: dict[str, Any], measured: str) -> str:
    """What a method is, when to use it, its cost, its company, its settings, what was measured, its command."""
    found = every[name]
    told = said(found)
    paper = (sys.modules[found.__module__].__doc__ or "").splitlines()[0]
    theirs = {n: other.clashes[name] for n, other in every.items() if name in other.clashes}
    refused = {n: why.rstrip(".") for n, why in (theirs | dict(found.clashes)).items()}
    settings = ", ".join(f"`{setting}`" for setting in found.model_fields)
    lines = [
        f"- **When**: {told['When']}",
        f"- **Cost**: {told['Cost']}",
        f"- **Goes well with**: {told['With']}",
        *([f"- **Refuses**: {'; '.join(f'`{n}` ({why})' for n, why in sorted(refused.items()))}."] if refused else []),
        f"- **Settings**: {settings} ([what they mean](settings.md#method-{name}))" if settings else "- **Settings**: none",
        f"- **Measured**: {measured}",
    ]
    head = f"## {name}\n\n{paper}\n\n{found.summary()} {told['What']}\n"
    return "\n".join([head, *lines, "", "```sh", command(name, found, told), "```", ""])


def said(found: Any) -> dict[str, str]:
    """The parts of a method's docstring, each on one line: What, When, Cost, With, See and, for some, Command."""
    _, _, rest = inspect.cleandoc(found.__doc__).partition("\n\n")
    what, *parts = PART.split(rest)
    pairs = {"What": what, **dict(zip(parts[::2], parts[1::2], strict=True))}
    return {key: " ".join(text.split()) for key, text in pairs.items()}


def command(name: str, found: Any, told: dict[str, str]) -> str:
    """A method that changes the model stands alone, any other beside the recipe's."""
    company = [n for n in ("llrd", name, "ema") if n == name or n not in found.clashes]
    alone = found.extend is not Method.extend
    chosen = [name] if alone else list(dict.fromkeys(company))
    words = told.get("Command") or " ".join(f"--method {n}" for n in chosen)
    steady = " --set method.ema.decay=0.99" if "--method ema" in words else ""
    return f"trainformer train --data reviews.csv {words}{steady} --out run-{name}"


def table(fields: Any, prefix: str = "") -> str:
    """The settings as rows: name, default, values, meaning."""
    rows = [f"| `{prefix}{'.' if prefix else ''}{name}` | {default(f)} | {values(f)} | {f.description} |" for name, f in fields]
    return "\n".join(["| setting | default | values | meaning |", "|---|---|---|---|", *rows, ""])


def default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "*none*"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def values(field: FieldInfo) -> str:
    """What may be given, in plain words: the kind, its choices, its range."""
    return ", ".join([plain(field.annotation), *limits(field.metadata)])


def plain(kind: Any) -> str:
    """A type in plain words."""
    if kind in WORDS:
        return WORDS[kind]
    inner = [a for a in get_args(kind) if a is not type(None)]
    origin = get_origin(kind)
    if origin is Annotated:
        return plain(inner[0])
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in inner)
    if origin in (Union, UnionType):
        return " or ".join(map(plain, inner))
    if origin is dict:
        return f"mapping of {plain(inner[0])} to {plain(inner[1])}"
    if origin in (list, tuple):
        return f"list of {plain(inner[0])}s"
    raise TypeError(f"docs/make_reference.py has no words for {kind}")


def limits(metadata: list[Any]) -> Iterator[str]:
    """The bounds of a number."""
    for each in metadata:
        for attribute, words in (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than")):
            bound = getattr(each, attribute, None)
            if bound is not None:
                yield f"{words} {bound}"


def pages() -> dict[Path, str]:
    """Every generated file with its content."""
    schema = json.dumps(studies.schema(), indent=1, ensure_ascii=False) + "\n"
    serving = DOCS / "serving.md"
    served = {serving: with_settings(serving.read_text(encoding="utf-8"))} if serving.is_file() else {}
    return {
        DOCS / "settings.md": page(),
        DOCS / "methods.md": methods_page(),
        DOCS / "reference" / "schema.json": schema,
        **served,
    }


def with_settings(text: str) -> str:
    """The page of the service with the table of its settings."""
    before, _, rest = text.partition(SETTINGS[0])
    return f"{before}{SETTINGS[0]}\n{table(ServeSettings.model_fields.items())}{SETTINGS[1]}{rest.partition(SETTINGS[1])[2]}"


def main() -> None:
    stale = [p for p, text in pages().items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        sys.exit(f"stale: {', '.join(p.name for p in stale)}. Run: make docs" if stale else 0)
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    print(f"{len(stale)} of {len(pages())} files changed")


if __name__ == "__main__":
    main()
