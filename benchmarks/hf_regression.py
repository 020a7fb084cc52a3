"""The peer for regression: transformers.Trainer with num_labels=1 and the same good flags as the classification peer.

    python hf_regression.py --model DIR --train a.jsonl --test b.jsonl --label score --lr 1e-4 --epochs 3

Prints one JSON line: seconds of training, and on the test file the root mean squared error, R2 and Spearman's rho.
"""

import argparse
import json
import tempfile
import time

import torch
from datasets import load_dataset
from scipy.stats import spearmanr
from sklearn.metrics import r2_score, root_mean_squared_error
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--model", "--train", "--test"):
        p.add_argument(name, required=True)
    p.add_argument("--label", default="score")
    p.add_argument("--epochs", type=float, default=3)
    p.add_argument("--lr", type=float, default=1e-4)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    set_seed(a.seed)
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    data = load_dataset("json", data_files={"train": a.train, "test": a.test})

    def encode(rows):
        out = tokenizer(rows["text"], truncation=True, max_length=128)
        return {**out, "labels": [float(x) for x in rows[a.label]]}

    data = data.map(encode, batched=True, remove_columns=data["train"].column_names)
    model = AutoModelForSequenceClassification.from_pretrained(a.model, num_labels=1, problem_type="regression")
    settings = TrainingArguments(
        tempfile.mkdtemp(), num_train_epochs=a.epochs, per_device_train_batch_size=16, learning_rate=a.lr,
        save_strategy="no", report_to="none", disable_tqdm=True, seed=a.seed, use_cpu=True,
        bf16=True, train_sampling_strategy="group_by_length", optim="adamw_torch_fused",
    )  # fmt: skip
    pad = DataCollatorWithPadding(tokenizer)
    trainer = Trainer(model, settings, train_dataset=data["train"], data_collator=pad)
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    model.eval()
    answers, targets = [], []
    with torch.inference_mode():
        for i in range(0, len(data["test"]), 64):
            batch = pad([data["test"][j] for j in range(i, min(i + 64, len(data["test"])))])
            targets += batch.pop("labels").tolist()
            answers += model(**batch).logits.squeeze(-1).tolist()
    print(json.dumps(dict(
        recipe="tuned", seconds=round(seconds, 2),
        test_rmse=round(root_mean_squared_error(targets, answers), 4),
        test_r2=round(r2_score(targets, answers), 4),
        test_spearman=round(float(spearmanr(targets, answers).statistic), 4),
    )))  # fmt: skip


if __name__ == "__main__":
    main()
