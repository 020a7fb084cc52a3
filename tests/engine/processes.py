"""Several processes of `trainformer` that speak over loopback, as torchrun would start them. A server holds the imports."""

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

import torch
import torch.distributed as dist

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["trainformer.run", "trainformer.cli", "trainformer.engine.shard"])
SECONDS = 300
"""After so long a process is killed and its test fails."""


@dataclass(frozen=True)
class Ended:
    """How the processes ended, in the order of ranks: exit codes (minus the signal for one that was killed), standard error."""

    codes: list[int]
    told: list[str]
    seconds: float
    """From the end of the first process to the end of the last."""

    @property
    def messages(self) -> list[str]:
        """The lines that say why a run ends, of all processes."""
        starts = ("error: ", "stopped by ", "another process ", "Traceback")
        return [line for text in self.told for line in text.splitlines() if line.startswith(starts)]


def together(folder: Path, words: Sequence[object], world: int = 2, **environment: str) -> Ended:
    """Runs `trainformer WORDS` in `world` processes until all have ended."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    group = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port,
             "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": 0} if world > 1 else {}  # fmt: skip
    began, started = time.monotonic(), []
    for rank in range(world):
        place = {"RANK": rank, "LOCAL_RANK": rank} if world > 1 else {}
        told = folder / f"told.{rank}"
        variables = {k: str(v) for k, v in (group | place | environment).items()}
        process = CONTEXT.Process(target=_main, args=([str(w) for w in words], variables, str(told), str(folder)))
        process.start()
        started.append(process)
    sentinels, ends = [p.sentinel for p in started], []
    while sentinels and time.monotonic() < began + SECONDS:
        for sentinel in wait(sentinels, timeout=1):
            sentinels.remove(sentinel)
            ends.append(time.monotonic())
    for process in started:
        if process.is_alive():  # the number of one that has ended may be another's by now
            process.kill()
        process.join()
    codes = [int(p.exitcode or 0) for p in started]
    return Ended(codes, [(folder / f"told.{r}").read_text() for r in range(world)], ends[-1] - ends[0] if ends else SECONDS)


def _main(words: list[str], variables: dict[str, str], told: str, modules: str) -> None:
    os.environ.update(variables)
    with open(told, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from trainformer.cli import main

    torch.set_num_threads(1)
    sys.path.insert(0, modules)
    sys.argv = ["trainformer", *words]
    main()
