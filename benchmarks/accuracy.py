"""Accuracy of the default recipe beside the majority class and the peer; writes the table of docs/benchmarks.md.

    python benchmarks/accuracy.py --shared DIR [--only peer|ours|table] [--threads 2]

DIR holds data/, models/ and peers/. The peer is `hf_trainer.py --recipe tuned` (for regression `hf_regression.py`) at the
best of three rates, chosen on validation with seed 0, then three seeds on test. Ours is the default recipe: data and model,
nothing else. Every run is one line of --results, so an interrupted benchmark goes on where it stopped.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
RATES = (3e-5, 1e-4, 3e-4)
SEEDS = (0, 1, 2)
CASES = {
    "en_sentiment": dict(model="all-MiniLM-L6-v2", score="accuracy"),
    "zh_sentiment": dict(model="e5-small-zh-en", limit=2000, score="accuracy"),
    "zh_topic_thucnews": dict(model="e5-small-zh-en", limit=2000, score="accuracy"),
    "zh_pair_taobao": dict(model="e5-small-zh-en", limit=2000, text="context", text_b="response", score="accuracy"),
    "en_sentiment_3way": dict(model="all-MiniLM-L6-v2", label="score", task="regression", score="r2"),
}


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shared", type=Path, required=True)
    p.add_argument("--only", choices=["peer", "ours", "table"])
    p.add_argument("--case", action="append", choices=list(CASES))
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--results", type=Path, default=HERE / "accuracy.jsonl")
    p.add_argument("--docs", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    return p.parse_args()


class Results:
    """Lines of (key, result) on disk: a run is done once."""

    def __init__(self, path: Path):
        self.path = path
        self.done = {}
        if path.exists():
            for line in path.read_text().splitlines():
                record = json.loads(line)
                self.done[json.dumps(record["key"])] = record["result"]

    def get(self, key: list, run) -> dict:
        name = json.dumps(key)
        if name not in self.done:
            print("running", *key, flush=True)
            self.done[name] = run()
            with self.path.open("a") as f:
                f.write(json.dumps(dict(key=key, result=self.done[name])) + "\n")
            print("   ", self.done[name], flush=True)
        return self.done[name]


def command(a: argparse.Namespace, words: list[str]) -> str:
    env = os.environ | dict(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS=str(a.threads))
    out = subprocess.run(words, env=env, text=True, capture_output=True, cwd=tempfile.gettempdir())
    if out.returncode:
        raise SystemExit(f"{' '.join(words)}\n{out.stderr[-3000:]}")
    return out.stdout


def files(a: argparse.Namespace, name: str, folder: Path) -> dict[str, Path]:
    """train (its first rows where the case says so), validation and test."""
    source = a.shared / "data" / name
    train = source / "train.jsonl"
    limit = CASES[name].get("limit")
    if limit:
        short = folder / f"{name}.jsonl"
        short.write_text("".join(train.read_text().splitlines(keepends=True)[:limit]))
        train = short
    return dict(train=train, validation=source / "validation.jsonl", test=source / "test.jsonl")


def run_peer(a: argparse.Namespace, name: str, rate: float, seed: int, split: str) -> dict:
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        paths = files(a, name, Path(folder))
        script = HERE / "hf_regression.py" if case.get("task") else a.shared / "peers" / "hf_trainer.py"
        words = [sys.executable, str(script), "--model", str(a.shared / "models" / case["model"])]
        words += ["--train", str(paths["train"]), "--test", str(paths[split])]
        words += ["--lr", str(rate), "--epochs", "3", "--seed", str(seed), "--label", case.get("label", "label")]
        if not case.get("task"):
            words += ["--recipe", "tuned", "--text", case.get("text", "text")]
        if "text_b" in case:
            words += ["--text-b", case["text_b"]]
        return json.loads(command(a, words).splitlines()[-1])


def run_ours(a: argparse.Namespace, name: str, seed: int) -> dict:
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        paths = files(a, name, Path(folder))
        run = Path(folder) / "run"
        words = [sys.executable, "-m", "trainformer", "train", "--data", str(paths["train"])]
        words += ["--validation", str(paths["validation"]), "--test", str(paths["test"])]
        words += ["--model", str(a.shared / "models" / case["model"])]
        words += ["--text", case.get("text", "text"), "--label", case.get("label", "label")]
        words += ["--text-b", case["text_b"]] if "text_b" in case else []
        words += ["--task", case["task"]] if "task" in case else []
        words += ["--set", f"train.seed={seed}", "--out", str(run)]
        command(a, words)
        return json.loads((run / "scores.json").read_text())


def majority(a: argparse.Namespace, name: str) -> float:
    label = CASES[name].get("label", "label")
    rows = {
        split: [json.loads(x)[label] for x in (a.shared / "data" / name / f"{split}.jsonl").open()]
        for split in ("train", "test")
    }
    common = Counter(rows["train"]).most_common(1)[0][0]
    return sum(x == common for x in rows["test"]) / len(rows["test"])


def peer_scores(a: argparse.Namespace, results: Results, name: str) -> tuple[float, list[float]]:
    """The rate chosen on validation, and the test score of three seeds at it."""
    field = "test_" + CASES[name]["score"]
    validation = {
        rate: results.get(["peer", name, rate, 0, "validation"], lambda: run_peer(a, name, rate, 0, "validation"))[field]
        for rate in RATES
    }
    best = max(validation, key=lambda rate: validation[rate])
    tests = [
        results.get(["peer", name, best, seed, "test"], lambda: run_peer(a, name, best, seed, "test"))[field]
        for seed in SEEDS
    ]
    return best, tests


def main() -> None:
    a = arguments()
    results = Results(a.results)
    names = a.case or list(CASES)
    rows = []
    for name in names:
        if a.only in (None, "peer", "table"):
            rate, peer = peer_scores(a, results, name)
        if a.only in (None, "ours", "table"):
            ours = [results.get(["ours", name, seed], lambda: run_ours(a, name, seed)) for seed in SEEDS]
        if a.only in (None, "table"):
            rows.append(line(a, name, rate, peer, ours))


def line(a: argparse.Namespace, name: str, rate: float, peer: list[float], ours: list[dict]) -> str:
    raise NotImplementedError


if __name__ == "__main__":
    main()
