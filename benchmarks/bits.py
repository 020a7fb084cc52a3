"""Bits a byte of a small model of GPT-2's shape beside gzip, xz and zstd on the same texts; a table of docs/benchmarks.md.

    python benchmarks/bits.py --shared DIR [--case en_spam] [--minutes 5] [--repeats 3] [--table]

The model reads the training texts for some minutes, with a tokenizer of bytes trained on them, and is scored on the test texts:
the bits of all tokens, the end of each text counted, over the bytes of the texts. A compressor gets the test texts, a line each,
alone; and after the training texts, as the model did: what they add to the compressed size. The size of the model itself is not
counted, and neither is that of a compressor.
"""

import argparse
import gzip
import json
import lzma
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import HERE, MOST_LOAD, Results, around, described, put_table, rows_of_table, run_child, spread, trainformer

CASES = {"en_spam": "English e-mails", "zh_sentiment": "Chinese reviews"}
ZSTD_LEVEL = 19


def zstd(data: bytes) -> bytes:
    """By Arrow, which has it inside."""
    import pyarrow

    return pyarrow.Codec("zstd", compression_level=ZSTD_LEVEL).compress(data, asbytes=True)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip -9": lambda data: gzip.compress(data, 9),
    "xz -9e": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
    f"zstd -{ZSTD_LEVEL}": zstd,
}


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shared", type=Path, required=True)
    p.add_argument("--case", action="append", help=f"folder below data/ of DIR; {', '.join(CASES)} unless given")
    p.add_argument("--model", default="gpt2-tiny")
    p.add_argument("--vocabulary", type=int, default=4000)
    p.add_argument("--minutes", type=float, default=5.0)
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--most-load", type=float, default=MOST_LOAD, help="share of others at which a run is thrown away")
    p.add_argument("--table", action="store_true", help="write the table from the runs that there are")
    p.add_argument("--results", type=Path, default=HERE / "bits.jsonl")
    p.add_argument("--docs", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    return p.parse_args(words)


def texts(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def compressed(train: list[str], test: list[str]) -> dict[str, float]:
    """Bits a byte of the test texts by each compressor, alone and after the training texts."""
    before, after = ("".join(f"{text}\n" for text in each).encode() for each in (train, test))
    size = sum(len(text.encode()) for text in test)
    found = {}
    for name, squeeze in COMPRESSORS.items():
        found[name] = 8 * len(squeeze(after)) / size
        found[f"{name}, after training texts"] = 8 * (len(squeeze(before + after)) - len(squeeze(before))) / size
    return found


def run(a: argparse.Namespace, case: str, repeat: int) -> dict:
    """One training, and the compressors."""
    files = {name: a.shared / "data" / case / f"{name}.jsonl" for name in ("train", "validation", "test")}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = trainformer("tokenizer", "train", "--data", files["train"], "--text", "text", "--kind", "byte_bpe", "--size",
                           a.vocabulary, "--out", folder / "tokenizer")  # fmt: skip
        run_child(made, a.threads)
        words = trainformer(
            "train",
            "--task",
            "causal_lm",
            "--data",
            files["train"],
            "--validation",
            files["validation"],
            "--test",
            files["test"],
            "--text",
            "text",
            "--model",
            a.model,
            "--tokenizer",
            folder / "tokenizer",
            "--set",
            f"train.minutes={a.minutes}",
            "--set",
            f"train.seed={repeat}",
            "--out",
            folder / "run",
        )
        child = run_child(words, a.threads, TRAINFORMER_CACHE=str(folder))
        scores = json.loads((folder / "run" / "scores.json").read_text(encoding="utf-8"))
    train, test = texts(files["train"]), texts(files["test"])
    size = sum(len(text.encode()) for text in test)
    told = {"model": scores["test"]["bits_per_byte"], "parameters": scores["parameters"], "bytes": size}
    return {**told, **compressed(train, test), "others": child.others}


def table(a: argparse.Namespace, results: Results) -> str:
    lines = []
    for case in a.case:
        keys = [(case, a.model, a.vocabulary, a.minutes, repeat) for repeat in range(a.repeats)]
        found = [line for line in (results.get(*key) for key in keys) if line]
        about = CASES.get(case, case)
        about += f", {found[0]['bytes']:,} bytes; {found[0]['parameters'] / 1e6:.1f} M parameters" if found else ""
        cells = [spread([line["model"] for line in found], ".3f")]
        for name in COMPRESSORS:
            pair = (found[0][name], found[0][f"{name}, after training texts"]) if found else ()
            cells.append(" / ".join(f"{value:.3f}" for value in pair) or "not run")
        lines.append([about, *cells])
    head = [
        "bits a byte of test texts",
        f"{a.model}, {a.minutes:g} minutes",
        *(f"{n}, alone / after training texts" for n in COMPRESSORS),
    ]
    return rows_of_table(" | ".join(head), lines)


def main(words: list[str] | None = None) -> None:
    a = arguments(words)
    a.shared, a.case = a.shared.resolve(), a.case or list(CASES)
    around("bits", a.docs)
    results = Results(a.results, a.threads, a.most_load)
    keys = [(case, a.model, a.vocabulary, a.minutes, repeat) for case in a.case for repeat in range(a.repeats)]
    for key in results.missing(keys) if not a.table else []:
        results.fill(key, lambda k=key: run(a, str(k[0]), int(k[-1])))
    text = f"{table(a, results)}\n\n{described(results.measured, results.thrown)}"
    print(text)
    put_table("bits", text, a.docs)


if __name__ == "__main__":
    main()
