"""Every way to train few weights beside full fine-tuning, and what the other methods add; tables of docs/methods.md.

    python benchmarks/methods.py --shared DIR [--only table] [--setting few] [--method lora] [--seeds 3] [--threads 2]

DIR holds data/ and models/. A run is the command `trainformer train`, all but the methods as it comes (TF-IDF baselines are
left out); its test rows are scored once. Each is one line of --results, so an interrupted benchmark goes on where it stopped:
the 200 rows with all seeds first, about a minute a run, then seed after seed of the larger settings. Scores count whatever else
runs on the machine; times only where others had at most a tenth of it. `--only table` writes the page from the runs that there
are.
"""

import argparse
import json
import runpy
import sys
import tempfile
from pathlib import Path

import methods_table
from cases import MINILM_NAME
from measure import ROOT, facts, run_child, trainformer
from methods_table import RESULTS, SEEDS, SETTINGS, WAYS

ROWS = {"few": ("en_sentiment", MINILM_NAME, 200, 200), "zh_topic_thucnews": ("zh_topic_thucnews", "e5-small-zh-en", 2000, None),
        "en_sentiment": ("en_sentiment", MINILM_NAME, None, None)}  # fmt: skip
"""Data, model, training rows and validation rows; none: all of them. Who has 200 rows has no thousand to validate on."""


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shared", type=Path, help="needed unless --only table")
    p.add_argument("--only", choices=["table"])
    p.add_argument("--setting", action="append", choices=list(SETTINGS))
    p.add_argument("--method", action="append", choices=list(WAYS))
    p.add_argument("--seeds", type=int, default=SEEDS)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--results", type=Path, default=RESULTS)
    return p.parse_args()


def order(settings: list[str], ways: list[str], seeds: int) -> list[tuple[str, str, int]]:
    """The runs, the most telling first: all seeds of the cheapest setting, then seed after seed of the others."""
    cheap, dear = ([s for s in settings if (s == "few") == first] for first in (True, False))
    rounds = [(s, seed) for s in cheap for seed in range(seeds)] + [(s, seed) for seed in range(seeds) for s in dear]
    return [(setting, way, seed) for setting, seed in rounds for way in ways]


def head(source: Path, rows: int | None, folder: Path) -> Path:
    """A file of the first rows of another, or that other itself."""
    if rows is None:
        return source
    short = folder / source.name
    short.write_text("".join(source.read_text(encoding="utf-8").splitlines(keepends=True)[:rows]), encoding="utf-8")
    return short


def run(a: argparse.Namespace, setting: str, way: str, seed: int) -> dict:
    """Score, cost and size of one run."""
    data, model, rows, held = ROWS[setting]
    source = a.shared / "data" / data
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = folder / "run"
        command = trainformer(
            "train", "--data", head(source / "train.jsonl", rows, folder), "--test", source / "test.jsonl",
            "--validation", head(source / "validation.jsonl", held, folder), "--model", a.shared / "models" / model,
            "--text", "text", "--label", "label", "--out", out, "--set", f"train.seed={seed}", "--set", "train.baselines=false",
        )  # fmt: skip
        child = run_child(command + WAYS[way], a.threads, TRAINFORMER_CACHE=name)
        scores = json.loads((out / "scores.json").read_text(encoding="utf-8"))
        steps = [line["seconds"] for line in map(json.loads, (out / "log.jsonl").open(encoding="utf-8")) if "tokens" in line]
        return dict(
            score=scores["test"]["accuracy"], validation=scores["validation"]["accuracy"], trained=scores["trained_parameters"],
            parameters=scores["parameters"], steps=len(steps), seconds=round(sum(steps), 3), wall=round(child.wall, 1),
            peak_mib=round(child.peak_mib, 1), shipped_bytes=shipped(out / "bundle"), others=round(child.others, 4),
        )  # fmt: skip


def shipped(bundle: Path) -> int:
    """Bytes of the adapter's file, or of the whole model where there is no adapter."""
    files = list(bundle.glob("adapters/*/weights.safetensors")) or [bundle / "model.safetensors"]
    return sum(file.stat().st_size for file in files)


def main() -> None:
    a = arguments()
    if a.only != "table":
        if a.shared is None:
            raise SystemExit("--shared DIR says where data/ and models/ are.")
        a.shared = a.shared.resolve()
        done = methods_table.read(a.results)[0]
        for key in order(a.setting or list(SETTINGS), a.method or list(WAYS), a.seeds):
            if key in done:
                continue
            print("running", *key, flush=True)
            record = dict(key=key, facts=facts(a.threads), result=run(a, *key))
            with a.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            print("   ", record["result"], flush=True)
    print(methods_table.page(a.results))
    if a.results == RESULTS:
        sys.argv[1:] = []
        runpy.run_path(str(ROOT / "docs" / "make_reference.py"), run_name="__main__")


if __name__ == "__main__":
    main()
