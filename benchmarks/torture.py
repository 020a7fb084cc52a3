"""Trains a tiny model with hundreds of kills, ours and the Hugging Face Trainer's; writes the table of docs/exactness.md.

    python benchmarks/torture.py [--kills 200] [--seed 0] [--only ours|peer] [--docs FILE]

Both train the same random BERT (width 32, WordPiece) on the same rows, save after every second step, and are killed by SIGKILL
at instants drawn evenly over the life of an undisturbed run. Ours goes on with `--resume`; the Trainer goes on from its newest
checkpoint that it can load, as `resume_from_checkpoint`. A run that ended is compared with the undisturbed one: weights and
log, but for the clock.
"""

import argparse
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- torture -->", "<!-- /torture -->"
EPOCHS, ROWS, STEP_ROWS, SAVE_STEPS = 4, 96, 8, 2
GOOD, BAD = ["good", "fine", "lovely", "warm"], ["bad", "dull", "poor", "cold"]
OTHER = ["a", "film", "the", "story", "was", "and", "plot", "so", "very"]
CLOCK = re.compile(r".*(_runtime|_per_second)$|total_flos")


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kills", type=int, default=200)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only", choices=["ours", "peer"])
    p.add_argument("--docs", type=Path, default=HERE.parent / "docs" / "exactness.md")
    p.add_argument("--peer", nargs=2, type=Path, metavar=("PLACE", "OUT"), help=argparse.SUPPRESS)
    return p.parse_args()


def prepare(place: Path) -> None:
    """Model, rows and settings."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = [*GOOD, *BAD, *OTHER]
    backend = BertWordPieceTokenizer()
    backend.train_from_iterator([" ".join(words)] * 9, vocab_size=90)
    (place / "model").mkdir()
    backend.save_model(str(place / "model"))
    BertTokenizerFast(str(place / "model" / "vocab.txt")).save_pretrained(place / "model")
    torch.manual_seed(0)
    shape = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64)
    BertModel(BertConfig(vocab_size=backend.get_vocab_size(), **shape)).save_pretrained(place / "model")
    draw = random.Random(0)
    for name, count in (("train", ROWS), ("validation", 24)):
        rows = []
        for i in range(count):
            text = [draw.choice(GOOD if i % 2 else BAD), *draw.choices(OTHER, k=draw.randint(1, 12))]
            rows.append({"text": " ".join(text), "label": "good" if i % 2 else "bad"})
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "config.yaml").write_text(
        f"data: {{train: {place}/train.jsonl, validation: {place}/validation.jsonl, test_share: 0, cache: {place}/cache}}\n"
        f"model: {{name: {place}/model}}\n"
        f"train: {{epochs: {EPOCHS}, step_rows: {STEP_ROWS}, checkpoint_steps: {SAVE_STEPS}, precision: float32}}\n"
    )


def peer(place: Path, out: Path) -> None:
    """The Hugging Face Trainer: goes on from its newest checkpoint that can be loaded, and writes the end's log."""
    from datasets import load_dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(place / "model")
    data = load_dataset(
        "json", data_files={n: str(place / f"{n}.jsonl") for n in ("train", "validation")}, cache_dir=place / "hf"
    )
    labels = ["bad", "good"]
    data = data.map(lambda r: {**tokenizer(r["text"]), "labels": labels.index(r["label"])}, remove_columns=["text", "label"])
    settings = TrainingArguments(
        str(out), num_train_epochs=EPOCHS, per_device_train_batch_size=STEP_ROWS, save_strategy="steps", save_steps=SAVE_STEPS,
        save_total_limit=2, eval_strategy="epoch", logging_steps=1, report_to="none", disable_tqdm=True, use_cpu=True, seed=0,
    )  # fmt: skip
    there = sorted(out.glob("checkpoint-*"), key=lambda p: int(p.name.partition("-")[2]), reverse=True)
    for start in [*there, None]:
        model = AutoModelForSequenceClassification.from_pretrained(place / "model", num_labels=2)
        trainer = Trainer(model, settings, train_dataset=data["train"], eval_dataset=data["validation"],
                          data_collator=DataCollatorWithPadding(tokenizer))  # fmt: skip
        try:
            trainer.train(resume_from_checkpoint=str(start) if start else None)
        except Exception as error:
            if start is None:
                raise
            print(f"{start.name} cannot be loaded: {type(error).__name__}: {error}", flush=True)
            with (out / "unloadable.txt").open("a") as f:
                f.write(f"{start.name}\n")
            continue
        break
    trainer.save_model(out / "end")
    history = [{k: v for k, v in line.items() if not CLOCK.fullmatch(k)} for line in trainer.state.log_history]
    (out / "history.json").write_text(json.dumps(history))


def start_peer(place: Path, out: Path) -> subprocess.Popen[bytes]:
    with out.with_suffix(".txt").open("ab") as printed:
        return subprocess.Popen([sys.executable, __file__, "--peer", place, out], stdout=printed, stderr=printed)


def peer_differences(one: Path, other: Path) -> list[str]:
    found = []
    if (one / "end" / "model.safetensors").read_bytes() != (other / "end" / "model.safetensors").read_bytes():
        found.append("weights")
    if (one / "history.json").read_text() != (other / "history.json").read_text():
        found.append("log history")
    return found


def measured(name: str, a: argparse.Namespace) -> str:
    """A row of the table."""
    from trainformer.studies.verify import Training, torture, verify

    say = partial(print, f"{name}:", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        prepare(place)
        if name == "ours":
            verdict = verify(place / "config.yaml", a.kills, a.seed, place, say)
        else:
            verdict = torture(Training(partial(start_peer, place), peer_differences), a.kills, random.Random(a.seed), place, say)
        broken = sum(len(p.read_text().split()) for p in place.glob("killed-*/unloadable.txt"))
        left = [
            line for p in place.glob("killed-*.txt") for line in p.read_text().splitlines() if "is damaged and was passed" in line
        ]
    title = "Trainformer" if name == "ours" else "Hugging Face Trainer"
    return f"| {title} | {verdict.kills} | {verdict.runs} | {len(verdict.wrong)} | {broken + len(left)} |"


def main() -> None:
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    a = arguments()
    if a.peer:
        return peer(*a.peer)
    rows = [measured(name, a) for name in ("ours", "peer") if a.only in (None, name)]
    from importlib.metadata import version

    head = ["| | kills | runs | runs that ended otherwise | checkpoints that could not be loaded |", "|---|---|---|---|---|"]
    versions = ", ".join(f"{n} {version(n)}" for n in ("trainformer", "torch", "transformers"))
    command = " ".join(["python benchmarks/torture.py", f"--kills {a.kills}", f"--seed {a.seed}"])
    table = "\n".join([*head, *rows, "", f"`{command}`, {platform.system()} {platform.machine()}, one thread; {versions}."])
    print(table)
    if a.only is None:
        text = a.docs.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        a.docs.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
