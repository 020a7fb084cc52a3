"""Tiny random checkpoints of each family with a word tokenizer, as the transformers library would save them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from trainformer.core.batch import Batch, Encoded, Part, pack
from trainformer.core.roles import Model
from trainformer.models.pretrained import Pretrained, quiet
from trainformer.tasks.text_classification import TextClassification

WORDS = [f"w{i}" for i in range(60)]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PLAIN = SMALL | {"max_position_embeddings": 64, "type_vocab_size": 2, "pad_token_id": 0}
AFTER_PADDING = SMALL | {
    "max_position_embeddings": 66,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": PLAIN,
    "roberta": AFTER_PADDING,
    "xlm-roberta": AFTER_PADDING,
    "camembert": AFTER_PADDING,
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 64, "pad_token_id": 0},
    "electra": PLAIN | {"embedding_size": 8},
    "albert": PLAIN | {"embedding_size": 8, "classifier_dropout_prob": 0.1},
    "modernbert": SMALL | {"max_position_embeddings": 64, "local_attention": 8, "global_attn_every_n_layers": 2,
                           "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
    "mpnet": AFTER_PADDING,
    "deberta-v2": PLAIN | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8,
                           "position_biased_input": False, "type_vocab_size": 0, "share_att_key": True,
                           "norm_rel_ebd": "layer_norm"},
}  # fmt: skip
PADDED = ("mpnet", "deberta-v2")
"""Families whose attention cannot be replaced."""
UNTYPED = ("roberta", "xlm-roberta", "camembert", "distilbert", "modernbert", "mpnet")
"""Families whose tokenizers give no token types."""


def tokenizer(family: str) -> Any:
    """Whole words, with the special tokens where the family has them."""
    after = FAMILIES[family].get("pad_token_id") == 1
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if after else ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    cls, sep, pad, unk = ("<s>", "</s>", "<pad>", "<unk>") if after else ("[CLS]", "[SEP]", "[PAD]", "[UNK]")
    vocabulary = {word: i for i, word in enumerate(names + WORDS)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=unk))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    second = 0 if family in UNTYPED else 1
    pair = f"{cls} $A {sep} {sep} $B {sep}" if after else f"{cls}:0 $A:0 {sep}:0 $B:{second} {sep}:{second}"
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}", pair=pair, special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])]
    )
    inputs = ["input_ids", "attention_mask"] + ["token_type_ids"] * (family not in UNTYPED)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token=cls, sep_token=sep, pad_token=pad, unk_token=unk, model_input_names=inputs
    )


@torch.no_grad()
def disturb(model: Any, seed: int = 0) -> Any:
    """Weights that are far from their start, so that every one of them tells."""
    draw = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        p.copy_(
            torch.randn(p.shape, generator=draw) * 0.25 + (1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0)
        )
    return model


def config(family: str, **changes: Any) -> Any:
    return transformers.AutoConfig.for_model(family, vocab_size=65, **FAMILIES[family] | changes)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """`checkpoint("bert", "MaskedLM", hidden_size=8)`: the folder of a random model of the library's class."""

    def make(family: str, kind: str = "", half: bool = False, **changes: Any) -> Path:
        folder = tmp_path / f"{family}-{kind or 'bare'}"
        auto = getattr(transformers, f"AutoModelFor{kind}" if kind else "AutoModel")
        with quiet():
            model = disturb(auto.from_config(config(family, **changes)))
            (model.half() if half else model).save_pretrained(folder)
            tokenizer(family).save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def task() -> TextClassification:
    return TextClassification(labels=["bad", "good", "so-so"])


@pytest.fixture
def load(task: TextClassification) -> Callable[..., tuple[Model, Pretrained, list[str]]]:
    """`load(folder, pooling="mean")`: model, settled settings, and what was said."""

    def make(folder: Path, **settings: Any) -> tuple[Model, Pretrained, list[str]]:
        torch.manual_seed(0)
        return Pretrained(name=str(folder), **settings).load(task)

    return make


def example(ids: list[int], row: int = 0, kinds: list[int] | None = None) -> Encoded:
    types = None if kinds is None else torch.tensor(kinds)
    return Encoded((Part(torch.tensor(ids), [len(ids)], types),), torch.tensor([row % 3]), row)


@pytest.fixture
def random_batches() -> Callable[..., list[Batch]]:
    """`random_batches(50, vocabulary=65)`: 1 to 6 texts of 1 to 40 tokens each, some of equal length."""

    def make(count: int, vocabulary: int = 65, typed: bool = False, longest: int = 40) -> list[Batch]:
        draw = torch.Generator().manual_seed(count)

        def number(high: int) -> int:
            return int(torch.randint(high, (1,), generator=draw))

        def one(row: int) -> Encoded:
            length = 1 + (number(longest) if number(3) else 6)
            ids = torch.randint(5, vocabulary, (length,), generator=draw).tolist()
            return example(ids, row, [int(i > length // 2) for i in range(length)] if typed else None)

        return [pack([one(row) for row in range(1 + number(6))]) for _ in range(count)]

    return make


@pytest.fixture
def shared() -> Path:
    """The folder of real models, which only some machines have."""
    folder = Path(os.environ.get("TRAINFORMER_SHARED", Path(__file__).parents[3] / "shared")) / "models"
    if not folder.is_dir():
        pytest.skip(f"no real models in {folder}")
    return folder
