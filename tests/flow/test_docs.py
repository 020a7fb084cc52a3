"""What the pages say is true: every command runs, every example is valid, every link leads somewhere, generated pages are fresh.

Commands run in order, page by page, on small made-up files of the names that the pages use, with a tiny model in the place of
the default one and one epoch. Blocks under `<!-- online -->` need the hub: their words are parsed and not run.
"""

import importlib
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import nbclient
import nbformat
import pytest
import torch
import typer
import yaml

from trainformer.cli import app
from trainformer.core import config
from trainformer.data.tokens import write_tokenizer
from trainformer.data.vocabulary import Wanted
from trainformer.data.vocabulary import train as learn_tokenizer
from trainformer.models import locate
from trainformer.serve import serving

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "README.zh.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
FAST = ("--set", "train.epochs=1", "--set", "train.precision=float32")
BLOCK = re.compile(r"(<!-- online -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
SAVED = re.compile(r"Save this as `src/trainformer/(\w+)/(\w+)\.py`:\n\n```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
WORDS = {"good": ["good", "fine", "lovely", "warm", "bright", "funny"], "bad": ["bad", "dull", "poor", "cold", "grim", "slow"]}
THINGS = ["film", "story", "plot", "actor", "scene"]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    kind: str
    text: str
    online: bool

    @property
    def commands(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.strip()]


def blocks(page: Path) -> list[Block]:
    return [Block(m[2], m[3], bool(m[1])) for m in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def commands(page: Path, program: str) -> list[str]:
    """The commands of a page's `sh` blocks that call a program."""
    return [c for b in blocks(page) if b.kind == "sh" for c in b.commands if c.startswith(f"{program} ")]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


SERVED = ROOT / "docs" / "serving.md"
"""Its commands speak to a service that runs: tests/serve runs them."""
LOCAL = [page for page in PAGES if page != SERVED]
TWIN = ROOT / "README.zh.md"
"""Its commands are those of the other README, which is tested."""
RUNNABLE = [
    page
    for page in LOCAL
    if page != TWIN and any(b.kind == "sh" and not b.online and "trainformer " in b.text for b in blocks(page))
]


def sentences(count: int) -> Iterator[tuple[str, str, int]]:
    """(text, label, number of kind words 0..3), good and bad in turn; no two alike."""
    draw = torch.Generator().manual_seed(0)

    def some(source: list[str]) -> str:
        return source[int(torch.randint(len(source), (1,), generator=draw))]

    for i in range(count):
        label = ("bad", "good")[i % 2]
        kind = (0 if label == "bad" else 2) + i // 2 % 2
        told = [some(WORDS["good" if n < kind else "bad"]) for n in range(3)]
        yield f"the {some(THINGS)} was {told[0]} and {told[1]} so {told[2]} a {some(THINGS)} {some(THINGS)}", label, kind


def made_up(folder: Path) -> None:
    """The files that the pages speak of."""
    rows = [{"text": t, "label": label, "stars": kind + 1, "score": kind - 1.4} for t, label, kind in sentences(48)]
    write(folder / "reviews.csv", rows, ["text", "label"])
    write(folder / "reviews.jsonl", rows, ["text", "label"])
    write(folder / "more.csv", rows[:10], ["text", "label"])
    write(folder / "new.jsonl", rows[:10], ["text"])
    write(folder / "stars.csv", rows, ["text", "stars"])
    write(folder / "ratings.csv", rows, ["text", "score"])
    tags: list[dict[str, Any]] = [{"text": r["text"], "labels": [t for t in THINGS[:3] if t in r["text"].split()]} for r in rows]
    write(folder / "tags.jsonl", tags, ["text", "labels"])
    write(folder / "tags.csv", [t | {"labels": ";".join(t["labels"])} for t in tags], ["text", "labels"])
    pairs: list[dict[str, Any]] = []
    for one, other in zip(rows, rows[2:] + rows[1:3], strict=True):
        likeness = 1 - abs(one["stars"] - other["stars"]) / 4
        same = one["label"] == other["label"]
        pairs.append({"text_a": one["text"], "text_b": other["text"], "label": "same" if same else "other", "likeness": likeness})
    for one, other in zip(rows, reversed(rows), strict=True):
        pairs.append({"text_a": one["text"], "text_b": other["text"], "label": "other", "likeness": 0.1})
    write(folder / "pairs.csv", pairs, ["text_a", "text_b", "label"])
    write(folder / "likeness.csv", pairs, ["text_a", "text_b", "likeness"])
    asked = [
        {"query": f"{k} {t}", "document": f"the {t} was so very {k}"} for k in [*WORDS["good"], *WORDS["bad"]] for t in THINGS
    ]
    write(folder / "queries.csv", asked, ["query", "document"])
    write(folder / "texts.jsonl", rows, ["text"])
    both = [{"source": r["text"], "target": " ".join(reversed(r["text"].split()))} for r in rows]
    write(folder / "translations.jsonl", both, ["source", "target"])
    asked = [{"prompt": "the film was warm and", "choices": [" bright", " cold and grim"], "answer": i % 2} for i in range(6)]
    write(folder / "choices.jsonl", asked, ["prompt", "choices", "answer"])
    gaps = Wanted("bpe", 200, "t5")
    backend, _ = learn_tokenizer(lambda: [r["text"] for r in rows], gaps)
    write_tokenizer(backend, gaps.style.roles, False, folder / "tokenizer-gaps")
    shutil.copytree(ROOT / "examples", folder / "examples")


def write(path: Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    if path.suffix == ".jsonl":
        lines = [json.dumps({c: row[c] for c in columns}) for row in rows]
    else:
        lines = [",".join(columns), *(",".join(str(row[c]) for c in columns) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files of the pages, where the default model is a tiny one."""
    folder = tmp_path / "work"
    folder.mkdir()
    made_up(folder)
    shutil.copytree(tiny_model, folder / "tokenizer")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(locate, "default_model", lambda: str(tiny_model))
    monkeypatch.setattr(serving, "run", lambda plan: None)  # it would never end; tests/serve runs it
    return folder


def quick(words: list[str]) -> list[str]:
    """The words with settings that end soon; a resumed run keeps its own, and an hour of search is two trials."""
    few = ("--set", "study.trials=2") if "--auto" in words else ()
    return [*words, *FAST, *few] if words[0] in ("train", "search") and "--resume" not in words else words


def unfinish(words: list[str]) -> None:
    """Makes a finished run look like one that was stopped after its last checkpoint."""
    if "--resume" in words:
        run = Path(words[words.index("--out") + 1])
        (run / "scores.json").unlink()
        shutil.rmtree(run / "bundle")


def install(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the files that a page tells to save, where the registry finds them."""
    for package, module, text in SAVED.findall(page.read_text(encoding="utf-8")):
        (folder / package).mkdir(exist_ok=True)
        (folder / package / f"{module}.py").write_text(text, encoding="utf-8")
        home = importlib.import_module(f"trainformer.{package}")
        monkeypatch.setattr(home, "__path__", [*home.__path__, str(folder / package)])
        monkeypatch.setattr(home, module, None, raising=False)
        monkeypatch.setitem(sys.modules, f"trainformer.{package}.{module}", None)
        monkeypatch.delitem(sys.modules, f"trainformer.{package}.{module}")


@pytest.mark.parametrize("page", RUNNABLE, ids=name)
def test_every_command_runs(page: Path, place: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    install(page, place, monkeypatch)
    for block in blocks(page):
        if block.online:
            continue
        if block.kind == "python" and block.text.startswith("from trainformer import"):
            exec(compile(block.text, name(page), "exec"), {})
        for command in block.commands if block.kind == "sh" else []:
            if "openvino" in command and find_spec("openvino") is None:
                continue  # an extra: tests/compress/test_openvino.py is skipped then and says so
            if command.startswith("trainformer "):
                words = quick(shlex.split(command)[1:])
                unfinish(words)
                done = cli(*words)
                assert done.code == 0, f"{name(page)}: {command}\n{done.err}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_option_exists(page: Path) -> None:
    verbs: Any = typer.main.get_command(app)
    for command in commands(page, "trainformer"):
        _, verb, *words = shlex.split(command)
        assert verb in verbs.commands, command
        given = verbs.commands[verb].make_context(verb, words).params
        config.override({}, list(given.get("sets") or []))


def test_the_pages_are_not_empty() -> None:
    assert len(RUNNABLE) >= 9
    assert sum(len(commands(page, "trainformer")) for page in PAGES) > 40


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_target_of_make_exists(page: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    text = page.read_text(encoding="utf-8")
    named = [c.split()[1] for c in commands(page, "make")] + re.findall(r"`make ([a-z]+)`", text)
    assert set(named) - set(targets) == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = [m[1] for m in LINK.finditer(page.read_text(encoding="utf-8")) if "://" not in m[1]]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_chinese_readme_is_a_twin() -> None:
    ours, theirs = (blocks(ROOT / file) for file in ("README.md", "README.zh.md"))
    assert [b.kind for b in ours] == [b.kind for b in theirs]
    for kind in ("sh", "python"):
        assert [b.text for b in ours if b.kind == kind] == [b.text for b in theirs if b.kind == kind]
    one, other = ((ROOT / file).read_text(encoding="utf-8") for file in ("README.md", "README.zh.md"))
    assert one.count("\n## ") == other.count("\n## ")
    assert sorted(m[1] for m in LINK.finditer(one) if "README" not in m[1]) == sorted(
        m[1] for m in LINK.finditer(other) if "README" not in m[1]
    )


def test_the_reference_is_fresh() -> None:
    for path, text in runpy.run_path(str(ROOT / "docs" / "make_reference.py"))["pages"]().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: make docs"


def test_a_stale_reference_is_noticed(tmp_path: Path) -> None:
    for name in ("docs/make_reference.py", "benchmarks/methods_table.py"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "docs" / "settings.md").write_text("old")
    asked = [sys.executable, str(tmp_path / "docs" / "make_reference.py"), "--check"]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 1
    assert "stale: settings.md, methods.md, schema.json" in done.stderr


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_every_example_is_valid(example: Path) -> None:
    values = config.read_yaml(example)
    jsonschema.validate(values, config.schema())
    parsed = config.parse(values, example.name)
    assert config.parse(yaml.safe_load(config.dump_yaml(parsed))) == parsed
    assert f"trainformer train examples/{example.name}" in example.read_text(encoding="utf-8")


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_every_example_trains(example: Path, place: Path, tiny_model: Path, cli: Callable[..., Any]) -> None:
    local = ["--data", "reviews.csv", "--test", "more.csv", "--model", tiny_model] if "imdb" in example.name else []
    done = cli("train", f"examples/{example.name}", *local, *FAST, "--out", "run")
    assert done.code == 0, done.err


def test_there_is_an_example_for_each_task() -> None:
    from trainformer.core import registry
    from trainformer.core.roles import Task

    role: Any = Task
    assert set(registry.names(role)) <= {example.stem for example in EXAMPLES}


def test_the_listing_shown_is_the_example() -> None:
    shown = next(b.text for b in blocks(ROOT / "docs" / "bert_imdb.md") if b.kind == "yaml")
    assert (ROOT / "examples" / "bert_imdb.yaml").read_text(encoding="utf-8").endswith(shown)


@pytest.mark.skipif(locate.default_model() is None, reason="the default encoder is not installed: make setup")
@pytest.mark.filterwarnings("default")
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    answers = next(output for output in cells[3].outputs if output.output_type == "execute_result")
    assert answers["data"]["text/plain"].count("'cut_tokens': 0") == 2
