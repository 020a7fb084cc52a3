"""Speed of int8 prediction on a CPU, beside transformers in float32 and plain ONNX Runtime int8; a table of docs/benchmarks.md.

    python benchmarks/inference.py --shared DIR [--case minilm-short] [--repeats 5] [--table]

DIR holds data/ and models/. A bundle is trained on film sentences and made int8 with `trainformer compress`. Then one process
asks three programs the same texts of mixed lengths, in an order that turns with each repeat; tokenising is inside for all:

- ours: `Bundle.predict` of the int8 bundle, sorted by length into batches of a budget of tokens, order restored;
- transformers: `pipeline("text-classification", batch_size=32)` in float32, as it is used;
- onnxruntime: the float32 graph of `trainformer export --to onnx` after `quantize_dynamic` as its page shows it, in padded
  batches of 32 in the order of the texts.

The share of labels that equal those of the float32 bundle is told for both int8 programs. Disturbed repeats are thrown away as
in benchmarks/train.py.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beside import asked, measured, parser
from cases import Files
from measure import BERT_BASE, MINILM, Load, Results, rows_of_table, run_child, spread, trainformer

CASES = {
    "minilm-short": ("MiniLM-L6, short texts", MINILM, 1024, False),
    "minilm-long": ("MiniLM-L6, long texts", MINILM, 192, True),
    "base-short": ("BERT-base shape, short texts", BERT_BASE, 256, False),
    "base-long": ("BERT-base shape, long texts", BERT_BASE, 48, True),
}
AIMS = {False: 3.0, True: 2.0}
"""Times transformers in float32, on short texts and on long ones."""
AIM_PLAIN, BATCH = 1.2, 32
WAYS = ("ours", "transformers", "onnxruntime")


def made(a: argparse.Namespace, files: Files, name: str) -> dict[str, Path]:
    """The bundle, its int8 form and its float32 graph, each written once."""
    _, shape, _, long = CASES[name]
    place = files.folder / f"made-{name}"
    found = {kind: place / kind for kind in ("int8", "onnx")} | {"bundle": place / "run" / "bundle"}
    few = a.train_rows if shape == MINILM else 64  # a random model learns nothing from more
    validation = files.rows("validation", 256, long)
    train = trainformer("train", "--data", files.rows("train", few, long), "--validation", validation)
    train += ["--test", str(files.rows("test", 64, long)), "--model", str(files.model(shape)), "--out", str(place / "run")]
    for setting in ("train.epochs=1", "train.probe=false", "train.baselines=false", "model.pooling=cls"):
        train += ["--set", setting]
    words = ["--to", "int8", "--data", validation, "--max-loss", 100, "--out", found["int8"]]
    compress = trainformer("compress", found["bundle"], *words)
    export = trainformer("export", found["bundle"], "--to", "onnx", "--out", found["onnx"])
    for folder, command in ((found["bundle"], train), (found["int8"], compress), (found["onnx"], export)):
        if not folder.is_dir():
            run_child(command, a.threads, TRAINFORMER_CACHE=str(files.folder))
    return found


def plain(folder: Path, threads: int, limit: int, labels: list[str]) -> Callable[[list[str]], list[str]]:
    """ONNX Runtime as its own page on dynamic quantisation uses it: per tensor, padded batches in the order given."""
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic
    from transformers import AutoTokenizer

    target = folder.parent / "plain.onnx"
    if not target.exists():
        quantize_dynamic(str(folder / "model.onnx"), str(target))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])
    words = AutoTokenizer.from_pretrained(folder)
    names = [each.name for each in session.get_inputs()]

    def ask(texts: list[str]) -> list[str]:
        said: list[str] = []
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            given = words(batch, padding=True, truncation=True, max_length=limit, return_tensors="np")
            logits = session.run(None, {name: given[name].astype("int64") for name in names})[0]
            said += [labels[i] for i in logits.argmax(-1)]
        return said

    return ask


class Beside:
    """The ways to ask, opened once."""

    def __init__(self, a: argparse.Namespace, files: Files, name: str):
        import torch
        from transformers import pipeline

        from trainformer import Bundle

        torch.set_num_threads(a.threads)
        _, _, rows, long = CASES[name]
        path = files.rows("test", round(rows * a.scale), long)
        self.texts = [json.loads(line)["text"] for line in path.open()]
        folders = made(a, files, name)
        whole, small = Bundle.open(folders["bundle"]), Bundle.open(folders["int8"])
        self.right = [answer["label"] for answer in whole.predict(self.texts)]
        self.bytes = {"bundle": (folders["bundle"] / "model.safetensors").stat().st_size,
                      "int8": (folders["int8"] / "model.onnx").stat().st_size}  # fmt: skip
        limit: dict[str, Any] = dict(batch_size=BATCH, truncation=True, max_length=whole.limit)
        pipe = pipeline("text-classification", model=str(folders["bundle"]), tokenizer=str(folders["bundle"]), device="cpu")
        peer = plain(folders["onnx"], a.threads, whole.limit, whole.labels)
        self.ways: dict[str, Callable[[], list[str]]] = {
            "ours": lambda: [answer["label"] for answer in small.predict(self.texts)],
            "transformers": lambda: [answer["label"] for answer in pipe(self.texts, **limit)],
            "onnxruntime": lambda: peer(self.texts),
        }
        for ask in self.ways.values():
            ask()

    def run(self, repeat: int) -> dict:
        """Seconds of each way in one repeat, and the share of labels that are those of the float32 bundle."""
        turn = repeat % len(WAYS)
        with Load() as load:
            seconds, said = asked(self.ways, WAYS[turn:] + WAYS[:turn])
        same = {way: sum(x == y for x, y in zip(given, self.right, strict=True)) / len(given) for way, given in said.items()}
        if same["transformers"] < 1:
            raise SystemExit(f"float32 labels differ on {1 - same['transformers']:.2%} of the texts: the two do not do the same.")
        return dict(seconds=seconds, same=same, rows=len(self.texts), bytes=self.bytes, others=load.share)


def table(a: argparse.Namespace, sizes: dict[str, int], results: Results) -> str:
    lines = []
    for name, rows in sizes.items():
        title, _, _, long = CASES[name]
        found = [each for each in (results.get(name, rows, repeat) for repeat in range(a.repeats)) if each]
        speeds = [spread([rows / each["seconds"][way] for each in found], ",.1f") for way in WAYS]
        ratios = [[each["seconds"][way] / each["seconds"]["ours"] for each in found] for way in WAYS[1:]]
        same = f"{min(each['same']['ours'] for each in found):.1%}" if found else "not run"
        aims = [f"{aim:g}x {'reached' if statistics.median(ratio) >= aim else 'missed'}" if ratio else f"{aim:g}x"
                for aim, ratio in zip((AIMS[long], AIM_PLAIN), ratios, strict=True)]  # fmt: skip
        few = "" if len(found) in (0, a.repeats) else f", {len(found)} of {a.repeats} repeats"
        shown = [f"{spread(ratio, '.2f')}, aim {aim}" for ratio, aim in zip(ratios, aims, strict=True)]
        lines.append([f"{title}, {rows} rows{few}", *speeds, *shown, same])
    head = "case | ours int8, rows a second | transformers float32 | ONNX Runtime int8 | to the one | to the other | same labels"
    return rows_of_table(head, lines)


def main() -> None:
    words = parser(__doc__, "inference", CASES)
    words.add_argument("--train-rows", type=int, default=1024)
    a = words.parse_args()
    sizes = {name: round(CASES[name][2] * a.scale) for name in a.case or CASES}
    measured(a, "inference", sizes, lambda files, name: Beside(a, files, name), lambda results: table(a, sizes, results))


if __name__ == "__main__":
    main()
