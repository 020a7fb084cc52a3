"""The benchmarks of length, of compression and of pre-training run for a moment, and say what they measured."""

import gzip
import json
import lzma
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["the film", "a story", "was warm", "and bright", "so funny", "it ended", "one plot", "two actors"]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`bench("cost")`: the words of a program of the benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield lambda name: runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))
    sys.modules.pop("measure", None)


def page(folder: Path, mark: str) -> Path:
    path = folder / "benchmarks.md"
    path.write_text(f"# Page\n\n<!-- {mark} -->\nnot run\n<!-- /{mark} -->\n")
    return path


def test_cost_by_length(bench: Any, tmp_path: Path) -> None:
    """Local attention takes no more memory at 512 tokens than at 256; table and plot say what the lines say."""
    docs, lines = page(tmp_path, "cost"), tmp_path / "cost.jsonl"
    words = ["--tokens=1024", "--repeats=1", "--threads=1", "--most-load=2", f"--results={lines}", f"--docs={docs}"]
    bench("cost")["main"](["--length=256", "--length=512", *words])
    kept = {tuple(line["key"][:2]): line["result"] for line in map(json.loads, lines.read_text().splitlines())}
    assert set(kept) == {(way, length) for way in ("full", "local") for length in (256, 512)}
    assert kept["local", 512]["bytes"] < 1.1 * kept["local", 256]["bytes"] and kept["full", 512]["bytes"] > 1024 * 256 * 4
    shown = docs.read_text()
    assert f"| 512 | **{1e6 * kept['full', 512]['seconds'] / 1024:,.1f}** |" in shown and "](cost.svg)" in shown
    assert (tmp_path / "cost.svg").read_text().count("<polyline") == 4


def test_bits_beside_compressors(bench: Any, tmp_path: Path) -> None:
    """gzip and xz by hand; a trained model needs fewer bits than the 4000 equally likely tokens would take."""
    data = tmp_path / "shared" / "data" / "words"
    data.mkdir(parents=True)
    made = {name: [" ".join(WORDS[(i * k + k) % 8] for k in range(1, 9)) + f" {name} {i}" for i in range(count)]
            for name, count in (("train", 200), ("validation", 30), ("test", 30))}  # fmt: skip
    for name, texts in made.items():
        (data / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    docs, lines = page(tmp_path, "bits"), tmp_path / "bits.jsonl"
    words = ["--case=words", "--vocabulary=400", "--minutes=0.05", "--repeats=1", "--threads=1", "--most-load=2"]
    bench("bits")["main"]([f"--shared={tmp_path / 'shared'}", *words, f"--results={lines}", f"--docs={docs}"])
    found = json.loads(lines.read_text())["result"]
    before, test = ("".join(f"{text}\n" for text in made[name]).encode() for name in ("train", "test"))
    size = len(test) - 30
    assert found["bytes"] == size and found["gzip -9"] == pytest.approx(8 * len(gzip.compress(test, 9)) / size)
    squeeze = lzma.compress(before + test, preset=9 | lzma.PRESET_EXTREME), lzma.compress(before, preset=9 | lzma.PRESET_EXTREME)
    assert found["xz -9e, after training texts"] == pytest.approx(8 * (len(squeeze[0]) - len(squeeze[1])) / size)
    assert 0 < found["model"] < 8 and found["zstd -19, after training texts"] < found["zstd -19"]
    assert f"| **{found['model']:.3f}** | {found['gzip -9']:.3f} / " in docs.read_text()


@pytest.mark.slow
def test_pretraining_beside_none(bench: Any, tmp_path: Path) -> None:
    """Both ways are scored with each seed, and the loss of hidden tokens falls."""
    data = tmp_path / "shared" / "data" / "zh_topic_thucnews"
    data.mkdir(parents=True)
    for name, count in (("train", 120), ("validation", 24), ("test", 24)):
        rows = [
            {"text": " ".join(WORDS[(i + k * k) % 8] for k in range(8)) + f" {name} {i}", "label": "ab"[i % 2]}
            for i in range(count)
        ]
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    docs, lines = page(tmp_path, "pretraining"), tmp_path / "pretraining.jsonl"
    words = ["--case=scratch", "--minutes=0.1", "--seeds=1", "--threads=1", "--most-load=2"]
    bench("pretraining")["main"]([f"--shared={tmp_path / 'shared'}", *words, f"--results={lines}", f"--docs={docs}"])
    found = json.loads(lines.read_text())["result"]
    assert len(found["with"]) == len(found["without"]) == 1 and all(0 <= x <= 1 for x in (*found["with"], *found["without"]))
    assert found["curve"][0][0] == 0 and found["curve"][-1][1] < found["curve"][0][1]
    assert f"**{100 * found['with'][0]:.1f}**" in docs.read_text()
