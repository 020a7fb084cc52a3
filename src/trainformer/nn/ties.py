"""A weight that has several names is written once, under the first of them: files of weights refuse shared memory."""

from typing import Any

from torch import Tensor, nn


def write_once(model: nn.Module) -> None:
    """From here on `state_dict` leaves later names of a weight out, and `load_state_dict` does without them."""
    model.register_state_dict_post_hook(_leave_out)
    model.register_load_state_dict_pre_hook(_fill_in)


def later_names(model: nn.Module) -> dict[str, str]:
    """Each later name of a weight -> its first one."""
    first: dict[int, str] = {}
    found = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            found[name] = first[id(parameter)]
    return found


def _leave_out(model: nn.Module, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    for name in later_names(model):
        state.pop(prefix + name, None)


def _fill_in(model: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name, first in later_names(model).items():
        if prefix + first in state:
            state.setdefault(prefix + name, state[prefix + first])
