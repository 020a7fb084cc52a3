"""Retrieval: the loss by its formula, the whole way from a file to a bundle, and gradient caching on the real loop."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from trainformer import Bundle, train
from trainformer.core.batch import cut, join
from trainformer.core.errors import UserError
from trainformer.core.roles import Decision
from trainformer.tasks.retrieval import Retrieval

THINGS = ["film", "story", "plot", "actor", "scene", "end"]
KINDS = ["good", "bad", "warm", "cold", "bright", "grim", "slow", "funny"]


def pairs(count: int) -> list[dict[str, Any]]:
    """The query names a thing and a kind, the document both among other words."""
    every = [(t, k) for k in KINDS for t in THINGS][:count]
    return [{"query": f"{k} {t}", "document": f"the {t} was so very {k} and it was one"} for t, k in every]


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return {"data.cache": str(tmp_path / "cache"), "train.precision": "float32", "model.dropout": 0}


def test_the_loss_is_cross_entropy_over_the_documents_of_the_step() -> None:
    task = Retrieval(temperature=0.5)
    examples = [task.parse((q, d), ..., i, 1.0) for i, (q, d) in enumerate([("a", "x"), ("b", "y"), ("c", "x")])]
    assert examples[0].target == examples[2].target != examples[1].target and all(0 <= e.target < 2**24 for e in examples)
    output = torch.nn.functional.normalize(torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    target = torch.tensor([e.target for e in examples])
    batch: Any = type("B", (), {"target": target})
    likeness = output[:, 0] @ output[:, 1].T / 0.5
    likeness[0, 2] = likeness[2, 0] = -torch.inf
    expected = torch.nn.functional.cross_entropy(likeness, torch.arange(3), reduction="none")
    assert torch.allclose(task.loss(output.flatten(1), batch), expected, atol=1e-6)
    scores = [a["score"] for a in task.answer(output.flatten(1), Decision())]
    assert scores == pytest.approx((output[:, 0] * output[:, 1]).sum(-1).tolist(), abs=1e-6)


def test_prefixes_stand_before_the_texts_and_change_no_identity() -> None:
    plain, e5 = Retrieval(), Retrieval(query_prefix="query: ", document_prefix="passage: ")
    one, other = (task.parse(("a", "x"), ..., 0, 1.0) for task in (plain, e5))
    assert other.texts == ("query: a", "passage: x") and one.target == other.target


@pytest.mark.parametrize("wanted", [8192, 60])
def test_from_a_file_to_a_bundle(wanted: int, tiny_model: Path, tmp_path: Path, write: Any, settings: dict[str, Any]) -> None:
    data, held = write("pairs.jsonl", pairs(48)), write("held.jsonl", pairs(48)[::3])
    more = {"train.epochs": 6, "train.lr": 3e-3, "train.micro_tokens": wanted}
    result = train(data, out=tmp_path / "run", task="retrieval", validation=held, test=held, model=str(tiny_model),
                   method=["ema"], set=settings | more)  # fmt: skip
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    before = scores["baselines"][0]
    assert before["name"] == "not fine-tuned"
    assert (
        scores["test"]["mrr"] > before["validation"]["mrr"]
        and scores["test"]["recall_at_10"] >= before["validation"]["recall_at_10"]
    )
    bundle: Bundle = result.bundle
    assert bundle.evaluate(held)["mrr"] == pytest.approx(scores["test"]["mrr"], abs=1e-6)
    near, far = bundle.predict([("good film", "the film was so very good and it was one"), ("good film", "a slow end")])
    assert near["score"] > far["score"] and near["label"] is None
    assert "cosine of their embeddings" in (tmp_path / "run" / "bundle" / "README.md").read_text()


def test_micro_batches_change_nothing(tiny_model: Path, tmp_path: Path, write: Any, settings: dict[str, Any]) -> None:
    """One step of 24 rows at once, in 3, in 24 micro-batches: loss to 1e-6, gradient to 1e-5 of its length."""
    from trainformer import build
    from trainformer.build import Run
    from trainformer.core import config

    data = write("pairs.jsonl", pairs(48))
    values = config.override({}, [f"{k}={json.dumps(v)}" for k, v in settings.items()] + ["train.step_rows=24", "train.lr=0.001"])
    values |= {"task": "retrieval", "method": ["llrd"]}
    values["model"] |= {"name": str(tiny_model)}
    values["data"] |= {"train": data, "test_share": 0}
    run = Run(config.parse(values), tmp_path / "run", lambda line: None)
    checked, _, _, prepared = build.rows(run, labelled=True)
    loop = build.engine(run, checked, prepared)[0]
    loop.model.train()
    whole, found = join(loop.plan[0]), []
    for pieces in (1, 3, 24):
        loss = loop.gradient(cut(whole, pieces))
        found.append((float(loss), torch.cat([p.grad.flatten() for p in loop.trained if p.grad is not None])))
        loop.optimizer.zero_grad(set_to_none=True)
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], abs=1e-6)
        assert (gradient - found[0][1]).norm() <= 1e-5 * found[0][1].norm()


def test_bad_input(tiny_model: Path, tmp_path: Path, write: Any, settings: dict[str, Any]) -> None:
    same = write("same.jsonl", [{"query": f"{k} film", "document": "the end"} for k in KINDS])
    with pytest.raises(UserError, match=r"all \d+ training rows have one document"):
        train(same, out=tmp_path / "a", task="retrieval", model=str(tiny_model), set=settings | {"data.test_share": 0})
    data = write("pairs.jsonl", pairs(24))
    with pytest.raises(UserError, match=r"method\.supcon: it needs one label for each row.*Use simcse"):
        train(data, out=tmp_path / "b", task="retrieval", model=str(tiny_model), method=["supcon"], set=settings)
    with pytest.raises(UserError, match=r"method\.simcse: the head of this task has no linear layer"):
        train(data, out=tmp_path / "c", task="retrieval", model=str(tiny_model), method=["simcse"], set=settings)
    assert not any((tmp_path / name).exists() for name in "abc")


@pytest.mark.slow
def test_real_documents_are_found_better_after_fine_tuning(tmp_path: Path) -> None:
    shared = Path(os.environ.get("TRAINFORMER_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    folder, model = shared / "data" / "en_retrieval_debian", shared / "models" / "e5-small-zh-en"
    if not folder.is_dir() or not model.is_dir():
        pytest.skip("the shared data and models are not there")
    files = {}
    for split, count in (("train", 1024), ("validation", 500), ("test", 500)):
        lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:count]
        (tmp_path / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        files[split] = tmp_path / f"{split}.jsonl"
    words = {"data.max_tokens": 64, "train.epochs": 1, "train.step_rows": 64, "train.micro_tokens": 1024}
    train(files["train"], out=tmp_path / "run", task="retrieval", validation=files["validation"], test=files["test"],
          model=str(model), set=words | {"data.cache": str(tmp_path / "cache")})  # fmt: skip
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    before = scores["baselines"][0]["validation"]
    assert scores["validation"]["mrr"] > before["mrr"] and scores["validation"]["recall_at_10"] > before["recall_at_10"]
