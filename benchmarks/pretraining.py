"""Whether masked pre-training on the user's own texts helps what is fine-tuned after it; a table of docs/benchmarks.md.

    python benchmarks/pretraining.py --shared DIR [--case scratch] [--minutes 10] [--seeds 3] [--table]

DIR holds data/ and models/. `scratch`: a new small BERT with a tokenizer of its own. `continued`: an encoder that knows the
language already, then 200 labelled rows. Both read the training texts of zh_topic_thucnews without their labels for some
minutes; the task is its topics. Beside each stands the same model without that reading. Test rows are scored once a seed.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from measure import HERE, MOST_LOAD, Results, around, described, put_table, rows_of_table, run_child, trainformer

DATA = "zh_topic_thucnews"


@dataclass(frozen=True)
class Case:
    """What is pre-trained, and how many labelled rows there are afterwards."""

    model: str
    rows: int
    title: str
    own_tokenizer: bool = False


CASES = {
    "scratch": Case("bert-tiny", 2000, "a new `bert-tiny`, then 2,000 rows", own_tokenizer=True),
    "continued": Case("e5-small-zh-en", 200, "`e5-small-zh-en`, then 200 rows"),
}


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shared", type=Path, required=True)
    p.add_argument("--case", action="append", choices=list(CASES))
    p.add_argument("--minutes", type=float, default=10.0, help="of pre-training")
    p.add_argument("--seeds", type=int, default=3, help="of fine-tuning")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--most-load", type=float, default=MOST_LOAD, help="share of others at which a run is thrown away")
    p.add_argument("--table", action="store_true", help="write the table from the runs that there are")
    p.add_argument("--results", type=Path, default=HERE / "pretraining.jsonl")
    p.add_argument("--docs", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    return p.parse_args(words)


def run(a: argparse.Namespace, case: Case) -> dict:
    """One pre-training, and all fine-tunings with it and without it."""
    source = a.shared / "data" / DATA
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        few = folder / "few.jsonl"
        few.write_text("".join((source / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[: case.rows]))
        begin: list[object] = ["--model", case.model if case.own_tokenizer else a.shared / "models" / case.model]
        if case.own_tokenizer:
            made = ["--kind", "wordpiece", "--size", 8000, "--out", folder / "tokenizer"]
            run_child(trainformer("tokenizer", "train", "--data", source / "train.jsonl", "--text", "text", *made), a.threads)
            begin += ["--tokenizer", folder / "tokenizer"]
        files = ["--validation", source / "validation.jsonl", "--test", source / "test.jsonl", "--text", "text"]
        words = ["train", "--task", "masked_lm", "--data", source / "train.jsonl", *files, *begin, "--out", folder / "read"]
        child = run_child(trainformer(*words, "--set", f"train.minutes={a.minutes}"), a.threads, TRAINFORMER_CACHE=place)
        found = {"without": [], "with": []}
        for seed in range(a.seeds):
            for way, model in (("without", begin), ("with", ["--model", folder / "read" / "bundle"])):
                out = folder / f"{way}-{seed}"
                words = ["train", "--data", few, *files, "--label", "label", *model, "--out", out]
                settings = ["--set", f"train.seed={seed}", "--set", "train.baselines=false"]
                run_child(trainformer(*words, *settings), a.threads, TRAINFORMER_CACHE=place)
                found[way].append(json.loads((out / "scores.json").read_text(encoding="utf-8"))["test"]["accuracy"])
        return dict(**found, curve=curve(folder / "read" / "log.jsonl"), others=child.others)


def curve(log: Path) -> list[tuple[int, float]]:
    """The step and the validation loss, in nats a hidden token, of each evaluation."""
    lines = map(json.loads, log.read_text(encoding="utf-8").splitlines())
    return [(line["step"], line["validation"]["loss"]) for line in lines if "validation" in line]


def table(a: argparse.Namespace, results: Results) -> str:
    lines = []
    for name in a.case:
        found = results.get(name, a.minutes, a.seeds)
        if found is None:
            lines.append([CASES[name].title, *["not run"] * 3])
            continue
        losses = " → ".join(f"{loss:.2f}" for _, loss in thinned(found["curve"]))
        lines.append(
            [CASES[name].title, f"{losses} ({found['curve'][-1][0]:,} steps)", *map(scores, (found["without"], found["with"]))]
        )
    head = "model, task | validation loss of hidden tokens, nats | without pre-training | with it"
    return rows_of_table(head, lines)


def thinned(points: list) -> list:
    """The first, the last, and at most three between."""
    if len(points) <= 5:
        return points
    return [points[round(i * (len(points) - 1) / 4)] for i in range(5)]


def scores(found: list[float]) -> str:
    return f"**{100 * statistics.mean(found):.1f}** ({', '.join(f'{100 * x:.1f}' for x in found)})"


def main(words: list[str] | None = None) -> None:
    a = arguments(words)
    a.shared, a.case = a.shared.resolve(), a.case or list(CASES)
    around("pretraining", a.docs)
    results = Results(a.results, a.threads, a.most_load)
    for name in a.case if not a.table else []:
        results.fill((name, a.minutes, a.seeds), lambda n=name: run(a, CASES[n]), tries=2)
    text = f"Test accuracy x 100 on `{DATA}`, mean (seeds); {a.minutes:g} minutes of pre-training.\n\n{table(a, results)}"
    text += f"\n\n{described(results.measured, results.thrown)}"
    print(text)
    put_table("pretraining", text, a.docs)


if __name__ == "__main__":
    main()
