"""Accuracy of the default recipe beside the majority class and the peer; writes the table of docs/benchmarks.md and the READMEs.

    python benchmarks/accuracy.py --shared DIR [--only peer|ours|table] [--threads 2]

DIR holds data/, models/ and peers/. The peer is `hf_trainer.py --recipe tuned` (for regression `hf_regression.py`) at the
best of three rates, chosen on validation with seed 0, then three seeds on test. Ours is the default recipe: data and model,
nothing else. Every run is one line of --results, so an interrupted benchmark goes on where it stopped; `--only table`
writes the table from the runs that there are.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- accuracy -->", "<!-- /accuracy -->"
PAGES = ("docs/benchmarks.md", "README.md", "README.zh.md")
CHINESE = {
    "data, model": "数据，模型",
    "score on test": "测试集分数",
    "majority class": "多数类",
    "peer: rate, median (seeds)": "对手：学习率，中位数（各种子）",
    "Trainformer: median (seeds)": "Trainformer：中位数（各种子）",
    "accuracy x 100": "准确率 x 100",
    "first 2000 rows": "前 2000 行",
    "(the mean)": "（平均值）",
}
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
    return p.parse_args()


class Results:
    """Lines of (key, result) on disk: a run is done once."""

    def __init__(self, path: Path):
        self.path = path
        self.closed = False
        self.done: dict[str, dict] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                record = json.loads(line)
                self.done[json.dumps(record["key"])] = record["result"]

    def get(self, key: list, run: Callable[[], dict] | None = None) -> dict | None:
        """The result of a run; it is run if it is missing, unless the table is being written."""
        name = json.dumps(key)
        if name not in self.done:
            if run is None or self.closed:
                return None
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
        split: [json.loads(x)[label] for x in (a.shared / "data" / name / f"{split}.jsonl").open()] for split in ("train", "test")
    }
    common = Counter(rows["train"]).most_common(1)[0][0]
    return sum(x == common for x in rows["test"]) / len(rows["test"])


def peer_rate(a: argparse.Namespace, results: Results, name: str) -> float | None:
    """The rate that is best on validation with seed 0; None while a rate is missing."""
    field = "test_" + CASES[name]["score"]
    scores = {}
    for rate in RATES:
        found = results.get(["peer", name, rate, 0, "validation"], lambda r=rate: run_peer(a, name, r, 0, "validation"))
        if found is None:
            return None
        scores[rate] = found[field]
    return max(scores, key=lambda rate: scores[rate])


def fill(a: argparse.Namespace, results: Results, names: list[str]) -> None:
    """Runs what is missing: the first seed of every case before the second of any."""
    for seed in SEEDS:
        for name in names:
            if a.only != "peer":
                results.get(["ours", name, seed], lambda n=name, s=seed: run_ours(a, n, s))
            if a.only != "ours":
                rate = peer_rate(a, results, name)
                key = ["peer", name, rate, seed, "test"]
                results.get(key, lambda n=name, r=rate, s=seed: run_peer(a, n, r, s, "test"))


def table(a: argparse.Namespace, results: Results, names: list[str]) -> str:
    """Markdown: a line a case; what was not run is said, not guessed."""
    lines = [
        "| data, model | score on test | majority class | peer: rate, median (seeds) | Trainformer: median (seeds) |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        case, field = CASES[name], "test_" + CASES[name]["score"]
        rate = peer_rate(a, results, name)
        peer = [results.get(["peer", name, rate, seed, "test"]) for seed in SEEDS] if rate else []
        ours = [results.get(["ours", name, seed]) for seed in SEEDS]
        common = "0 (the mean)" if case.get("task") else f"{100 * majority(a, name):.1f}"
        rows = f", first {case['limit']} rows" if "limit" in case else ""
        lines.append(
            f"| `{name}`{rows}, `{case['model']}` | {case['score']} x 100 | {common} "
            f"| {f'{rate:g}: ' if rate else 'rates not all run; '}{shown(peer, field)} | {shown(ours, field)} |"
        )
    return "\n".join(lines)


def shown(found: list[dict | None], field: str) -> str:
    """The median and every score; the number of seeds where it is not three."""
    scores = [100 * f[field] for f in found if f]
    if not scores:
        return "not run"
    few = "" if len(scores) == len(SEEDS) else f", {len(scores)} of {len(SEEDS)} seeds"
    return f"**{statistics.median(scores):.1f}** ({', '.join(f'{s:.1f}' for s in scores)}{few})"


def main() -> None:
    a = arguments()
    a.shared = a.shared.resolve()
    results = Results(a.results)
    names = a.case or list(CASES)
    if a.only != "table":
        fill(a, results, names)
    results.closed = True
    text = table(a, results, names)
    print(text)
    if a.only in (None, "table"):
        for name in PAGES:
            put(HERE.parent / name, text)


def put(path: Path, text: str) -> None:
    """The table into its place on a page, in the page's language."""
    if path.name.endswith(".zh.md"):
        for word, chinese in CHINESE.items():
            text = text.replace(word, chinese)
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
