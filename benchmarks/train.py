"""Speed of training beside the peers, in one run; writes the tables of docs/benchmarks.md.

    python benchmarks/train.py --shared DIR [--case base16] [--repeats 5] [--recipes ours tuned] [--minutes 60] [--table]

DIR holds data/, models/ and peers/. Trainformer's default recipe (bfloat16, one epoch, probe and baselines off, one evaluation
at the end) and the recipes of `hf_trainer.py` train the same weights on the same files with the same rows a step, one after
the other, all of them in each repeat. Seconds are those of the loop: tokenising, loading and evaluation lie outside for all.
The GEMM peak is measured right before each run and the load of other processes during it. A run in which others took more
than a tenth of the machine is thrown away and repeated. Each run is a line of --results, so that an interrupted benchmark
goes on; --table only writes the tables. --scale 3 takes three times the rows, for a machine that is done too soon.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from cases import CASES, TEST_ROWS, Case, Files, train_ours
from measure import (
    HERE,
    MOST_LOAD,
    Child,
    Results,
    described,
    gemm_peak,
    put_table,
    rows_of_table,
    run_child,
    spread,
    useful_flops,
)

RECIPES = ["ours", "padmax", "default", "tuned", "compiled"]
NAMES = {
    "ours": "Trainformer",
    "padmax": "padded to the limit, float32",
    "default": "Trainer, default",
    "tuned": "Trainer, best flags",
    "compiled": "Trainer, best flags, compiled",
}
TARGETS = {
    "base16": (8, 2.7, "1.25 / 1.5", "52 / 65"),
    "base64": (9, 3, "1.3 / 1.6", "60 / 72"),
    "long": (4, 3, "2 / 2.5", "50 / 70"),
    "minilm64": (9, 3, "1.3 / 1.6", "45 / 60"),
}
"""Least ratio to padding to the limit and to the default; floor and goal of the ratio to the best flags and of the share."""
PADMAX_SHARE = 4
"""Padding to the limit is so slow that it gets this part of the rows."""
DRAWS = 20
"""Random orders over which the padding of a peer is averaged."""


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shared", type=Path, required=True)
    p.add_argument("--case", action="append", choices=list(CASES))
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    p.add_argument("--minutes", type=float, default=float("inf"), help="start no run after so many")
    p.add_argument("--scale", type=float, default=1.0, help="times the rows of each case")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--most-load", type=float, default=MOST_LOAD, help="share of others at which a run is thrown away")
    p.add_argument("--table", action="store_true", help="write the tables from the runs that there are")
    p.add_argument("--results", type=Path, default=HERE / "train.jsonl")
    p.add_argument("--docs", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    return p.parse_args()


def rows_of(case: Case, recipe: str, scale: float) -> int:
    """Whole steps, so that no recipe has a short last one."""
    steps = case.rows * scale / case.step_rows / (PADMAX_SHARE if recipe == "padmax" else 1)
    return max(1, round(steps)) * case.step_rows


def run_ours(a: argparse.Namespace, case: Case, files: Files, train: Path) -> tuple[Child, dict]:
    run = train_ours(files, case, train, a.threads)
    return run.child, dict(seconds=run.clock["seconds"], tokens=run.tokens, test_accuracy=run.scores["test_accuracy"])


def run_peer(a: argparse.Namespace, case: Case, recipe: str, files: Files, train: Path) -> tuple[Child, dict]:
    words = [sys.executable, str(a.shared / "peers" / "hf_trainer.py"), "--model", str(files.model(case.shape))]
    words += ["--train", str(train), "--test", str(files.rows("test", TEST_ROWS, case.long)), "--recipe", recipe]
    words += ["--batch", str(case.step_rows), "--lr", str(case.lr), "--max-length", str(case.limit)]
    child = run_child(words, a.threads, TOKENIZERS_PARALLELISM="false")
    found = json.loads(child.output.splitlines()[-1])
    tokens = round(found["real_tokens_per_s"] * found["seconds"])
    return child, dict(seconds=found["seconds"], tokens=tokens, test_accuracy=found["test_accuracy"])


def one_run(a: argparse.Namespace, name: str, recipe: str, files: Files) -> dict:
    """All numbers of one run, the peaks of the machine right before it among them."""
    case = CASES[name]
    train = files.rows("train", rows_of(case, recipe, a.scale), case.long)
    lengths = files.lengths(train, case.limit)
    peaks = {f"peak_{kind}": gemm_peak(kind, a.threads) for kind in ("bfloat16", "float32")}
    child, found = run_ours(a, case, files, train) if recipe == "ours" else run_peer(a, case, recipe, files, train)
    if abs(found["tokens"] / sum(lengths) - 1) > 1e-3:  # a peer's count comes from rounded numbers
        raise SystemExit(f"{recipe} counts {found['tokens']} real tokens, the tokenizer {sum(lengths)}: not the same work.")
    return dict(
        **peaks, seconds=found["seconds"], rows=len(lengths), tokens=sum(lengths), flops=useful_flops(lengths, case.shape),
        padding=padding(lengths, case, recipe), peak_mib=child.peak_mib, test_accuracy=found["test_accuracy"],
        wall=child.wall, others=child.others,
    )  # fmt: skip


def padding(lengths: list[int], case: Case, recipe: str) -> float:
    """Share of padding in what the linear layers read, 0..1. The Trainer's order is random: the mean of DRAWS orders."""
    if recipe == "ours":
        return 0.0
    if recipe == "padmax":
        return 1 - sum(lengths) / (len(lengths) * case.limit)
    draw = random.Random(0)
    orders = (ordered(lengths, case.step_rows, recipe != "default", draw) for _ in range(DRAWS))
    return statistics.mean(padded_share([lengths[i] for i in order], case.step_rows) for order in orders)


