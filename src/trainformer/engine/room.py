"""Memory on a CPU, where too much is a kill: predicted from the plan before anything large is computed, then cut or refused."""

import os
import resource
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from trainformer.core.batch import Encoded, Part, pack
from trainformer.core.errors import UserError
from trainformer.core.seeds import generator
from trainformer.engine.engine import Engine
from trainformer.engine.optim import KNOWN
from trainformer.nn.native.linear import forget

HOLES = 2.0
"""What a step takes and gives back (activations, gradients) lies in memory with holes, as no two steps are of the same sizes:
so many times the bytes were measured in processes that keep what they have freed (`core/memory.py`)."""


class Alive(TorchDispatchMode):
    """Inside, counts the bytes of all memory that tensor operations take and have not given back: now, and at most."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        there = (t for many in (model.parameters(), model.buffers()) for t in many)
        self._known = {t.untyped_storage().data_ptr() for t in there}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._see, out)
        return out

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place and place not in self._known:
            self._known.add(place)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._gone, place, size).atexit = False

    def _gone(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.now -= size


@dataclass(frozen=True)
class Cost:
    """Bytes that a pass takes: `fixed`, by token, and by token and token of the same sequence (attention)."""

    fixed: float
    token: float
    square: float

    @classmethod
    def measured(cls, engine: Engine, training: bool) -> "Cost":
        """From three small passes: one sequence (of each part) of the greatest length, two of it, two of half of it."""
        item = _sequence(engine)
        length = item.tokens
        one, two, halves = (_peak(engine, items, training) for items in ([item], [item, item], [_cut(item, 2)] * 2))
        square = max(0.0, 2 * (one - halves) / length**2)
        token = max(0.0, (two - one) / length - square * length)
        return cls(max(0.0, one - token * length - square * length**2), token, square)

    def of(self, tokens: Tensor, longest: int) -> Tensor:
        """Bytes that depend on the rows, for rows of so many tokens in sequences of at most `longest`."""
        return tokens * (self.token + self.square * tokens.clamp(max=longest))


@dataclass(frozen=True)
class Memory:
    """What a run needs, by the plan; `predict` gives bytes for any size of micro-batch."""

    engine: Engine
    training: Cost
    evaluation: Cost
    resident: int
    """Bytes that the process holds before the first step: libraries, model, averages of methods."""

    @classmethod
    def measured(cls, engine: Engine) -> "Memory":
        before = resident()
        return cls(engine, Cost.measured(engine, True), Cost.measured(engine, False), before)

    def predict(self, micro_tokens: int) -> int:
        """The most bytes that the process will hold: training while a checkpoint waits for the disk, or evaluating."""
        engine = self.engine
        slots = KNOWN[engine.settings.optimizer].slots
        weights, trained = _bytes(engine.model.state_dict().values()), _bytes(engine.trained)
        averages = _bytes(t for m in engine.job.methods.values() for t in m.state().values())
        states, copies = slots * trained, 2 * weights + slots * trained + averages
        passes = max((m.passes for m in engine.job.methods.values()), default=1)
        step = HOLES * (self.training.fixed + passes * self._heaviest(micro_tokens) + trained)
        answers = self._answers(engine.job.validation.lengths, micro_tokens)
        probe = self._answers(engine.plan.rows.lengths, micro_tokens) if engine.settings.probe else 0.0
        return int(self.resident + max(states + step + copies, states + averages + answers, probe))

    def _answers(self, lengths: Tensor, micro_tokens: int) -> float:
        """Bytes of the largest batch of an evaluation of rows of such lengths, longest first."""
        tokens = min(float(lengths.sum()), max(micro_tokens, int(lengths.max())))
        return self.evaluation.fixed + tokens * (self.evaluation.token + self.evaluation.square * self._longest)

    def _heaviest(self, micro_tokens: int) -> float:
        """Bytes of the heaviest micro-batch of any step."""
        plan = self.engine.plan
        tokens = plan.rows.lengths.double()
        cost = self.training.of(tokens, self._longest)
        most = float(cost.max())
        for epoch in range(-(-len(plan) // plan.steps_an_epoch)):
            order = plan.order(epoch)
            share = (micro_tokens / _by_step(tokens[order], plan.step_rows)).clamp(max=1.0)
            most = max(most, float((_by_step(cost[order], plan.step_rows) * share).max()))
        return most

    @property
    def _longest(self) -> int:
        return _sequence(self.engine).tokens


def make_room(engine: Engine) -> tuple[Memory, list[str]]:
    """What a run needs, and what is said: on a CPU its micro-batches are cut until it fits into what is free.

    The result of a step stays the same. Raises UserError that names the longest rows if they do not fit one by one.
    """
    memory = Memory.measured(engine)
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if engine.ranks.world > 1 else 1
    return memory, _cut_to(engine, memory, available() // sharing) if engine.device.type == "cpu" else []


def _cut_to(engine: Engine, memory: Memory, free_bytes: int) -> list[str]:
    asked, longest = engine.plan.micro_tokens, int(engine.plan.rows.lengths.max())
    size = asked
    while (needed := memory.predict(size) - memory.resident) > free_bytes and size > longest:
        size = max(longest, size // 2)
    if needed > free_bytes:
        rows = torch.argsort(engine.plan.rows.lengths, descending=True, stable=True)[:3].tolist()
        raise UserError(
            f"about {needed / 1e6:,.0f} MB more are needed, {free_bytes / 1e6:,.0f} MB are free; the longest row has "
            f"{longest} tokens ({engine.job.places(rows)}).",
            where="memory",
            fix="Lower data.max_tokens, train fewer weights (--method lora), take a smaller model, or free memory.",
        )
    if size == asked:
        return []
    engine.cut_to(size)
    return [f"micro-batches of {size} tokens instead of {asked}, which would not fit into {free_bytes / 1e6:,.0f} MB"]


def available() -> int:
    """Bytes that this process may still take, by the system and by its control group; without Linux, no limit is known."""
    found = [sys.maxsize]
    info = _text("/proc/meminfo").splitlines()
    found += [1024 * int(line.split()[1]) for line in info if line.startswith("MemAvailable:")]
    own = [line.rpartition(":")[2] for line in _text("/proc/self/cgroup").splitlines() if line.startswith("0::")]
    for place in [f"/sys/fs/cgroup{own[0]}" if own else "/sys/fs/cgroup", "/sys/fs/cgroup"]:
        limit, used = _text(f"{place}/memory.max").strip(), _text(f"{place}/memory.current").strip()
        given_back = [
            int(line.split()[1]) for line in _text(f"{place}/memory.stat").splitlines() if line.startswith("inactive_file")
        ]
        if limit.isdigit() and used.isdigit():
            found.append(max(0, int(limit) - int(used) + sum(given_back)))
    old = _text("/sys/fs/cgroup/memory/memory.limit_in_bytes").strip()
    used = _text("/sys/fs/cgroup/memory/memory.usage_in_bytes").strip()
    if old.isdigit() and used.isdigit():
        found.append(max(0, int(old) - int(used)))
    return min(found)


def resident() -> int:
    """Bytes that this process holds now; where the system does not tell, the most that it has held."""
    pages = _text("/proc/self/statm").split()
    if pages:
        return int(pages[1]) * os.sysconf("SC_PAGE_SIZE")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _text(path: str) -> str:
    """What the system says there; nothing where it has no such file."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _sequence(engine: Engine) -> Encoded:
    """One sequence (of each part) of the greatest length of the training rows, made of a longest row's first one."""
    rows = engine.plan.rows
    return _cut(rows[int(rows.lengths.argmax())], 1)


