"""The parts of a run, each beside what the machine allows; two tables of docs/benchmarks.md.

    python benchmarks/parts.py --shared DIR [--part start] [--repeats 5] [--table]

start      from the start of the process to the end of the first optimiser step, the token cache warm or cold
data       megabytes a second of reading, looking over and tokenising files for the first time, as part of training time
optimizer  the optimiser's step beside 28 bytes a parameter (weight, gradient and two averages read, three written) over the
           bandwidth of a copy, measured right before
float32    the useful share of the float32 GEMM peak, BERT-base shape
profile    the dearest operators of a bfloat16 step, BERT-base shape

All but `data` are real runs of the command line with a callback that watches (benchmarks/clock.py).
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from cases import CASES, MINILM_NAME, Files, train_ours
from measure import (
    HERE,
    MOST_LOAD,
    Load,
    Results,
    copy_bandwidth,
    described,
    gemm_peak,
    put_table,
    rows_of_table,
    spread,
    useful_flops,
)

PARTS = ["start", "data", "optimizer", "float32", "profile"]
STARTS = {
    "warm": "MiniLM-L6, 8,040 rows, token cache warm",
    "cold": "the same, token cache cold",
    "whole": "the same, cold, probe and baselines first (the default)",
}
SOURCES = {
    "en_sentiment": ("short English texts", MINILM_NAME),
    "en_spam": ("long English texts", MINILM_NAME),
    "zh_sentiment": ("Chinese texts", "e5-small-zh-en"),
}
BYTES_A_PARAMETER = 28
SHORT = CASES["base64"]
PROFILED_STEPS, LISTED = 3, 14
EPOCHS = 3
"""What the default recipe takes for the rows of `en_sentiment`."""


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shared", type=Path, required=True)
    p.add_argument("--part", action="append", choices=PARTS)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--steps", type=int, default=8, help="steps of a run of the BERT-base shape")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--most-load", type=float, default=MOST_LOAD, help="share of others at which a run is thrown away")
    p.add_argument("--table", action="store_true", help="write the tables from the runs that there are")
    p.add_argument("--results", type=Path, default=HERE / "parts.jsonl")
    p.add_argument("--docs", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    return p.parse_args()


def run_start(a: argparse.Namespace, files: Files, kind: str) -> dict:
    """One step on all rows of a file. Seconds from the start of the process to the end of that step."""
    train = files.shared / "data/en_sentiment/train.jsonl"
    how: dict[str, Any] = {"epochs": 1e-4, "step_rows": 16, "precision": "auto"}
    how |= {"probe": None, "baselines": None} if kind == "whole" else {}
    with tempfile.TemporaryDirectory() as cache:
        case = CASES["minilm64"]
        for _ in range(2 if kind == "warm" else 1):
            run = train_ours(files, case, train, a.threads, cache=cache, **how)
    return dict(seconds=run.clock["first_step_at"] - run.child.began, others=run.child.others)


def run_data(a: argparse.Namespace, files: Files, name: str) -> dict:
    """Seconds of the first pass over a file: everything from opening it to token sequences on disk."""
    from trainformer.api import configured
    from trainformer.data import prepare
    from trainformer.data.tokens import HubTokens

    path = files.shared / "data" / name / "train.jsonl"
    model = files.shared / "models" / SOURCES[name][1]
    tokens = HubTokens.load(str(model))
    with tempfile.TemporaryDirectory() as cache, Load() as load:
        words = {"text": "text", "label": "label", "model": str(model), "set": {"data.cache": cache}}
        config = configured(None, {"train": str(path)}, words)
        start = time.perf_counter()
        prepared = prepare.read(config, {})
        prepare.learn(prepared, config.task)
        prepare.encode(prepared, config, tokens, 512)
        seconds = time.perf_counter() - start
        cached = prepared.slices["train"].cache
        assert cached is not None
        count = int(cached.lengths.sum())
    return dict(seconds=seconds, megabytes=path.stat().st_size / 1e6, tokens=count, others=load.share)


def run_speed(a: argparse.Namespace, files: Files) -> dict:
    """Real tokens a second of the default recipe with MiniLM, 16 short texts a step."""
    case = CASES["minilm64"]
    run = train_ours(files, case, files.rows("train", 1024), a.threads, step_rows=16, precision="auto")
    return dict(tokens_per_s=run.tokens / run.clock["seconds"], others=run.child.others)


def run_optimizer(a: argparse.Namespace, files: Files) -> dict:
    """Seconds of the optimiser's step (the first left out), and of moving its bytes at the speed of a copy."""
    bandwidth = copy_bandwidth(a.threads)
    run = train_ours(files, SHORT, files.rows("train", a.steps * SHORT.step_rows), a.threads)
    parameters = run.clock["optimizer_parameters"]
    return dict(
        seconds=statistics.median(run.clock["optimizer_seconds"][1:]), parameters=parameters, bandwidth=bandwidth,
        least=BYTES_A_PARAMETER * parameters / bandwidth, step_seconds=run.clock["seconds"] / run.clock["steps"],
        others=run.child.others,
    )  # fmt: skip


