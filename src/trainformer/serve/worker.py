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


def asker(folder: str, threads: int | None = None) -> Callable[[dict[str, Any]], Reply]:
    """What answers `{"texts": [[...], ...], "embed": 0 or 1}` with a bundle; an error of the model is an answer, too."""
    answer = _answerer(folder, threads)

    def ask(asked: dict[str, Any]) -> Reply:
        began = time.perf_counter()
        texts = [tuple(each) for each in asked["texts"]]
        try:
            answers, embeddings = answer(texts, asked["embed"])
        except Exception as error:  # the service tells whose request it was
            return {"error": f"{type(error).__name__}: {error}"[:300]}
        return {"answers": answers, "embeddings": embeddings, "seconds": time.perf_counter() - began}

    return ask


def _answerer(folder: str, threads: int | None) -> Callable[[list[Any], list[int]], tuple[list[Any], list[list[float]]]]:
    """(texts, rows) -> answers, and the mean states of those rows; a graph has no states."""
    from trainformer.runtime.light import Light
    from trainformer.runtime.opening import opened

    bundle = opened(folder, threads=threads)
    if isinstance(bundle, Light):
        return lambda texts, rows: (bundle.predict(texts), [])
    from trainformer.bundle.states import watched

    def answer(texts: list[Any], rows: list[int]) -> tuple[list[Any], list[list[float]]]:
        with watched(bundle.model, rows) as states:
            answers = bundle.predict(texts)
        return answers, states.rounded()

    return answer


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
    ask = asker(given.bundle, given.threads)
    output.write(frames.frame({"ready": True}))
    output.flush()
    while (asked := frames.read(sys.stdin.buffer)) is not None:
        output.write(frames.frame(ask(asked)))
        output.flush()


if __name__ == "__main__":
    main()
