"""What frozen layers say of each row, computed once and read from disk: the layers are then passed over."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.errors import UserError
from trainformer.core.files import require_room
from trainformer.core.roles import Body


class _Enough(Exception):
    """Ends a pass at the highest frozen layer."""


class FrozenStates:
    """States "T D" after the frozen layers of a packed body, for rows whose tokens do not change.

    They are computed in batches that do not depend on the steps, so a run that goes on from a checkpoint reads the same bits.
    What a step reads for a row equals what it would compute but for the last bits, since a product's depend on its batch.
    """

    def __init__(self, body: Body, layers: list[nn.Module], batches: Callable[[], Iterable[Batch]], folder: Path):
        self.body, self.layers, self.batches, self.folder = body, layers, batches, folder
        self._places: dict[int, tuple[int, int, int]] = {}
        self._states: Tensor | None = None
        self._now: Tensor | None = None
        self._version = -1

    @property
    def filled(self) -> bool:
        return self._states is not None

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Inside, the body reads what is known of a batch; the first batch has all rows computed."""
        handle = self.body.register_forward_pre_hook(self._look)
        for layer in self.layers:
            layer.forward = self._passed(layer.forward)
        try:
            yield
        finally:
            handle.remove()
            self._now = None
            for layer in self.layers:
                del layer.forward

    def _passed(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*inputs: Any, **words: Any) -> Any:
            if self._now is None:
                return own(*inputs, **words)
            filled = inputs[0].shape[1] - len(self._now)  # the body may round the number of tokens up
            return nn.functional.pad(self._now, (0, 0, 0, filled))[None]

        return forward

    def _look(self, body: nn.Module, inputs: tuple[Batch]) -> None:
        """Before the body runs: what is known of this batch, or None where something may have moved."""
        self._now = None
        if self._states is None and body.training:
            self._fill()
        batch = inputs[0]
        found = [self._places.get(row) for row in batch.rows]
        keys = _keys(batch)
        known = all(f is not None and f[2] == k for f, k in zip(found, keys, strict=True))
        if self._states is None or not known or self._moved():
            return
        pieces = [self._states[f[0] : f[1]] for f in found if f is not None]
        self._now = torch.cat(pieces).to(batch.parts[0].ids.device)

    def _moved(self) -> bool:
        """Whether what is below may say something else now: it was written to, is being learnt, or noise is laid over it."""
        table = self.body.embed()
        learnt = any(p.requires_grad for p in self._below())
        return learnt or bool(table._forward_hooks or table._forward_pre_hooks) or self._version != self._versions()

    def _below(self) -> Iterator[nn.Parameter]:
        for block in (self.body.blocks()[0], self.body.embed(), *self.layers):
            yield from block.parameters()

    def _versions(self) -> int:
        return sum(p._version for p in self._below())

    @torch.no_grad()
    def _fill(self) -> None:
        """Runs the frozen layers over all rows, once, in the numbers of training."""
        self._states = torch.empty(0)  # from here on nothing is known, and nothing is filled again
        training = self.body.training
        self.body.eval()
        try:
            self._states = self._written()
            self._version = self._versions()
            self._try()
        finally:
            self.body.train(training)

    def _written(self) -> Tensor:
        """All states in a file that has no name any more: it goes with the process, however that ends."""
        start, kind = 0, torch.float32
        with tempfile.TemporaryFile(dir=self.folder) as file:
            for batch in self.batches():
                states = self._bottom(batch.to(next(self.body.parameters()).device)).cpu()
                if not start:
                    kind = states.dtype
                    tokens = sum(b.tokens for b in self.batches())
                    require_room(self.folder, tokens * states.shape[1] * states.element_size())
                file.write(states.contiguous().view(torch.uint8).numpy().data)
                for row, length, key in zip(batch.rows, _lengths(batch), _keys(batch), strict=True):
                    self._places[row] = (start, start + length, key)
                    start += length
            file.flush()
            path = f"/proc/self/fd/{file.fileno()}" if os.path.isdir("/proc/self/fd") else f"/dev/fd/{file.fileno()}"
            width = self.body.width
            return torch.from_file(path, shared=False, size=start * width, dtype=kind).view(start, width)

    def _bottom(self, batch: Batch) -> Tensor:
        found: list[Tensor] = []

        def stop(layer: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise UserError("the layers of this model give more than states.", where="freeze", fix=NO_CACHE)
            found.append(output[0])
            raise _Enough

        handle = self.layers[-1].register_forward_hook(stop)
        try:
            self.body.forward(batch)
        except _Enough:
            return found[0][: batch.tokens]
        finally:
            handle.remove()
        raise AssertionError("the highest frozen layer did not run")

    def _try(self) -> None:
        """Raises UserError if the layers above say something else of what was read than of what was computed."""
        batch = next(iter(self.batches())).to(next(self.body.parameters()).device)
        computed = self.body.forward(batch)[0]
        assert self._states is not None
        self._now = torch.cat([self._states[slice(*self._places[row][:2])] for row in batch.rows]).to(computed.device)
        read = self.body.forward(batch)[0]
        self._now = None
        if not torch.allclose(read, computed, rtol=0, atol=1e-3 * float(computed.abs().max())):
            raise UserError("this model's layers cannot be passed over.", where="freeze", fix=NO_CACHE)


NO_CACHE = "Run them each time: --set method.freeze.cache=false"


def _lengths(batch: Batch) -> list[int]:
    """Tokens of each example."""
    return [e.tokens for e in batch.examples]


def _keys(batch: Batch) -> list[int]:
    """A number for the tokens of each example, the same for the same tokens within this process."""
    ids = batch.parts[0].ids.cpu().split(_lengths(batch))
    return [hash(x.numpy().tobytes()) for x in ids]