def run_float32(a: argparse.Namespace, files: Files) -> dict:
    train = files.rows("train", a.steps * SHORT.step_rows)
    peak = gemm_peak("float32", a.threads)
    run = train_ours(files, SHORT, train, a.threads, precision="float32")
    rate = useful_flops(files.lengths(train, SHORT.limit), SHORT.shape) / run.clock["seconds"]
    return dict(share=rate / peak, peak=peak, others=run.child.others)


def run_profile(a: argparse.Namespace, files: Files) -> dict:
    steps = 4 + PROFILED_STEPS
    run = train_ours(files, SHORT, files.rows("train", steps * SHORT.step_rows), a.threads, profile=PROFILED_STEPS)
    return run.profile | {"others": run.child.others}


def fill(a: argparse.Namespace, results: Results, parts: list[str]) -> None:
    jobs: dict[str, dict[str, Any]] = {
        "start": {kind: lambda f, k=kind: run_start(a, f, k) for kind in STARTS},
        "data": {name: lambda f, n=name: run_data(a, f, n) for name in SOURCES} | {"speed": lambda f: run_speed(a, f)},
        "optimizer": {"base": lambda f: run_optimizer(a, f)},
        "float32": {"base": lambda f: run_float32(a, f)},
        "profile": {"base": lambda f: run_profile(a, f)},
    }
    with tempfile.TemporaryDirectory() as folder:
        files = Files(a.shared, Path(folder))
        for repeat in range(a.repeats):
            for part in parts:
                for kind, job in jobs[part].items():
                    if part != "profile" or repeat == 0:
                        results.fill((part, kind, repeat), lambda j=job: j(files))


def found(a: argparse.Namespace, results: Results, part: str, kind: str) -> list[dict]:
    return [each for each in (results.get(part, kind, repeat) for repeat in range(a.repeats)) if each]


def table(a: argparse.Namespace, results: Results) -> str:
    """A line for each part, beside its aim."""
    lines = []
    for kind, title in STARTS.items():
        seconds = [each["seconds"] for each in found(a, results, "start", kind)]
        aim = "" if kind == "whole" else "at most 5"
        lines.append([f"process to the end of the first step, s: {title}", spread(seconds, ".1f"), aim])
    for name, (title, model) in SOURCES.items():
        speeds = [each["megabytes"] / each["seconds"] for each in found(a, results, "data", name)]
        what = f"first pass over a file, MB/s: {title} (`{name}`, `{model}`)"
        lines.append([what, spread(speeds, ".2f"), "at least 5"])
    what = f"the same as a part of training, %: `en_sentiment`, MiniLM, {EPOCHS} epochs at 16 rows a step"
    lines.append([what, data_share(a, results), "at most 3"])
    steps = found(a, results, "optimizer", "base")
    ratios = [each["seconds"] / each["least"] for each in steps]
    title = f"optimiser step / ({BYTES_A_PARAMETER} bytes a parameter / bandwidth of a copy), BERT-base shape"
    title += f", {statistics.median(e['parameters'] for e in steps) / 1e6:.1f} M parameters" if steps else ""
    lines.append([title, spread(ratios, ".2f"), "at most 1.5"])
    part = [each["seconds"] / each["step_seconds"] for each in steps]
    lines.append(["optimiser step as a part of the whole step, 64 short texts, %", spread(part, ".1f", 100), ""])
    shares = [each["share"] for each in found(a, results, "float32", "base")]
    title = f"useful share of the float32 GEMM peak, {SHORT.title} in float32, %"
    lines.append([title, spread(shares, ".1f", 100), "at least 70"])
    return rows_of_table("what | median (range) | aim", lines)


def data_share(a: argparse.Namespace, results: Results) -> str:
    passes, speeds = found(a, results, "data", "en_sentiment"), found(a, results, "data", "speed")
    if not (passes and speeds):
        return "not run"
    speed = statistics.median(each["tokens_per_s"] for each in speeds)
    return spread([each["seconds"] * speed / (EPOCHS * each["tokens"]) for each in passes], ".1f", 100)


def profile_table(results: Results) -> str:
    """The operators with the most time of their own."""
    found = results.get("profile", "base", 0)
    if not found:
        return "not run"
    steps, operators = found["steps"], found["operators"]
    whole = sum(each["own_us"] for each in operators)
    lines = [
        [f"`{each['name']}`", f"{each['own_us'] / steps / 1000:.1f}", f"{100 * each['own_us'] / whole:.1f}",
         f"{each['calls'] / steps:.0f}"]
        for each in operators[:LISTED]
    ]  # fmt: skip
    rest = whole - sum(each["own_us"] for each in operators[:LISTED])
    lines.append([f"{len(operators[LISTED:])} more", f"{rest / steps / 1000:.1f}", f"{100 * rest / whole:.1f}", ""])
    lines.append(["all", f"{whole / steps / 1000:.1f}", "100", ""])
    return rows_of_table("operator | own time a step, ms | % | calls a step", lines)


def main() -> None:
    a = arguments()
    a.shared = a.shared.resolve()
    results = Results(a.results, a.threads, a.most_load)
    if not a.table:
        fill(a, results, a.part or PARTS)
    machine = described(results.measured, results.thrown)
    for mark, text in (("parts", f"{table(a, results)}\n\n{machine}"), ("profile", profile_table(results))):
        print(text)
        put_table(mark, text, a.docs)


if __name__ == "__main__":
    main()
