"""The peer for translation: transformers.Seq2SeqTrainer with a new Marian model, trained for a given time.

    python hf_translation.py --tokenizer DIR --train a.jsonl --shape 128x2x4x512 --minutes 30 --lr 1e-3 --out DIR

The shape: width, layers of each stack, heads, width inside the feed-forward. The Trainer has its good flags (bfloat16,
grouping by length, fused AdamW, label smoothing), and begins with deviations of 1/sqrt(width): with the
library's 0.02 so narrow a model hardly learns. The rate rises for a tenth of the time and falls to 0 at its end, so that the
schedule fits the time here, too. Prints one JSON line: seconds of training, steps, and real
tokens that were trained on (source and target, padding not counted). Tokenising lies outside; nothing is scored in between.
"""

import argparse
import json
import tempfile
import time

import torch
from datasets import load_dataset
from transformers import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    MarianConfig,
    MarianMTModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    set_seed,
)

WARMUP = 0.1
ENDLESS = 1_000_000


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--tokenizer", "--train", "--shape", "--out"):
        p.add_argument(name, required=True)
    p.add_argument("--minutes", type=float, required=True)
    p.add_argument("--lr", type=float, required=True)
    p.add_argument("--dropout", type=float, default=0.1)
    p.add_argument("--smoothing", type=float, default=0.1)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--max-length", type=int, default=128)
    p.add_argument("--seed", type=int, default=0)
    return p.parse_args()


class Timed(Seq2SeqTrainer):
    """Counts real tokens, and sets the rate by the share of the time that is used."""

    def __init__(self, *args, seconds: float, **kwargs):
        super().__init__(*args, **kwargs)
        self.seconds, self.began, self.tokens = seconds, None, 0
        self.add_callback(End(self))

    def used(self) -> float:
        """Share of the time, 0..1."""
        return 0.0 if self.began is None else min(1.0, (time.perf_counter() - self.began) / self.seconds)

    def create_scheduler(self, num_training_steps, optimizer=None):
        def rate(_: int) -> float:
            return min(max(self.used(), 1e-3) / WARMUP, (1 - self.used()) / (1 - WARMUP))

        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, rate)
        return self.lr_scheduler

    def training_step(self, model, inputs, *args, **kwargs):
        self.tokens += int(inputs["attention_mask"].sum() + (inputs["labels"] != -100).sum())
        return super().training_step(model, inputs, *args, **kwargs)


class End(TrainerCallback):
    """Ends the training when the time is over."""

    def __init__(self, trainer: Timed):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.began = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = self.trainer.used() >= 1


def build(a: argparse.Namespace, tokenizer) -> MarianMTModel:
    width, layers, heads, inner = map(int, a.shape.split("x"))
    both = {f"{side}_{name}": value for side in ("encoder", "decoder")
            for name, value in (("layers", layers), ("attention_heads", heads), ("ffn_dim", inner))}  # fmt: skip
    return MarianMTModel(MarianConfig(
        vocab_size=len(tokenizer), d_model=width, dropout=a.dropout, attention_dropout=0.0, activation_function="relu",
        scale_embedding=True, max_position_embeddings=a.max_length, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=tokenizer.pad_token_id, bos_token_id=None,
        forced_eos_token_id=None, init_std=width**-0.5, **both,
    ))  # fmt: skip


def main() -> None:
    a = arguments()
    set_seed(a.seed)
    tokenizer = AutoTokenizer.from_pretrained(a.tokenizer)
    rows = load_dataset("json", data_files={"train": a.train})["train"]

    def encode(pairs):
        return tokenizer(pairs["source"], text_target=pairs["target"], truncation=True, max_length=a.max_length)

    rows = rows.map(encode, batched=True, remove_columns=rows.column_names)
    model = build(a, tokenizer)
    settings = Seq2SeqTrainingArguments(
        tempfile.mkdtemp(), num_train_epochs=ENDLESS, per_device_train_batch_size=a.batch, learning_rate=a.lr,
        weight_decay=0.01, label_smoothing_factor=a.smoothing, save_strategy="no", report_to="none", disable_tqdm=True,
        logging_strategy="no", seed=a.seed, use_cpu=not torch.cuda.is_available(), bf16=True,
        train_sampling_strategy="group_by_length", optim="adamw_torch_fused",
    )  # fmt: skip
    pad = DataCollatorForSeq2Seq(tokenizer, model=model)
    trainer = Timed(model, settings, train_dataset=rows, data_collator=pad, seconds=60 * a.minutes)
    trainer.train()
    seconds = time.perf_counter() - trainer.began
    model.save_pretrained(a.out)
    tokenizer.save_pretrained(a.out)
    parameters = sum(p.numel() for p in model.parameters())
    print(json.dumps(dict(seconds=seconds, steps=trainer.state.global_step, tokens=trainer.tokens, parameters=parameters)))


if __name__ == "__main__":
    main()
