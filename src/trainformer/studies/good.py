"""A good space where none is given: around what the default recipe settled on, and only over what the user left open."""

from typing import Any

from trainformer.core.config import METHODS

LR_FACTOR = 4.0
"""The rate is searched from a quarter to four times that of the recipe."""
MOST_SMOOTHING = 0.1


def space(settled: dict[str, Any], given: list[str]) -> dict[str, Any]:
    """The `search` section around a settled configuration; `given` are the full names that the user has set."""
    train, task, methods = settled["train"], settled["task"], settled["method"]
    epochs = int(train["epochs"])
    found: dict[str, Any] = {
        "train.lr": {"log": [train["lr"] / LR_FACTOR, train["lr"] * LR_FACTOR]},
        "train.epochs": {"int": [max(1, epochs // 2), epochs + max(1, epochs // 2)]},
        "train.weight_decay": {"log": [1e-3, 0.1]},
    }
    if "label_smoothing" in task:
        found["task.label_smoothing"] = {"float": [0.0, MOST_SMOOTHING]}
    if list(methods) == list(METHODS):
        found["method"] = {"choice": [list(METHODS), ["llrd", "fgm", "ema"], ["llrd", "rdrop", "ema"]]}
    if "llrd" in methods:
        found["method.llrd.decay"] = {"float": [0.7, 1.0]}
    return {name: one for name, one in found.items() if not any(name == g or g.startswith(f"{name}.") for g in given)}
