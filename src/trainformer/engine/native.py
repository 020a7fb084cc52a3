"""Whether a run uses the kernels in C, and what it says of that."""

from typing import TYPE_CHECKING

from trainformer.core.errors import UserError
from trainformer.nn.native import speed_up
from trainformer.nn.native.library import NoLibrary, load

if TYPE_CHECKING:
    from trainformer.engine.engine import Engine


def use_kernels(engine: "Engine") -> tuple[bool, list[str]]:
    """Puts the kernels into the model if the settings want them; whether they are there, and what to say of it.

    All processes of a run use them, or none. Raises UserError where they are asked for and cannot be had.
    """
    wanted = engine.settings.native
    foreign = _foreign(engine)
    if wanted == "off" or (wanted == "auto" and foreign):
        return False, []  # there is nothing they could be missed for
    reason = foreign or _missing(engine)
    (without,) = engine.ranks.add(int(reason is not None))
    if not without:
        speed_up(engine.model.body)
        return True, ["kernels: compiled on this machine, for bfloat16 (--set train.native=off: plain PyTorch)"]
    reason = reason or f"{without} of the processes have none"
    if wanted == "on":
        raise UserError(f"no kernels: {reason}.", where="train.native", fix="Set it to auto, or see docs/native.md.")
    return False, [f"kernels: none, {reason}; plain PyTorch instead"]


def _foreign(engine: "Engine") -> str | None:
    """What the run computes that is not theirs."""
    if engine.device.type != "cpu":
        return f"they are for a CPU, and this run is on {engine.device.type}"
    if not engine.half:
        return "they are for bfloat16, and this run is in float32"
    return None


def _missing(engine: "Engine") -> str | None:
    """What this run or this machine lacks."""
    if engine.settings.shard and engine.ranks.world > 1:
        return "train.shard puts weights together and takes them apart unseen"
    try:
        load()
    except NoLibrary as error:
        return str(error)
    return None
