"""Trains Transformers, from a file of texts to a model that can be trusted.

    from trainformer import Bundle, train
    result = train("reviews.csv", out="run")
    result.bundle.predict("a film to see twice")

Names are loaded when they are first used, so that `trainformer --help` answers at once.
"""

import importlib
import importlib.metadata
import typing

if typing.TYPE_CHECKING:
    from trainformer.api import check as check
    from trainformer.api import train as train
    from trainformer.bundle import Bundle as Bundle

__version__ = importlib.metadata.version("trainformer")
__all__ = ["Bundle", "__version__", "check", "train"]
_HOMES = {"Bundle": "trainformer.bundle", "check": "trainformer.api", "train": "trainformer.api"}


def __getattr__(name: str) -> typing.Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trainformer' has no attribute {name!r}; it has {', '.join(__all__)}")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        from trainformer.core.errors import of_training

        raise of_training(error) or error from error
