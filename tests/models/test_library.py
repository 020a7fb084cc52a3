"""What a bundle holds is the transformers library's own classifier: it opens there with equal logits."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from trainformer.bundle import Bundle
from trainformer.bundle.writing import Contents, write
from trainformer.core import registry
from trainformer.core.roles import Backbone, Decision, Task
from trainformer.data.columns import Columns
from trainformer.data.tokens import HubTokens
from trainformer.models.weights import Unfilled

TEXTS = ["w1 w2 w3", "w4", "w5 " * 30, "w6 w7 w8 w9 w1 w2 unknown", "w3 w2 w1"]
PAIRS = [("w1 w2 w3", "w4 w5"), ("w4", "w7 w8 w9 w3"), ("w5 " * 12, "w1 " * 9), ("w2", "w2")]
REAL_TEXTS = ["A film to see twice.", "Bad", "The plot is thin, the actors are not: " * 12, "No. No! No?", "别去看这部电影"]
LABELS = ["bad", "good", "so-so"]
MEAN_AS_A_LAYER = ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra"]
OWN_MEAN = ["albert", "deberta-v2", "mpnet"]


def shipped(source: Path, folder: Path, task: str = "text_classification", **settings: Any) -> tuple[Bundle, bool]:
    """A bundle of the checkpoint with a head of random weights, and whether it says that the library opens it."""
    torch.manual_seed(0)
    made = registry.build(Task, task, {"labels": LABELS})
    backbone = registry.build(Backbone, "pretrained", {"name": str(source), **settings})
    model, settled, _ = backbone.load(made)
    with torch.no_grad():
        for p in model.head.parameters():
            p.copy_(torch.randn(p.shape) * model.body.width**-0.5)  # keeps the size of what it reads
    write(folder, Contents(made, settled, model, HubTokens.load(str(source)), Decision(), Columns("text"), 64, {}))
    return Bundle.open(folder), settled.opens_in_library(model)


def test_bundles_that_open_in_many_threads_leave_new_weights_alone(checkpoint: Any, tmp_path: Path) -> None:
    """What PyTorch fills weights with is the process's: none of them may take it from another, nor keep it."""
    shipped(checkpoint("bert", "MaskedLM"), tmp_path / "bundle")
    wanted = Bundle.open(tmp_path / "bundle").logits(TEXTS)

    def opened(_: int) -> tuple[Tensor, Tensor]:
        new = torch.nn.Linear(8, 8).weight
        return Bundle.open(tmp_path / "bundle").logits(TEXTS), new

    names = [name for name in dir(torch.nn.init) if name.endswith("_") and not name.startswith("_")]
    before = [getattr(torch.nn.init, name) for name in names]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(opened, range(64)))
    assert [getattr(torch.nn.init, name) for name in names] == before and len(names) > 10
    for logits, new in found:
        assert torch.equal(logits, wanted)
        assert 0 < float(new.detach().abs().max()) <= 8**-0.5


def test_no_way_to_fill_draws_a_number_where_none_is_needed() -> None:
    """All those of PyTorch that modules begin with: some draw until what they have lies within bounds."""
    names = [n for n in dir(torch.nn.init) if n.endswith("_") and not n.startswith("_") and n != "sparse_"]
    given = {"constant_": {"val": 1.0}, "trunc_normal_": {"mean": 1.0, "a": -3.0, "b": 3.0}}
    state = torch.get_rng_state()
    with Unfilled():
        for name in names:
            shape = (4, 4, 3) if name == "dirac_" else (4, 4)
            getattr(torch.nn.init, name)(torch.empty(shape), **given.get(name, {}))
        torch.nn.init.trunc_normal_(torch.empty(9), mean=0.0, std=1.0, a=1.0, b=9.0)
        assert torch.nn.LayerNorm(3).weight.tolist() == [1.0] * 3
    assert len(names) > 10 and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_a_bundle_opens_without_a_random_number(family: str, checkpoint: Any, tmp_path: Path) -> None:
    shipped(checkpoint(family, "MaskedLM"), tmp_path / "bundle")
    state = torch.get_rng_state()
    Bundle.open(tmp_path / "bundle")
    assert torch.equal(torch.get_rng_state(), state)


@torch.no_grad()
def library_logits(folder: Path, texts: list[Any]) -> Tensor:
    """All texts as one padded batch through the library's classifier."""
    words = transformers.AutoTokenizer.from_pretrained(folder)
    model, info = transformers.AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert [model.config.id2label[i] for i in range(3)] == LABELS
    columns = list(zip(*texts, strict=True)) if isinstance(texts[0], tuple) else [texts]
    inputs = words(*map(list, columns), padding=True, truncation=True, max_length=64, return_tensors="pt")
    logits: Tensor = model.eval()(**inputs).logits
    return logits


@pytest.mark.parametrize("family", [*MEAN_AS_A_LAYER, *OWN_MEAN, "modernbert"])
@pytest.mark.parametrize("task", ["text_classification", "text_pair"])
def test_default_pooling_opens(family: str, task: str, checkpoint: Any, tmp_path: Path) -> None:
    bundle, says = shipped(checkpoint(family, "MaskedLM"), tmp_path / "bundle", task, pooling="cls")
    assert says and bundle.facts["opens_in_transformers"]
    texts = PAIRS if task == "text_pair" else TEXTS
    torch.testing.assert_close(bundle.logits(texts), library_logits(tmp_path / "bundle", texts), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", [*MEAN_AS_A_LAYER, "modernbert"])
@pytest.mark.parametrize("task", ["text_classification", "text_pair"])
def test_mean_pooling_opens(family: str, task: str, checkpoint: Any, tmp_path: Path) -> None:
    bundle, says = shipped(checkpoint(family), tmp_path / "bundle", task, pooling="mean")
    assert says
    texts = PAIRS if task == "text_pair" else TEXTS
    torch.testing.assert_close(bundle.logits(texts), library_logits(tmp_path / "bundle", texts), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("family", "pooling"), [*((f, "mean") for f in OWN_MEAN), ("bert", "max"), ("modernbert", "max")])
def test_what_the_library_cannot_compute_is_said(family: str, pooling: str, checkpoint: Any, tmp_path: Path) -> None:
    bundle, says = shipped(checkpoint(family), tmp_path / "bundle", pooling=pooling)
    assert not says and not bundle.facts["opens_in_transformers"]
    body = transformers.AutoModel.from_pretrained(tmp_path / "bundle")
    assert torch.equal(body.get_input_embeddings().weight, bundle.model.body.embed().weight)


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "e5-small-zh-en"])
@pytest.mark.parametrize("pooling", [None, "cls"])
def test_real_models_open(name: str, pooling: str | None, shared: Path, tmp_path: Path) -> None:
    if not (shared / name).is_dir():
        pytest.skip(f"no {name}")
    bundle, says = shipped(shared / name, tmp_path / "bundle", pooling=pooling)
    assert says
    theirs = library_logits(tmp_path / "bundle", REAL_TEXTS)
    torch.testing.assert_close(bundle.logits(REAL_TEXTS), theirs, atol=1e-5, rtol=0)
