"""The weights of a checkpoint: which belong to the encoder, and how ours are called in the library."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from trainformer.core.errors import UserError
from trainformer.core.roles import Model
from trainformer.models.encoder import Encoder
from trainformer.models.families import HEADS, OWN_ADDED, OWN_HEAD, UNIFORM_ATTENTION, is_head
from trainformer.models.fill_head import FillHead
from trainformer.models.heads import SequenceHead
from trainformer.nn.surgery import ADDED

SHOWN = 8


class Unfilled(TorchFunctionMode):
    """Modules that are made inside draw no weights: they are about to be read.

    In this thread alone; the library's `no_init_weights` would take the weights of every thread, and of all that come later where
    two threads leave it in another order than they came. What is drawn until it lies within bounds is one number at once.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (init.normal_, init.uniform_, init.kaiming_uniform_):
            return args[0] if args else kwargs["tensor"]
        if func in (Tensor.normal_, Tensor.uniform_):
            given = args[1:2] or [kwargs[n] for n in ("mean", "from") if n in kwargs]
            return args[0].fill_(given[0] if given else 0.0)
        return func(*args, **kwargs)


def library_names(model: Model) -> dict[str, str]:
    """Our name of each weight -> the library's, in which a bundle stores it."""
    body, head = model.body, model.head
    assert isinstance(body, Encoder) and isinstance(head, SequenceHead | FillHead)
    prefix = body.encoder.base_model_prefix
    equal = isinstance(head, FillHead) or (head.paths and maps_to_library(body.encoder.config, head.pooling))
    names = {}
    for ours in model.state_dict():
        if ours.startswith("body.encoder."):
            names[ours] = ours.replace("body.encoder", prefix, 1)
        elif ours.startswith(f"body.{ADDED}."):
            names[ours] = ours.replace(f"body.{ADDED}", OWN_ADDED, 1)
        else:
            _, _, index, inner = ours.split(".", 3)
            path = head.paths[int(index)]
            names[ours] = f"{path}.{inner}" if equal else f"{OWN_HEAD}.{path}.{inner}"
    return names


def own_names(model: Model) -> dict[str, str]:
    """Our name of each weight -> the one without what wraps its layer; what is the same for every adapter is left out."""
    return {name: name.replace(".base_layer.", ".") for name in model.state_dict() if ".ranknum." not in name}


def fill(model: Model, tensors: dict[str, Tensor], names: dict[str, str], where: Path) -> None:
    """Loads weights, `names` telling how each of ours is called. Raises UserError listing those that are missing."""
    absent = [theirs for theirs in names.values() if theirs not in tensors]
    if absent:
        raise UserError(f"weights are missing: {listed(absent)}.", where=str(where))
    model.load_state_dict({ours: tensors[theirs] for ours, theirs in names.items()}, strict=False)


def maps_to_library(config: Any, pooling: str | None) -> bool:
    """Whether the library's classifier can compute what ours does."""
    if config.model_type not in HEADS:
        return False
    if hasattr(config, "classifier_pooling"):
        return bool(pooling == config.classifier_pooling)
    return pooling == "cls" or extra_layer(config, pooling)


def extra_layer(config: Any, pooling: str | None) -> bool:
    """Whether the mean is written as one more layer (models/heads.py)."""
    return pooling == "mean" and config.model_type in UNIFORM_ATTENTION


def new_weights(library: nn.Module, info: dict[str, Any], where: str) -> list[str]:
    """The head's weights that a checkpoint did not give. Raises UserError listing those of the encoder that do not fit.

    `info` is what the library tells of its loading: missing, unexpected and mismatched names.
    """
    missing = [name for name in info["missing_keys"] if not name.endswith(("position_ids", "inv_freq"))]
    mismatched = [m if isinstance(m, str) else m[0] for m in info["mismatched_keys"]]
    for words, found in (("missing", missing), ("unexpected", info["unexpected_keys"]), ("of another shape", mismatched)):
        bad = sorted(name for name in found if not _of_head(name, library))
        if bad:
            raise UserError(f"{len(bad)} weights of the encoder are {words}: {listed(bad)}.", where=where)
    return [*missing, *mismatched]


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def refuse_pickle(folder: Path) -> None:
    """Raises UserError for a folder whose weights are a pickle: to read one is to run what is in it."""
    pickles = sorted(p.name for p in folder.glob("*.bin") if p.name.startswith("pytorch_model"))
    if pickles and not any(folder.glob("*.safetensors")):
        raise UserError(
            f"its weights are a pickle ({pickles[0]}), which may run code when it is read.",
            where=str(folder),
            fix="Take a version with model.safetensors, or save it again as one where you trust it.",
        )


def _of_head(name: str, library: Any) -> bool:
    own = library.base_model is not library and not name.startswith(f"{library.base_model_prefix}.")
    return is_head(name) or (own and any(name == n for n, _ in library.named_parameters()))
