"""Translates the sources of a file and times it, with Trainformer or with `generate` of the transformers library.

    python translate_rows.py --way ours|library --model DIR --data FILE --out FILE [--beam 5]

Prints one JSON line: seconds of tokenising, writing and decoding (loading and a first few rows lie outside), and the tokens of
the translations, their ends counted. Both compute in float32. The library gets its sources sorted by length.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

Write = Callable[[list[str]], list[str]]
FIRST = 8
"""Rows that are translated once before the clock runs."""


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--way", choices=["ours", "library"], required=True)
    for name in ("--model", "--data", "--out"):
        p.add_argument(name, type=Path, required=True)
    p.add_argument("--beam", type=int, default=5)
    p.add_argument("--batch", type=int, default=32, help="sources that the library gets at once")
    p.add_argument("--max-length", type=int, default=128)
    return p.parse_args()


def ours(a: argparse.Namespace) -> Write:
    from trainformer import Bundle
    from trainformer.nn.decoding import Decoding

    author, how = Bundle.open(a.model).author, Decoding(beam=a.beam, max_new_tokens=a.max_length)
    return lambda texts: [found.text for found in author.write(texts, how)]


def library(a: argparse.Namespace) -> Write:
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(a.model).eval(), AutoTokenizer.from_pretrained(a.model)
    how = dict(num_beams=a.beam, do_sample=False, max_length=a.max_length, forced_eos_token_id=None)

    @torch.inference_mode()
    def write(texts: list[str]) -> list[str]:
        ids = tokenizer(texts, truncation=True, max_length=a.max_length)["input_ids"]
        order = sorted(range(len(texts)), key=lambda i: -len(ids[i]))
        found = [""] * len(texts)
        for start in range(0, len(order), a.batch):
            batch = order[start : start + a.batch]
            inputs = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt")
            written = model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], **how)
            for i, text in zip(batch, tokenizer.batch_decode(written, skip_special_tokens=True), strict=True):
                found[i] = text
        return found

    return write


def main() -> None:
    a = arguments()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    sources = [json.loads(line)["source"] for line in a.data.open()]
    write = ours(a) if a.way == "ours" else library(a)
    write(sources[:FIRST])
    start = time.perf_counter()
    translations = write(sources)
    seconds = time.perf_counter() - start
    a.out.write_text("".join(json.dumps(text, ensure_ascii=False) + "\n" for text in translations), encoding="utf-8")
    pieces = AutoTokenizer.from_pretrained(a.model)(translations, add_special_tokens=False)["input_ids"]
    print(json.dumps(dict(seconds=seconds, tokens=sum(len(ids) + 1 for ids in pieces))))


if __name__ == "__main__":
    main()
