"""A tiny random model, files of rows, and the command line in this process: what the tests of whole runs share."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

GOOD = ["good", "fine", "lovely", "warm", "bright", "funny"]
BAD = ["bad", "dull", "poor", "cold", "grim", "slow"]
OTHER = ["a", "the", "film", "story", "was", "and", "it", "plot", "actor", "scene", "very", "so", "end", "one", "two", "three"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class Outcome:
    """What a command gave."""

    code: int
    out: str
    err: str

    @property
    def answers(self) -> list[Any]:
        """Standard output as lines of JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


DEATHS: list[str] = []


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Of pytest-xdist, which says of a worker's end only that it crashed: how it ended, a negative number for a signal."""
    if error:
        worker = node.gateway._io.popen
        with suppress(subprocess.TimeoutExpired):
            worker.wait(30)
        DEATHS.append(f"the worker {node.gateway.id} ended with {worker.returncode}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """At the end, where it is seen."""
    for death in DEATHS:
        terminalreporter.write_line(death)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random BERT of two layers and width 32, with a tokenizer of whole words."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *GOOD, *BAD, *OTHER])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=ends
    )
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """`write("rows.jsonl", rows)`: a file of JSON lines from dictionaries, or of text or bytes as they stand; its path."""

    def make(name: str, content: Any) -> str:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            lines = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
            path.write_text(lines, encoding="utf-8")
        return str(path)

    return make


def reviews(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of 3 to 12 words, "good" and "bad" in turn; each text has two words that tell its label."""
    draw = torch.Generator().manual_seed(seed)

    def words(source: list[str], n: int) -> list[str]:
        return [source[i] for i in torch.randint(len(source), (n,), generator=draw).tolist()]

    rows = []
    for i in range(count):
        neutral = words(OTHER, 1 + int(torch.randint(10, (1,), generator=draw)))
        text = words(GOOD if i % 2 else BAD, 2) + neutral
        rows.append({"text": " ".join(text), "label": "good" if i % 2 else "bad"})
    return rows


@pytest.fixture(scope="session")
def rows() -> Callable[..., list[dict[str, Any]]]:
    """`rows(40)`: reviews with labels, the same at each call."""
    return reviews


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Outcome]:
    """`cli("train", "--out", folder)`: the command in this process. Its caches lie in a folder of the test."""
    monkeypatch.setenv("TRAINFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*words: Any) -> Outcome:
        from trainformer.cli import main

        monkeypatch.setattr(sys, "argv", ["trainformer", *map(str, words)])
        capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as exit:
            code = exit.code or 0
        shown = capsys.readouterr()
        return Outcome(int(code), shown.out, shown.err)

    return run


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums in one order, so that bits can be compared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on reviews. Read only: it is shared by all tests."""
    from trainformer import train

    folder = tmp_path_factory.mktemp("runs")
    data = folder / "reviews.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in reviews(80)), encoding="utf-8")
    settings = {"data.cache": str(folder / "cache"), "train.epochs": 1, "train.precision": "float32"}
    return train(data, out=folder / "run", model=str(tiny_model), set=settings).folder


@pytest.fixture
def graphs_once(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """PyTorch writes the ONNX graph of equal models once for all tests and workers: it takes seconds, and is always the same."""
    own = tmp_path_factory.getbasetemp()  # of this run; of several workers, one in it for each
    kept = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "graphs"
    kept.mkdir(exist_ok=True)
    write = torch.onnx.export

    def export(model: Any, inputs: tuple[torch.Tensor, ...], path: str, **settings: Any) -> None:
        key = hashlib.sha256(repr([model, model.head.pooling, [each.shape for each in inputs], settings]).encode())
        key.update(model.encoder.config.to_json_string().encode())
        for name, tensor in model.state_dict().items():
            key.update(name.encode() + tensor.contiguous().numpy().tobytes())
        graph = kept / f"{key.hexdigest()}.onnx"
        if not graph.exists():
            write(model, inputs, path, **settings)
            new = kept / f"{key.hexdigest()}.{os.getpid()}"
            shutil.copyfile(path, new)
            new.replace(graph)
        shutil.copyfile(graph, path)

    monkeypatch.setattr(torch.onnx, "export", export)


@pytest.fixture
def kernels() -> None:
    """The kernels in C are compiled; a machine that cannot have them skips the test, and says why."""
    from trainformer.nn.native.library import NoLibrary, load

    try:
        load()
    except NoLibrary as reason:
        pytest.skip(str(reason))


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Each use of a weight's copy in bfloat16 is held against the weight; the list grows by those that were right."""
    from trainformer.nn.native import linear

    found: list[torch.Tensor] = []
    real = linear.half_of

    def half_of(weight: torch.Tensor) -> torch.Tensor:
        half = real(weight)
        assert half.equal(weight.detach().to(torch.bfloat16)), "the copy of other weights than these"
        found.append(half)
        return half

    monkeypatch.setattr(linear, "half_of", half_of)
    return found
