"""The hub of models and data sets: whether it answers is found out once, so that nobody waits for a library's retries."""

import importlib
import os
import socket
from functools import cache
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

WAIT_S = 3.0


@cache
def reachable() -> bool:
    """Whether the hub answers; if not, the libraries that ask it look into their caches alone from now on.

    Behind a proxy it is taken to answer: only a whole request could tell.
    """
    constants: Any = importlib.import_module("huggingface_hub.constants")  # comes with transformers and with datasets
    if constants.is_offline_mode():
        return False
    address = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    if {"https", "all"} & set(getproxies()):
        return True
    try:
        socket.create_connection((address.hostname or "", address.port or 443), WAIT_S).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True
        return False
    return True
