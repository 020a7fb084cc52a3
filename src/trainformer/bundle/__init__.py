"""A finished model as a folder, and the one way to ask it.

`Bundle` is loaded when it is first used: what else is here needs no PyTorch.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from trainformer.bundle.reading import Bundle as Bundle
else:

    def __getattr__(name: str) -> typing.Any:
        if name != "Bundle":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return importlib.import_module("trainformer.bundle.reading").Bundle


__all__ = ["Bundle"]