def _cut(item: Encoded, pieces: int) -> Encoded:
    """An example whose sequences are the first of so many pieces of the first of another's parts."""
    return Encoded(tuple(_first(part, max(1, part.lengths[0] // pieces)) for part in item.parts), item.target, item.row)


def _first(part: Part, length: int) -> Part:
    return Part(part.ids[:length], [length], None if part.kinds is None else part.kinds[:length])


def _peak(engine: Engine, items: list[Encoded], training: bool) -> int:
    """The most bytes alive in a pass, forward and for training backward; gradients of weights do not count, they are freed."""
    engine.model.train(training)
    moved = pack([engine.task.vary(e, generator("room")) for e in items] if training else items).to(engine.device)
    if not training:
        with torch.inference_mode(), Alive(engine.model) as alive:
            engine.task.predict(engine.model, moved)
        return int(alive.most)
    hooks = [p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None)) for p in engine.trained]
    forget(engine.model.parameters())  # copies in bfloat16 stand through a step, and count in each pass
    with Alive(engine.model) as alive:
        with engine.numbers():
            output = engine.model(moved)
        output.float().pow(2).mean().backward()
    for hook in hooks:
        hook.remove()
    return int(alive.most)


def _by_step(values: Tensor, rows: int) -> Tensor:
    """Sums of neighbours, so many at a time."""
    return torch.nn.functional.pad(values, (0, -len(values) % rows)).view(-1, rows).sum(1)


def _bytes(tensors: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
