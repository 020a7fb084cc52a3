"""Writes a BERT of a given shape with random weights and the tokenizer of another model: for measuring speed alone.

    python random_bert.py TOKENIZER_FOLDER WIDTHxLAYERSxHEADSxINNER OUT

A process of its own, so that the benchmark that needs the model does not hold its memory.
"""

import sys

import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification


def main() -> None:
    source, shape, out = sys.argv[1:]
    width, layers, heads, inner = map(int, shape.split("x"))
    tokenizer = AutoTokenizer.from_pretrained(source)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner
    )
    BertForSequenceClassification(config).save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main()
