"""Speed of int8 prediction on a CPU, beside transformers in float32, plain ONNX Runtime int8 and OpenVINO; a table of
docs/benchmarks.md.

    python benchmarks/inference.py --shared DIR [--case minilm-short] [--repeats 5] [--table]

DIR holds data/ and models/. A bundle is trained on film sentences and made int8 with `trainformer compress`. Then one process
asks its programs the same texts of mixed lengths, in an order that turns with each repeat; tokenising is inside for all:

- ours: `Bundle.predict` of the int8 bundle, sorted by length into batches of a budget of tokens, order restored;
- ours-static: the same with `--calibration static`; ours-openvino: with `--backend openvino`;
- transformers: `pipeline("text-classification", batch_size=32)` in float32, as it is used;
- onnxruntime: the float32 graph of `trainformer export --to onnx` after `quantize_dynamic` as its page shows it, in padded
  batches of 32 in the order of the texts;
- openvino: the graph of `trainformer export --to openvino` compiled as its own page does it, with nothing set, in the same
  batches. It then computes in bfloat16 where the processor has that. Its int8 would take another package.

Both ways through OpenVINO are left out, and the table says so, where it is not installed. The share of labels that equal those
of the float32 bundle is told for ours. Disturbed repeats are thrown away as
in benchmarks/train.py.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from importlib.util import find_spec
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
TITLES = {
    "ours": "ours, int8",
    "ours-static": "ours, `--calibration static`",
    "ours-openvino": "ours, `--backend openvino`",
    "transformers": "transformers, float32",
    "onnxruntime": "ONNX Runtime, int8",
    "openvino": "OpenVINO as it is",
}
OPENVINO = find_spec("openvino") is not None
OURS = {"ours": (), "ours-static": ("--calibration", "static"), "ours-openvino": ("--backend", "openvino")}
"""What is said to `trainformer compress --to int8`."""
EXPORTS = {"onnxruntime": "onnx", "openvino": "openvino"}
PEERS = ("transformers", "onnxruntime", "openvino")
WAYS = [way for way in (*OURS, *PEERS) if OPENVINO or "openvino" not in way]


def made(a: argparse.Namespace, files: Files, name: str) -> dict[str, Path]:
    """The bundle, its int8 forms and its float32 graphs, each written once."""
    _, shape, _, long = CASES[name]
    place = files.folder / f"made-{name}"
    found = {way: place / way for way in WAYS} | {"bundle": place / "run" / "bundle"}
    few = a.train_rows if shape == MINILM else 64  # a random model learns nothing from more
    validation = files.rows("validation", 256, long)
    train = trainformer("train", "--data", files.rows("train", few, long), "--validation", validation)
    train += ["--test", str(files.rows("test", 64, long)), "--model", str(files.model(shape)), "--out", str(place / "run")]
    for setting in ("train.epochs=1", "train.probe=false", "train.baselines=false", "model.pooling=cls"):
        train += ["--set", setting]
    words = ["--to", "int8", "--data", validation, "--max-loss", 100]
    verbs = {way: ("compress", found["bundle"], *words, *more) for way, more in OURS.items()}
    verbs |= {way: ("export", found["bundle"], "--to", to) for way, to in EXPORTS.items()}
    commands = {"bundle": train} | {way: trainformer(*verbs[way], "--out", found[way]) for way in WAYS if way in verbs}
    for way, command in commands.items():
        if not found[way].is_dir():
            run_child(command, a.threads, TRAINFORMER_CACHE=str(files.folder))
    return found


Run = Callable[[dict[str, Any]], Any]
"""input_ids and its like, each "S L" -> logits "S C"."""


def plain(folder: Path, threads: int) -> Run:
    """ONNX Runtime as its own page on dynamic quantisation uses it: per tensor."""
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic

    target = folder.parent / "plain.onnx"
    if not target.exists():
        quantize_dynamic(str(folder / "model.onnx"), str(target))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda given: session.run(None, {name: given[name].astype("int64") for name in names})[0]


def plain_openvino(folder: Path, threads: int) -> Run:
    """OpenVINO as its own page on inference uses it."""
    import openvino

    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads})
    compiled = core.compile_model(str(folder / "openvino_model.xml"), "CPU")
    names = [each.get_any_name() for each in compiled.inputs]
    return lambda given: compiled({name: given[name].astype("int64") for name in names})[0]


def padded(run: Run, folder: Path, limit: int, labels: list[str]) -> Callable[[list[str]], list[str]]:
    """A program asked in padded batches in the order given."""
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(folder)

    def ask(texts: list[str]) -> list[str]:
        said: list[str] = []
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            given = words(batch, padding=True, truncation=True, max_length=limit, return_tensors="np")
            said += [labels[i] for i in run(given).argmax(-1)]
        return said

    return ask


class Beside:
    """The ways to ask, opened once."""

    def __init__(self, a: argparse.Namespace, files: Files, name: str):
        import torch
        from transformers import pipeline

        from trainformer import Bundle
        from trainformer.compress.timing import model_bytes

        torch.set_num_threads(a.threads)
        _, _, rows, long = CASES[name]
        path = files.rows("test", round(rows * a.scale), long)
        self.texts = [json.loads(line)["text"] for line in path.open()]
        folders = made(a, files, name)
        whole = Bundle.open(folders["bundle"])
        self.right = [answer["label"] for answer in whole.predict(self.texts)]
        limit: dict[str, Any] = dict(batch_size=BATCH, truncation=True, max_length=whole.limit)
        pipe = pipeline("text-classification", model=str(folders["bundle"]), tokenizer=str(folders["bundle"]), device="cpu")
        peers = {"onnxruntime": plain(folders["onnxruntime"], a.threads)}
        if OPENVINO:
            peers["openvino"] = plain_openvino(folders["openvino"], a.threads)
        opened = {way: Bundle.open(folders[way]) for way in WAYS if way in OURS}
        self.bytes = {way: model_bytes(bundle) for way, bundle in {"bundle": whole, **opened}.items()}
        asks = {way: padded(run, folders["onnxruntime"], whole.limit, whole.labels) for way, run in peers.items()}
        self.ways: dict[str, Callable[[], list[str]]] = {
            "transformers": lambda: [answer["label"] for answer in pipe(self.texts, **limit)],
            **{way: lambda ask=ask: ask(self.texts) for way, ask in asks.items()},
            **{way: lambda b=b: [answer["label"] for answer in b.predict(self.texts)] for way, b in opened.items()},
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
        few = "" if len(found) in (0, a.repeats) else f", {len(found)} of {a.repeats} repeats"
        speeds = {way: spread([rows / each["seconds"][way] for each in found], ",.1f") for way in WAYS}
        for ours in (way for way in WAYS if way in OURS):
            shown = [_ratio(found, way, ours, aim) for way, aim in zip(PEERS, (AIMS[long], AIM_PLAIN, None), strict=True)]
            same = f"{min(each['same'][ours] for each in found):.1%}" if found else "not run"
            lines.append([f"{title}, {rows} rows{few}", TITLES[ours], speeds[ours], *shown, same])
        for peer in (way for way in PEERS if way in WAYS):
            lines.append([f"{title}, {rows} rows{few}", TITLES[peer], speeds[peer], "", "", "", ""])
    head = "case | program | rows a second | to transformers | to ONNX Runtime | to OpenVINO | same labels"
    return rows_of_table(head, lines)


def _ratio(found: list[dict], way: str, ours: str, aim: float | None) -> str:
    """How many times as fast as a peer, and whether that is what was aimed at."""
    if way not in WAYS:
        return "not installed"
    ratio = [each["seconds"][way] / each["seconds"][ours] for each in found]
    reached = "" if aim is None else f", aim {aim:g}x"
    if ratio and aim is not None:
        reached += " reached" if statistics.median(ratio) >= aim else " missed"
    return f"{spread(ratio, '.2f')}{reached}"


def main() -> None:
    words = parser(__doc__, "inference", CASES)
    words.add_argument("--train-rows", type=int, default=1024)
    a = words.parse_args()
    sizes = {name: round(CASES[name][2] * a.scale) for name in a.case or CASES}
    measured(a, "inference", sizes, lambda files, name: Beside(a, files, name), lambda results: table(a, sizes, results))


if __name__ == "__main__":
    main()
