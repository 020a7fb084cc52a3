"""A model that one device cannot train: each process holds a part of weights, gradients and optimiser (FSDP2).

Rajbhandari et al. 2020, arXiv:1910.02054; Zhao et al. 2023, arXiv:2304.11277. A layer's weights are put together while it
runs, and taken apart again. A checkpoint is written whole, tensor by tensor, by the first process: it is the same folder as
without parts, and goes on in any number of processes, with parts or without.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from trainformer.core.batch import Batch, pack
from trainformer.core.config import Config
from trainformer.core.roles import Grad, Model, Task
from trainformer.engine.ranks import Group

if TYPE_CHECKING:
    from trainformer.engine.engine import Engine


class Sharded(Group):
    """One of several processes that hold a model together."""

    whole_here = False
    _empty: Model
    _spare: Batch
    """What a process runs that has no more micro-batches while others have: it weighs nothing."""

    def words(self, config: Config) -> list[str]:
        return [*super().words(config), "train.shard: each holds a part of the model"]

    def begin(self, engine: "Engine") -> None:
        """The model is taken apart; then all weights, averages and moments are dealt out from the first process."""
        engine.cut_to(int(self.same(engine.plan.micro_tokens)))
        shortest = engine.plan.rows[int(torch.argmin(engine.plan.rows.lengths))]
        self._spare = pack([replace(shortest, weight=0.0)])
        state = engine.state()
        state.plain = self.word(state.plain)
        state.tensors = state.tensors if self.first else {}
        self._empty = _emptied(engine.model) if self.first else engine.model
        self._take_apart(engine)
        weights = {f"model.{k}": v for k, v in self._dealt(state.part("model."), engine.model.state_dict())}
        engine.model.load_state_dict({k.removeprefix("model."): v for k, v in weights.items()})
        engine.arm()
        rest = {k: v for k, v in state.tensors.items() if not k.startswith("model.")}
        state.tensors = weights | dict(self._dealt(rest, _places(engine)))
        engine.take(state)

    def _take_apart(self, engine: "Engine") -> None:
        mesh = init_device_mesh(engine.device.type, (self.world,))
        for module in (*engine.model.body.blocks(), engine.model):
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
        for module in engine.model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)

    def _dealt(self, tensors: dict[str, Tensor], places: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """The first process's tensors by name: of each its own part, where `places` has parts."""
        for name, tensor in self._sent(tensors):
            place = places.get(name)
            if isinstance(place, DTensor) and place.shape == tensor.shape:
                tensor = distribute_tensor(tensor.to(place.device), place.device_mesh, place.placements, src_data_rank=None)
            yield name, tensor

    def units(self, batches: list[Batch]) -> int:
        return super().units([b for b in batches if b is not self._spare])

    def summed(self, grad: Grad, model: Model) -> Grad:
        """Gradients are summed layer by layer in the backward pass; so all processes make equally many passes."""

        def over(batches: list[Batch]) -> Tensor:
            idle = self.exchange.greatest(len(batches)) - len(batches)
            loss = self.exchange.do(lambda: grad([*batches, *[self._spare] * idle]))
            self.exchange.sum_(loss)
            return loss

        return over

    def clip(self, parameters: list[nn.Parameter], most: float, optimizer: torch.optim.Optimizer) -> Tensor:
        return self.whole({"norm": nn.utils.clip_grad_norm_(parameters, most or float("inf"))})["norm"]

    @torch.no_grad()
    def _output(self, model: Model, task: Task, batch: Batch) -> Tensor:
        """Not in inference mode: the weights that a layer puts together there could not be trained afterwards."""
        model.eval()
        moved = batch.to(next(model.parameters()).device)
        return self.exchange.do(lambda: task.predict(model, moved).float())

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """One tensor after the other is put together; the first process keeps it in the host's memory."""
        found = {}
        for name, tensor in tensors.items():
            whole = self.exchange.do(tensor.full_tensor) if isinstance(tensor, DTensor) else tensor
            if self.first or not isinstance(tensor, DTensor) or not tensor.ndim:
                found[name] = whole if not tensor.ndim else whole.cpu()
        return found

    def model(self, model: Model) -> Model:
        return self._empty.to(next(model.parameters()).device)


def _emptied(model: Model) -> Model:
    """A copy with room for weights, which the host gives once they are written; until then they hold anything."""
    blank = {id(p): nn.Parameter(torch.empty_like(p, device="cpu"), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, dict[int, object](blank))


def _places(engine: "Engine") -> dict[str, Tensor]:
    """What a part of each tensor of the state looks like."""
    listed = [p for group in engine.optimizer.param_groups for p in group["params"]]
    moments = {f"optimizer.{i}.{name}": p for i, p in enumerate(listed) for name in ("exp_avg", "exp_avg_sq", "momentum_buffer")}
    methods = {f"method.{n}.{k}": v for n, m in engine.job.methods.items() for k, v in m.state().items()}
    return moments | methods
