"""Trains in forked children that are killed, and goes on until they end: a process of its own, so that no test forks threads.

    python forks.py SPEC.json      # {"config": ..., "folder": ..., "kills": [share or ["module:name", call, step], ...]}

A kill ends the process after a share of the computing of the run that was left alone, or at the n-th call of a function (of
an engine at a step, if one is given), before it does anything. A run that ended before its kill is kept and the next one begins.
Prints one line of JSON: the places that were never reached, and the number of runs.
"""

import importlib
import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainformer import run as running
from trainformer.core import config as settings
from trainformer.engine import engine, probe  # noqa: F401
from trainformer.trust import calibrate, report  # noqa: F401


def kill_at(place: str, call: int, step: int | None = None) -> None:
    """This process ends at the n-th call of "module:name" or "module:Class.name"."""
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *inner, name = path.split(".")
    for each in inner:
        owner = getattr(owner, each)
    real, seen = getattr(owner, name), [0]

    def counted(*given: Any, **words: Any) -> Any:
        seen[0] += step is None or given[0].progress.step == step
        if seen[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **words)

    setattr(owner, name, counted)


def child(config: dict[str, Any], out: Path, kill: Any) -> int:
    """The process of a training that goes on; `kill`: seconds of computing after which it ends, or a place where it does."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        handle = os.open(out.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1), os.dup2(handle, 2)
        if isinstance(kill, list):
            kill_at(*kill)
        elif kill is not None:
            signal.setitimer(signal.ITIMER_PROF, kill)  # nobody handles SIGPROF: the process is gone, as by SIGKILL
        running.train(running.Run(settings.parse(config), out, lambda line: print(line, flush=True)), resume=True)
        out.with_suffix(".modules").write_text("\n".join(sys.modules))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(pid: int) -> tuple[bool, float]:
    """Whether a child ended by itself, not by a signal, and its seconds of computing. Raises if it failed."""
    _, status, used = os.wait4(pid, 0)
    if not os.WIFSIGNALED(status) and status:
        raise RuntimeError("a training failed")
    return not os.WIFSIGNALED(status), used.ru_utime + used.ru_stime


def main(spec: dict[str, Any]) -> None:
    folder, config = Path(spec["folder"]), spec["config"]
    life = 0.0
    for name in ("whole", "again"):
        _, life = ended(child(config, folder / name, None))
        for module in (folder / f"{name}.modules").read_text().split():  # so that the next children need not load them
            with suppress(ImportError):
                importlib.import_module(module)
    runs, missed = 1, []
    for kill in spec["kills"]:
        while ended(child(config, folder / f"killed-{runs}", kill * life if isinstance(kill, float) else kill))[0]:
            if isinstance(kill, list):
                missed.append(kill)
                break
            runs += 1
    assert ended(child(config, folder / f"killed-{runs}", None))[0]
    print(json.dumps({"missed": missed, "runs": runs}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
