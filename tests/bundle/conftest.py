"""A tiny random encoder with a word tokenizer, and bundles of it for any task."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from trainformer.bundle import Bundle
from trainformer.bundle.writing import Contents, write
from trainformer.core import registry
from trainformer.core.roles import Backbone, Decision, Task
from trainformer.data.columns import Columns
from trainformer.data.tokens import HubTokens

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT of width 16 whose every weight tells; its words are w0 to w59."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *(f"w{i}" for i in range(60))])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    model = transformers.BertModel(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape) * 0.25)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def make(encoder: Path, tmp_path: Path) -> Callable[..., Path]:
    """`make(labels=["a", "b"], pooling="max", max_tokens=16)`: the folder of a bundle; settings go to the task or the model."""

    def bundle(
        name: str = "text_classification", decision: Decision | None = None, max_tokens: int = 16, **settings: Any
    ) -> Path:
        torch.manual_seed(1)
        of_model = {k: settings.pop(k) for k in ("pooling", "packing", "dropout") if k in settings}
        if name != "regression":
            settings.setdefault("labels", ["bad", "good", "so-so"])
        task = registry.build(Task, name, settings)
        if name == "regression":
            for row, target in enumerate([1.0, 2.0, 4.0, 8.0]):
                task.observe(task.parse(("w1",), target, row, 1.0))
            task.settle()
        model, backbone, _ = registry.build(Backbone, "pretrained", {"name": str(encoder), **of_model}).load(task)
        with torch.no_grad():
            for p in model.head.parameters():
                p.add_(torch.randn(p.shape) * 0.3)
        columns = Columns("text", "other" if task.pair else None, "label")
        folder = tmp_path / f"bundle-{len(list(tmp_path.iterdir()))}"
        contents = Contents(task, backbone, model, HubTokens.load(str(encoder)), decision or Decision(), columns, max_tokens, {})
        contents.pages["README.md"] = "# A model\n"
        write(folder, contents)
        bundle.model = model  # type: ignore[attr-defined]
        return folder

    return bundle


@pytest.fixture
def opened(make: Callable[..., Path]) -> Callable[..., Bundle]:
    return lambda *args, **settings: Bundle.open(make(*args, **settings))


@pytest.fixture
def texts() -> list[str]:
    """300 texts of 0 to 40 words, in no order of length."""
    draw = torch.Generator().manual_seed(3)
    sizes = torch.randint(41, (300,), generator=draw).tolist()
    return [" ".join(f"w{i}" for i in torch.randint(60, (n,), generator=draw).tolist()) for n in sizes]
