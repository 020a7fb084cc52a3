"""Where nothing of `trainformer[train]` can be imported: a graph is asked, scored and served, all else refused with a way out."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainformer.bundle import Bundle
from trainformer.core.errors import OF_TRAINING

Graph = Callable[[str], Path]
WAIT_SECONDS = 300
"""Long, for machines that have much else to do."""


def ran(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainformer", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS)


@pytest.mark.parametrize("name", OF_TRAINING)
def test_nothing_of_it_can_be_imported(name: str, without: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {name}"], env=without, capture_output=True, text=True)
    assert done.returncode == 1 and f"No module named '{name}'" in done.stderr


@pytest.mark.parametrize("name", ["one label", "many labels", "a pair", "likeness", "a number", "documents"])
def test_a_graph_is_asked_and_scored(name: str, graph: Graph, of: Any, write: Any, without: dict[str, str]) -> None:
    data, bundle = write("rows.jsonl", of.rows(name, 40)), Bundle.open(graph(name))
    done = ran(without, "predict", graph(name), "--data", data)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for one, other in zip(answers, bundle.predict_file(data), strict=True):
        number = isinstance(other["label"], float)
        assert one["label"] == (pytest.approx(other["label"], abs=1e-9) if number else other["label"])
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-9) and one["cut_tokens"] == other["cut_tokens"]
    done = ran(without, "evaluate", graph(name), "--data", data, "--json")
    assert json.loads(done.stdout) == pytest.approx(bundle.evaluate(data), rel=1e-9, abs=1e-9), done.stderr


@pytest.fixture
def served(graph: Graph, without: dict[str, str], tmp_path: Path) -> Any:
    """The address of a service of a graph."""
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        pytest.importorskip(package, reason=f"no {package} here: pip install 'trainformer[serve]'")
    log = tmp_path / "log"
    words = ["serve", f"reviews={graph('one label')}", "--port", "0", "--state", str(tmp_path / "state")]
    words += ["--set", "watch_seconds=0.2", "--set", "embed_every=1", "--set", f"start_seconds={WAIT_SECONDS}"]
    with log.open("wb") as to:
        process = subprocess.Popen([sys.executable, "-m", "trainformer", *words], env=without, stderr=to)
    try:
        end = time.monotonic() + WAIT_SECONDS
        while "listening" not in log.read_text():
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        line = next(line for line in log.read_text().splitlines() if "listening" in line)
        yield json.loads(line)["url"]
    finally:
        process.terminate()
        process.wait(WAIT_SECONDS)


def test_a_graph_is_served(served: str, graph: Graph, of: Any) -> None:
    """Answers as they are without a service, and the count of tokens that were not read."""
    texts = of.asked("one label", 30)
    body = json.dumps({"texts": texts, "truncate": True}).encode()
    request = urllib.request.Request(f"{served}/v1/predict", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as found:
        predictions = json.load(found)["predictions"]
    for one, other in zip(predictions, Bundle.open(graph("one label")).predict(texts), strict=True):
        assert (one["label"], one["cut_tokens"]) == (other["label"], other["cut_tokens"])
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-2), "a batch of a service is another one"


def test_what_needs_pytorch_is_refused(trained: Path, write: Any, without: dict[str, str], tmp_path: Path) -> None:
    rows = write("rows.jsonl", [{"text": "a good film", "label": "good"}] * 4)
    needs = "this bundle needs PyTorch: there is no 'torch'. pip install 'trainformer[train]', or compress it where PyTorch is"
    for words in (["predict", trained / "bundle", "a film"], ["evaluate", trained / "bundle", "--data", rows],
                  ["serve", trained / "bundle", "--port", "0", "--state", tmp_path / "state"]):  # fmt: skip
        done = ran(without, *words)
        assert done.returncode == 2 and needs in done.stderr and "Traceback" not in done.stderr, done.stderr
    for words in (["train", "--data", rows, "--out", tmp_path / "run"], ["list", "tasks"], ["schema"],
                  ["compress", trained / "bundle", "--to", "int8", "--data", rows, "--out", tmp_path / "small"]):  # fmt: skip
        done = ran(without, *words)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert "there is no 'torch'. pip install 'trainformer[train]'" in done.stderr
    assert not (tmp_path / "run").exists() and not (tmp_path / "small").exists()


def test_python_says_it_too(without: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", "from trainformer import Bundle"], env=without, capture_output=True, text=True)
    assert done.returncode == 1 and "UserError: this needs PyTorch" in done.stderr and "trainformer[train]" in done.stderr
