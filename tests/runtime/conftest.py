"""Bundles of each task whose model is an int8 graph, and an environment in which what trains cannot be imported."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainformer.bundle.writing import Contents, write
from trainformer.core import registry
from trainformer.core.config import DataSettings
from trainformer.core.errors import OF_TRAINING
from trainformer.core.roles import Backbone, Decision, Task
from trainformer.data.columns import Columns
from trainformer.data.tokens import HubTokens

ROOT = Path(__file__).resolve().parents[2]
LABELS = ["bad", "good", "so-so"]
WINDOWS = {"long_text": "window", "window_overlap": 0.5}
CASES: dict[str, tuple[str, dict[str, Any], Decision]] = {
    "one label": ("text_classification", {"labels": LABELS}, Decision(1.3, {"bad": 0.4}, abstain=0.35)),
    "costs": ("text_classification", {"labels": LABELS, **WINDOWS}, Decision(costs={"so-so": {"good": 1.5, "bad": 1.5}})),
    "many labels": ("multi_label", {"labels": LABELS, **WINDOWS, "window_pool": "max"}, Decision(thresholds={"good": 0.3})),
    "a pair": ("text_pair", {"labels": LABELS}, Decision()),
    "likeness": ("text_pair", {"kind": "similarity"}, Decision()),
    "a number": ("regression", {"long_text": "window"}, Decision()),
    "head and tail": ("regression", {"long_text": "head_tail"}, Decision()),
    "documents": ("retrieval", {}, Decision()),
}
"""Task, settings and decision layer."""
PAIRS = ("text_pair", "retrieval")
WORDS = [
    "good",
    "fine",
    "lovely",
    "warm",
    "bad",
    "dull",
    "poor",
    "cold",
    "a",
    "film",
    "story",
    "was",
    "and",
    "unheard-of",
    "电影",
    ",",
]


def sentences(count: int, longest: int = 70) -> list[str]:
    """Texts of 0 to 70 words in no order of length; some are empty, many are cut, some words are unknown."""
    draw = torch.Generator().manual_seed(5)
    sizes = torch.randint(longest, (count,), generator=draw).tolist()
    return [" ".join(WORDS[i] for i in torch.randint(len(WORDS), (n,), generator=draw).tolist()) for n in sizes]


def asked(name: str, count: int = 120) -> list[Any]:
    """Texts, or pairs of them, for a case."""
    texts = sentences(2 * count)
    return list(zip(texts[::2], texts[1::2], strict=True)) if CASES[name][0] in PAIRS else texts[:count]


def rows(name: str, count: int = 120) -> list[dict[str, Any]]:
    """Labelled rows for a case, in no relation to what the model says."""
    task, settings, _ = CASES[name]
    targets: list[Any] = LABELS if task == "text_classification" else [LABELS[:2], [], LABELS[2:]]
    if task == "regression" or settings.get("kind"):
        targets = [1.0, 2.5, 7.0, 8.0]
    elif task == "text_pair":
        targets = LABELS
    given = [each if isinstance(each, tuple) else (each, None) for each in asked(name, count)]
    found = [
        {"text": text or "film", "other": other, "label": targets[i % len(targets)]} for i, (text, other) in enumerate(given)
    ]
    return [row | {"other": row["other"] or "film"} if task in PAIRS else row for row in found]


def written(model: Path, name: str, folder: Path) -> Path:
    """A bundle of PyTorch with a head of random weights."""
    key, settings, decision = CASES[name]
    task: Any = registry.build(Task, key, settings)
    if "labels" not in settings:
        for row, target in enumerate([1.0, 2.0, 4.0, 8.0]):
            task.observe(task.parse(("film", f"story {row}")[: 1 + task.pair], target, row, 1.0))
        task.settle()
    torch.manual_seed(1)
    made, backbone, _ = registry.build(Backbone, "pretrained", {"name": str(model), "pooling": "mean"}).load(task)
    with torch.no_grad():
        for p in made.head.parameters():
            p.add_(torch.randn(p.shape) * 0.5)
    columns = Columns("text", "other" if task.pair else None, "label")
    pages = {"README.md": "# A model\n"}
    write(folder, Contents(task, backbone, made, HubTokens.load(str(model)), decision, columns, 24, {}, pages=pages))
    return folder


@pytest.fixture(scope="session")
def graph(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`graph("one label")`: the folder of an int8 bundle. Read only: it is shared."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason=f"no {package} here: pip install 'trainformer[onnx]'")
    from trainformer.compress.smaller import Wanted, compress

    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            place = tmp_path_factory.mktemp("graphs")
            folder = written(tiny_model, name, place / "bundle")
            data = place / "rows.jsonl"
            data.write_text("".join(json.dumps(row) + "\n" for row in rows(name)), encoding="utf-8")
            compress(folder, data, Wanted(to="int8", max_loss=1e9), place / "int8", DataSettings(), lambda line: None)
            made[name] = place / "int8"
        return made[name]

    return make


@pytest.fixture
def without(tmp_path: Path) -> dict[str, str]:
    """The environment of a process, and of its children, in which nothing of `trainformer[train]` can be imported."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OF_TRAINING!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
""")
    return {**os.environ, "PYTHONPATH": f"{blocked}{os.pathsep}{ROOT / 'src'}"}


@pytest.fixture
def of() -> SimpleNamespace:
    """What the bundles are asked."""
    return SimpleNamespace(asked=asked, rows=rows, sentences=sentences)


@pytest.fixture(autouse=True)
def _once(graphs_once: None) -> None:
    """What is exported is the same for each test."""