def ordered(lengths: list[int], batch: int, grouped: bool, draw: random.Random) -> list[int]:
    """A random order; grouped as the Trainer does it: sorted within stretches of 50 batches, or a quarter of all."""
    order = draw.sample(range(len(lengths)), len(lengths))
    if not grouped:
        return order
    stretch = batch * max(1, min(len(lengths) // (batch * 4), 50))
    parts = [order[i : i + stretch] for i in range(0, len(order), stretch)]
    return [i for part in parts for i in sorted(part, key=lambda i: -lengths[i])]


def padded_share(lengths: list[int], batch: int) -> float:
    """Share of padding, 0..1, where neighbours are padded to the longest of each batch."""
    batches = [lengths[i : i + batch] for i in range(0, len(lengths), batch)]
    return 1 - sum(lengths) / sum(len(b) * max(b) for b in batches)


def fill(a: argparse.Namespace, results: Results, names: list[str]) -> None:
    """Runs what is missing: each case and recipe once, then all again; the order turns, so that none is always first."""
    until = time.monotonic() + 60 * a.minutes
    with tempfile.TemporaryDirectory() as folder:
        files = Files(a.shared, Path(folder))
        for repeat in range(a.repeats):
            turn = repeat % len(a.recipes)
            for name in names:
                for recipe in a.recipes[turn:] + a.recipes[:turn]:
                    if time.monotonic() > until:
                        return
                    rows = rows_of(CASES[name], recipe, a.scale)
                    results.fill((name, recipe, rows, repeat), lambda n=name, r=recipe: one_run(a, n, r, files))


def runs(a: argparse.Namespace, results: Results, name: str, recipe: str) -> list[dict]:
    rows = rows_of(CASES[name], recipe, a.scale)
    found = [results.get(name, recipe, rows, repeat) for repeat in range(a.repeats)]
    return [each for each in found if each]


def speed(found: list[dict]) -> list[float]:
    return [each["tokens"] / each["seconds"] for each in found]


def share(found: list[dict], numbers: str = "bfloat16") -> list[float]:
    return [each["flops"] / each["seconds"] / each[f"peak_{numbers}"] for each in found]


def table(a: argparse.Namespace, results: Results, names: list[str]) -> str:
    """A line for each case and recipe; what was not run is said, not guessed."""
    lines = []
    for name in names:
        ours = speed(runs(a, results, name, "ours"))
        for recipe in RECIPES:
            found = runs(a, results, name, recipe)
            few = "" if len(found) in (0, a.repeats) else f", {len(found)} of {a.repeats} runs"
            first = [f"{CASES[name].title}, {rows_of(CASES[name], recipe, a.scale)} rows{few}", NAMES[recipe]]
            if not found:
                lines.append([*first, "not run", *[""] * 5])
                continue
            ratio = f"{statistics.median(ours) / statistics.median(speed(found)):.2f}x" if ours and recipe != "ours" else ""
            middle = {key: statistics.median(each[key] for each in found) for key in ("padding", "peak_mib", "test_accuracy")}
            lines.append([
                *first, spread(speed(found)), ratio, spread(share(found), ".1f", 100), f"{100 * middle['padding']:.1f}",
                f"{middle['peak_mib']:,.0f}", f"{100 * middle['test_accuracy']:.1f}",
            ])  # fmt: skip
    head = (
        "case | recipe | real tokens a second: median (range) | Trainformer is faster | useful share of the bf16 GEMM peak, % "
        "| padding, % | peak memory, MiB | test accuracy x 100"
    )
    return rows_of_table(head, lines)


def against_targets(a: argparse.Namespace, results: Results, names: list[str]) -> str:
    """Ratios and share beside what was aimed at."""
    lines = []
    for name in names:
        found = {recipe: runs(a, results, name, recipe) for recipe in RECIPES}
        middle = {recipe: statistics.median(speed(each)) for recipe, each in found.items() if each}
        padmax, default, tuned, part = TARGETS[name]
        cells = [
            f"{middle['ours'] / middle[recipe]:.2f}x (aim {aim})" if "ours" in middle and recipe in middle else "not run"
            for recipe, aim in (("padmax", f"{padmax}"), ("default", f"{default}"), ("tuned", tuned))
        ]
        part = f"{spread(share(found['ours']), '.1f', 100)} (aim {part})" if found["ours"] else "not run"
        lines.append([CASES[name].title, *cells, part])
    peaks = [each["peak_bfloat16"] / 1e9 for name in names for recipe in RECIPES for each in runs(a, results, name, recipe)]
    head = "case | to padding to the limit | to the default | to the best flags | useful share of the bf16 GEMM peak, %"
    return rows_of_table(head, lines) + f"\n\nbf16 GEMM peak, GFLOP/s: {spread(peaks)}."


def main() -> None:
    a = arguments()
    a.shared = a.shared.resolve()
    results = Results(a.results, a.threads, a.most_load)
    names = a.case or list(CASES)
    if not a.table:
        fill(a, results, names)
    text = f"{against_targets(a, results, names)}\n\n{table(a, results, names)}\n\n{described(results.measured, results.thrown)}"
    print(text)
    put_table("train", text, a.docs)


if __name__ == "__main__":
    main()
