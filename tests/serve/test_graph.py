"""An exported graph is a bundle as others are: it is served, and gives no states to watch."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from trainformer.bundle import Bundle
from trainformer.bundle.states import watched
from trainformer.models.whole import whole_model

TEXTS = ["a good film", "so bad", "good and bad", "fine"]


def test_a_body_without_states_is_not_watched(bundle: Path) -> None:
    """It gives the head's outputs in their place."""
    opened = Bundle.open(bundle)
    opened.model = whole_model(lambda given: torch.tensor([[0.0, 1.0, 0.0]] * len(given["input_ids"])), 0, opened.task)
    with watched(opened.model, [0]) as states:
        assert [answer["label"] for answer in opened.predict(TEXTS)] == ["good"] * 4
    assert states.rounded() == []


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_graph_is_served(to: str, bundle: Path, running: Any, cli: Any, tmp_path: Path) -> None:
    """Each batch is asked for a state; all are answered, as by the bundle that the graph was made of."""
    for name in ("onnxscript", {"onnx": "onnxruntime"}.get(to, to)):
        pytest.importorskip(name, reason=f"no {name} here: pip install 'trainformer[onnx,openvino]'")
    done = cli("export", bundle, "--to", to, "--out", tmp_path / "graph")
    assert done.code == 0, done.err

    async def main() -> Any:
        async with running({"reviews": tmp_path / "graph"}, embed_every=1) as it:
            return [await it.predict(TEXTS) for _ in range(3)], await it.predict("a good film", explain=True)

    answers, told = asyncio.run(main())
    assert [w["start"] for w in told.json()["predictions"][0]["explanation"]["words"]] == [0, 2, 7]
    for response in answers:
        assert response.status_code == 200, response.text
        for found, wanted in zip(response.json()["predictions"], Bundle.open(bundle).predict(TEXTS), strict=True):
            assert found["label"] == wanted["label"] and found["scores"] == pytest.approx(wanted["scores"], abs=1e-4)
