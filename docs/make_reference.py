"""Writes docs/settings.md and docs/reference/schema.json from the code, so that they cannot say anything else.

python docs/make_reference.py [--check]       # --check: write nothing, exit code 1 if one is stale
"""

import json
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
from trainformer.studies import settings as studies

DOCS = Path(__file__).resolve().parent
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
    return {DOCS / "settings.md": page(), DOCS / "reference" / "schema.json": schema}


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
