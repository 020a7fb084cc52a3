"""A folder with one of our Transformers, or one of the library's that ours can be: read and written by our names."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainformer.core.errors import UserError
from trainformer.models.design import Design
from trainformer.models.families import OWN_ADDED, OWN_HEAD
from trainformer.models.foreign import OURS, PREFIX, Place, family, places, written
from trainformer.models.foreign_config import Marks, config_of, design_of
from trainformer.models.weights import refuse_pickle
from trainformer.nn.surgery import ADDED

CONFIG, WEIGHTS = "config.json", "model.safetensors"
OWN = {f"body.{ADDED}.": f"{OWN_ADDED}.", "head.": f"{OWN_HEAD}."}
"""Ours -> how names begin that the library's models have not."""


def config(folder: Path) -> dict[str, Any]:
    """The description in a folder; empty where there is none."""
    path = folder / CONFIG
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def design(folder: Path) -> Design:
    """What a folder holds. Raises UserError where that is no model of ours."""
    found = config(folder)
    if not found:
        raise UserError(f"this folder is no model: it has no {CONFIG}.", where=str(folder))
    return design_of(found, str(folder))


def read(folder: Path) -> dict[str, Tensor]:
    """The weights in a folder by our names. Raises UserError where there are none that can be read."""
    refuse_pickle(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise UserError(f"its weights cannot be read: {error}", where=str(folder)) from error
    kind = config(folder)["model_type"]
    if kind == OURS:
        return tensors
    found = {ours: tensors[theirs] for theirs, ours in _own(tensors).items()}
    for ours, place in places(design(folder), kind).items():
        bare = place.name.removeprefix(PREFIX[kind])  # a body that was stored without a head has no prefix
        name = place.name if place.name in tensors else bare
        if name in tensors:
            found[ours] = Place(name, place.part, place.parts, place.transposed, place.led).read(tensors).float()
    return found


def _own(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Theirs -> ours, of the names that the library's models have not."""
    return {n: ours + n.removeprefix(theirs) for n in tensors for ours, theirs in OWN.items() if n.startswith(theirs)}


def write(folder: Path, whole: Design, weights: dict[str, Tensor], speaks: bool, marks: Marks) -> None:
    """config.json and weights, as the library reads them where it has such a model. `speaks`: the head tells tokens."""
    kind = family(whole)
    (folder / CONFIG).write_text(json.dumps(config_of(whole, kind, marks), indent=2) + "\n", encoding="utf-8")
    kept = {ours: Place(ours) for ours in weights}
    if kind is not None:
        known = places(whole, kind, speaks)
        kept = {ours: known.get(ours) or Place(_renamed(ours)) for ours in weights}
    save_file(written(weights, kept), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)  # it is written for its owner alone


def _renamed(ours: str) -> str:
    return next(theirs + ours.removeprefix(own) for own, theirs in OWN.items() if ours.startswith(own))
