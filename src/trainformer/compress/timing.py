"""How fast two bundles answer the same texts, in turn in one process: latency of one text, texts a second, bytes."""

import time
from statistics import median, quantiles
from typing import Any

import torch

from trainformer.bundle import Bundle
from trainformer.core.batch import Example
from trainformer.models.onnx import Session
from trainformer.models.openvino import Asked
from trainformer.models.whole import Whole

SINGLE, MANY, ROUNDS, REST_S = 100, 512, 3, 0.2
"""The threads of a library look out for work after an answer and take the cores from the other's for a while: hence the rest."""


def model_bytes(bundle: Bundle) -> int:
    """Bytes of the weights, or of the graph that holds them."""
    body = bundle.model.body
    if isinstance(body, Whole) and isinstance(body.ask, Session):
        return body.ask.path.stat().st_size
    if isinstance(body, Whole) and isinstance(body.ask, Asked):
        return body.ask.session.bytes
    return sum(p.numel() * p.element_size() for p in bundle.model.parameters())


def beside(before: Bundle, after: Bundle, examples: list[Example]) -> dict[str, Any]:
    """Milliseconds (p50, p95) of single texts, texts a second of many, bytes; both bundles in turn, tokenising included."""
    both = {"before": before, "after": after}
    step = max(1, len(examples) // SINGLE)
    single, many = examples[::step][:SINGLE], examples[:MANY]
    alone: dict[str, list[float]] = {name: [] for name in both}
    together: dict[str, list[float]] = {name: [] for name in both}
    for bundle in both.values():
        _seconds(bundle, many[:32])
    for turn in range(ROUNDS):
        for name in sorted(both, reverse=bool(turn % 2)):
            time.sleep(REST_S)
            _seconds(both[name], single[:1])
            alone[name] += [1000 * _seconds(both[name], [item]) for item in single[turn::ROUNDS]]
            together[name].append(len(many) / _seconds(both[name], many))
    return {
        "threads": torch.get_num_threads(),
        "single_texts": len(single),
        "many_texts": len(many),
        **{
            name: {
                "model_bytes": model_bytes(bundle),
                "p50_ms": median(alone[name]),
                "p95_ms": _p95(alone[name]),
                "texts_a_second": median(together[name]),
            }
            for name, bundle in both.items()
        },
    }


def _p95(values: list[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


def _seconds(bundle: Bundle, examples: list[Example]) -> float:
    start = time.perf_counter()
    for _ in bundle.stream(examples):
        pass
    return time.perf_counter() - start
