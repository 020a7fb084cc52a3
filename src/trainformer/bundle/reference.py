"""What the training data looked like, in short, kept in a bundle: a service holds what it is asked against it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainformer.core.arrays import Array, array
from trainformer.core.stored import arrays

FILE = "reference.safetensors"
MOST_ROWS, MOST_EMBEDDED = 2000, 256


@dataclass(frozen=True)
class Reference:
    """Samples of the training rows (tokens "N", unknown share "N") and of the answers on validation (score "V", number "V",
    mean states "E D"), with how often each label was said there. Empty where the task has none of them."""

    lengths: Array
    unknown: Array
    scores: Array
    numbers: Array
    embeddings: Array
    labels: dict[str, int] = field(default_factory=dict)


def words(label: Any) -> list[str]:
    """The labels of an answer: none of a number, one, or several."""
    return [label] if isinstance(label, str) else [str(w) for w in label] if isinstance(label, list) else []


def spread(count: int, most: int) -> Array:
    """At most so many places among `count`, evenly spread."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(np.int64)


def write(folder: Path, found: Reference) -> None:
    """One file of a bundle that is being written."""
    from safetensors.numpy import save_file

    types = {"lengths": np.int32, "unknown": np.float32, "scores": np.float32, "numbers": np.float32, "embeddings": np.float16}
    kept = {name: np.ascontiguousarray(array(getattr(found, name)), kind) for name, kind in types.items()}
    save_file(kept, folder / FILE, {"labels": json.dumps(found.labels)})
    (folder / FILE).chmod((folder / "config.json").stat().st_mode)


def read(folder: Path) -> Reference | None:
    """The reference of a bundle; None for one that was written without. Raises ValueError for a file that is none."""
    if not (folder / FILE).is_file():
        return None
    found, metadata = arrays(folder / FILE)
    names = ("lengths", "unknown", "scores", "numbers", "embeddings")
    return Reference(**{name: found[name].astype(np.float32) for name in names}, labels=json.loads(metadata["labels"]))
