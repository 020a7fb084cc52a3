"""The process that holds a model: reads batches from its input, answers on its output, ends when its input does.

python -m trainformer.serve.worker BUNDLE [--threads N] [--nice N]
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

Reply = dict[str, Any]


def asker(folder: str) -> Callable[[dict[str, Any]], Reply]:
    """What answers `{"texts": [[...], ...], "embed": 0 or 1}` with a bundle; an error of the model is an answer, too."""
    from trainformer.bundle import Bundle
    from trainformer.bundle.reference import watched

    bundle = Bundle.open(folder)

    def ask(asked: dict[str, Any]) -> Reply:
        began = time.perf_counter()
        texts = [tuple(each) for each in asked["texts"]]
        try:
            with watched(bundle.model, asked["embed"]) as states:
                answers = bundle.predict(texts)
        except Exception as error:  # the service tells whose request it was
            return {"error": f"{type(error).__name__}: {error}"[:300]}
        return {"answers": answers, "embeddings": states.rounded(), "seconds": time.perf_counter() - began}

    return ask


def main() -> None:
    """Runs until the service closes the input. The service alone ends it: a signal to the group must not lose requests."""
    words = argparse.ArgumentParser()
    words.add_argument("bundle")
    words.add_argument("--threads", type=int)
    words.add_argument("--nice", type=int, default=0)
    given = words.parse_args()
    from trainformer.serve import frames

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand among the answers
    os.nice(given.nice)
    ask = _opened(given)
    output.write(frames.frame({"ready": True}))
    output.flush()
    while (asked := frames.read(sys.stdin.buffer)) is not None:
        output.write(frames.frame(ask(asked)))
        output.flush()


def _opened(given: argparse.Namespace) -> Callable[[dict[str, Any]], Reply]:
    """The bundle, opened and warm: the first call of a model is slower than the others."""
    import torch

    if given.threads is not None:
        torch.set_num_threads(given.threads)
    return asker(given.bundle)


if __name__ == "__main__":
    main()
