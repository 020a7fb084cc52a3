"""Bundles of tiny random models of each family, and rows that they answer rightly more often than not."""

import json
import shutil
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
from trainformer.runtime.opening import opened

WORDS = [f"w{i}" for i in range(1500)]
SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
PLAIN = SMALL | {"max_position_embeddings": 64, "type_vocab_size": 2, "pad_token_id": 0}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": PLAIN,
    "roberta": SMALL | {"max_position_embeddings": 66, "type_vocab_size": 1, "pad_token_id": 1},
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64, "pad_token_id": 0},
    "modernbert": SMALL | {"max_position_embeddings": 64, "local_attention": 8, "global_attn_every_n_layers": 2,
                           "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
    "electra": PLAIN | {"embedding_size": 16},
    "albert": PLAIN | {"embedding_size": 16, "classifier_dropout_prob": 0.1},
    "mpnet": SMALL | {"max_position_embeddings": 66, "pad_token_id": 1},
    "deberta-v2": PLAIN | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8,
                           "position_biased_input": False, "type_vocab_size": 0, "share_att_key": True},
}  # fmt: skip
LABELS = ["bad", "good", "so-so"]


def tokenizer(family: str) -> Any:
    after = FAMILIES[family]["pad_token_id"] == 1
    names = ["<s>", "<pad>", "</s>", "<unk>"] if after else ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    cls, sep, pad, unk = ("<s>", "</s>", "<pad>", "<unk>") if after else ("[CLS]", "[SEP]", "[PAD]", "[UNK]")
    vocabulary = {word: i for i, word in enumerate(names + WORDS)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=unk))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    kind = "1" if FAMILIES[family].get("type_vocab_size") == 2 else "0"
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:{kind} {sep}:{kind}",
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    names_of = {"pad_token": pad, "unk_token": unk, "cls_token": cls, "sep_token": sep}
    inputs = ["input_ids", *(["token_type_ids"] if kind == "1" else []), "attention_mask"]
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=inputs, **names_of)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`checkpoint("bert")`: the folder of a random encoder whose every weight tells."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp("models") / family
            config = transformers.AutoConfig.for_model(family, vocab_size=len(WORDS) + 4, **FAMILIES[family])
            torch.manual_seed(0)
            model = transformers.AutoModel.from_config(config)
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(torch.randn(p.shape) * 0.1)
            model.save_pretrained(made[family])
            tokenizer(family).save_pretrained(made[family])
        return made[family]

    return make


@pytest.fixture
def make(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """`make("bert", "text_classification", pooling="mean")`: the folder of a bundle."""

    def bundle(
        family: str = "bert", name: str = "text_classification", decision: Decision | None = None, **settings: Any
    ) -> Path:
        of_model = {k: settings.pop(k) for k in ("pooling", "packing") if k in settings}
        if name in ("text_classification", "multi_label", "text_pair"):
            settings.setdefault("labels", LABELS)
        task = registry.build(Task, name, settings)
        if name == "regression":
            for row, target in enumerate([1.0, 2.0, 4.0, 8.0]):
                task.observe(task.parse(("w1",), target, row, 1.0))
            task.settle()
        torch.manual_seed(1)
        model, backbone, _ = registry.build(Backbone, "pretrained", {"name": str(checkpoint(family)), **of_model}).load(task)
        with torch.no_grad():
            for p in model.head.parameters():
                p.copy_(torch.randn(p.shape) * model.body.width**-0.5)
        columns = Columns("text", "other" if task.pair else None, None if task.embeds else "label")
        folder = tmp_path / f"bundle-{family}-{len(list(tmp_path.iterdir()))}"
        tokens = HubTokens.load(str(checkpoint(family)))
        contents = Contents(task, backbone, model, tokens, decision or Decision(), columns, 64, {"fingerprint": "f"})
        contents.pages["README.md"] = "# A model\n"
        write(folder, contents)
        return folder

    return bundle


def sentences(count: int, seed: int = 3) -> list[str]:
    """Texts of 1 to 80 words, in no order of length: some are cut."""
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 80, (count,), generator=draw).tolist()
    return [" ".join(f"w{i}" for i in torch.randint(len(WORDS), (n,), generator=draw).tolist()) for n in sizes]


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., Path]:
    """`rows(folder)`: a file of rows labelled as the bundle answers them, each fifth one otherwise."""

    def write_rows(folder: Path, count: int = 60) -> Path:
        texts = sentences(count)
        said = [answer["label"] for answer in Bundle.open(folder).predict(texts)]
        path = tmp_path / "validation.jsonl"
        labels = [LABELS[i % 3] if i % 5 == 0 else label for i, label in enumerate(said)]
        lines = [{"text": t, "label": label} for t, label in zip(texts, labels, strict=True)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return path

    return write_rows


@pytest.fixture(params=["with PyTorch", "without"])
def open_it(request: pytest.FixtureRequest) -> Callable[[Path], Any]:
    """Opens the bundle of a graph by either way."""
    return Bundle.open if request.param == "with PyTorch" else opened


EXPORTED: dict[str, Path] = {}


@pytest.fixture
def exported(make: Any, cli: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`exported("onnx")`: a bundle with a graph of a kind, a copy; written once for all tests."""

    def copy(to: str) -> Path:
        if to not in EXPORTED:
            out = tmp_path_factory.mktemp("exported") / "graph"
            assert cli("export", make(), "--to", to, "--out", out).code == 0
            EXPORTED[to] = out
        shutil.copytree(EXPORTED[to], tmp_path / "graph")
        return tmp_path / "graph"

    return copy


@pytest.fixture(autouse=True)
def _once(graphs_once: None) -> None:
    """What is exported is the same for each test."""
