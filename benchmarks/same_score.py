"""Whether the fast way scores like the plain one: packed bfloat16 beside padded float32; a table of docs/benchmarks.md.

    python benchmarks/same_score.py --shared DIR [--rows 2000] [--seeds 3] [--table]

DIR holds data/ and models/. The default recipe on the first rows of `en_sentiment` with MiniLM, as it comes (`precision=auto`,
packed where that is exact) and with `train.precision=float32` and `model.packing=padded`, each seed with both. Test rows are
scored once. The difference of the means is set beside the spread of the seeds.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from cases import MINILM_NAME
from measure import HERE, Results, described, put_table, rows_of_table, run_child, trainformer

WAYS = {
    "fast": ("default: packed, precision auto", []),
    "plain": ("padded, float32", ["train.precision=float32", "model.packing=padded"]),
}


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shared", type=Path, required=True)
    p.add_argument("--rows", type=int, default=2000)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--set", action="append", default=[], help="section.key=value for both")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--table", action="store_true", help="write the table from the runs that there are")
    p.add_argument("--results", type=Path, default=HERE / "same_score.jsonl")
    p.add_argument("--docs", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    return p.parse_args()


def run(a: argparse.Namespace, way: str, seed: int) -> dict:
    source = a.shared / "data" / "en_sentiment"
    with tempfile.TemporaryDirectory() as folder:
        train = Path(folder) / "train.jsonl"
        train.write_text("".join((source / "train.jsonl").read_text().splitlines(keepends=True)[: a.rows]))
        out = Path(folder) / "run"
        words = trainformer("train", "--data", train, "--validation", source / "validation.jsonl")
        words += ["--test", str(source / "test.jsonl"), "--model", str(a.shared / "models" / MINILM_NAME)]
        words += ["--text", "text", "--label", "label", "--out", str(out)]
        for setting in [f"train.seed={seed}", *a.set, *WAYS[way][1]]:
            words += ["--set", setting]
        child = run_child(words, a.threads, TRAINFORMER_CACHE=folder)
        scores = json.loads((out / "scores.json").read_text())
        log = [json.loads(line) for line in (out / "log.jsonl").open()]
        seconds = sum(line.get("seconds", 0.0) for line in log)
        numbers = numbers_of_auto() if way == "fast" else "float32"
        return dict(test=scores["test"], numbers=numbers, seconds=seconds, others=child.others)


def numbers_of_auto() -> str:
    """What `train.precision=auto` is on this machine."""
    import torch

    from trainformer.engine.precision import half

    return "bfloat16" if half("auto", torch.device("cpu")) else "float32"


def table(a: argparse.Namespace, results: Results) -> str:
    """A line a way, and what the difference of the means is worth."""
    scores, lines = {}, []
    for way, (title, _) in WAYS.items():
        listed = [results.get(way, a.rows, *a.set, seed) for seed in range(a.seeds)]
        found = [each for each in listed if each]
        scores[way] = [100 * each["test"]["accuracy"] for each in found]
        numbers = "/".join(sorted({each["numbers"] for each in found})) or "?"
        lines.append([title.replace("auto", f"auto ({numbers})"), *summary(scores[way], a.seeds)])
    text = rows_of_table("way | test accuracy x 100, by seed | mean | standard deviation", lines)
    return f"{text}\n\n{verdict(scores['fast'], scores['plain'])}"


def summary(scores: list[float], seeds: int) -> list[str]:
    if len(scores) < seeds:
        return [f"{len(scores)} of {seeds} seeds run", "", ""]
    deviation = f"{statistics.stdev(scores):.2f}" if seeds > 1 else ""
    return [", ".join(f"{s:.1f}" for s in scores), f"{statistics.mean(scores):.2f}", deviation]


def verdict(fast: list[float], plain: list[float]) -> str:
    """The difference of the means beside twice its standard error, which the seeds give.

    >>> verdict([80.0, 81.0, 82.0], [80.5, 81.5, 82.5])
    'Difference of the means: -0.50. Twice its standard error: 1.63. Within the noise of the seeds.'
    """
    if min(len(fast), len(plain)) < 2:
        return "Too few seeds to tell."
    difference = statistics.mean(fast) - statistics.mean(plain)
    noise = 2 * (statistics.variance(fast) / len(fast) + statistics.variance(plain) / len(plain)) ** 0.5
    told = "Within the noise of the seeds." if abs(difference) <= noise else "More than the noise of the seeds."
    return f"Difference of the means: {difference:.2f}. Twice its standard error: {noise:.2f}. {told}"


def main() -> None:
    a = arguments()
    a.shared = a.shared.resolve()
    results = Results(a.results, a.threads, most_load=float("inf"))  # the load of others changes no score
    for seed in [] if a.table else range(a.seeds):
        for way in WAYS:
            results.fill((way, a.rows, *a.set, seed), lambda w=way, s=seed: run(a, w, s))
    text = f"{table(a, results)}\n\n{described(results.measured)}"
    print(text)
    put_table("same_score", text, a.docs)


if __name__ == "__main__":
    main()
