"""Distillation: learn a teacher's answers and states (Hinton et al. 2015, arXiv:1503.02531)."""

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from trainformer.bundle import Bundle
from trainformer.core.batch import Batch, cut
from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Loss, Method, Model, Task
from trainformer.nn.layers import Seen, beside, distance, layers_noted
from trainformer.nn.states import noted

PIECE_TOKENS = 8192


class Distil(Method):
    """Learn a teacher's answers too, which tell more than labels do, and with `hidden` what its layers make of each token.

    Inputs: a bundle of the same task, labels and tokenizer. Gives: `(1 - weight) * loss + weight * t^2 * divergence(answer / t,
    teacher's / t) + hidden * distance`, "U", t the temperature; the distance is the mean over tokens and layers of the squared
    difference of states brought to length 1, each layer beside the teacher's at the same height.

    When: there is a better and slower model of the same task, and this one shall be small.
    Cost: a forward pass of the teacher.
    With: every method.
    See: Hinton et al. 2015, arXiv:1503.02531; Sun et al. 2019, arXiv:1908.09355 (states).
    Command: --method llrd --method distil --method ema --set method.distil.teacher=run-adapter/bundle
    """

    teacher: str | None = None
    """Folder of the teacher's bundle."""
    weight: float = Field(0.5, ge=0, le=1)
    """Share of the teacher's answers in the loss, 0..1; 1: labels are not looked at."""
    temperature: float = Field(2.0, gt=0, le=100)
    """What answers are divided by before they are compared: the higher, the more small ones count."""
    hidden: float = Field(0.0, ge=0, le=1000)
    """Weight of the states of the layers; both models must be equally wide."""

    _task: Task | None = PrivateAttr(None)
    _teacher: Model | None = PrivateAttr(None)
    _body: nn.Module | None = PrivateAttr(None)
    _pairs: list[tuple[nn.Module, nn.Module]] = PrivateAttr(default_factory=list)

    def prepare(self, model: Model, facts: Facts) -> None:
        """Raises UserError without a teacher, and for one that answers or reads otherwise than this model."""
        self._task, self._body = facts.task, model.body
        if self._teacher is None:
            self._teacher = self._open(facts).to(next(model.parameters()).device).requires_grad_(False)
        if self.hidden:
            self._pairs = beside(model, self._teacher)

    def _open(self, facts: Facts) -> Model:
        if self.teacher is None:
            raise UserError("there is no teacher.", where="method.distil.teacher", fix="--set method.distil.teacher=RUN/bundle")
        bundle = Bundle.open(self.teacher)
        ours, theirs = getattr(facts.task, "labels", None) or [], bundle.labels
        if type(bundle.task) is not type(facts.task) or ours != theirs:
            what = (
                f"the teacher learnt {type(bundle.task).key} {theirs}, and this model shall learn {type(facts.task).key} {ours}."
            )
            raise UserError(what, where=self.teacher, fix="Train the teacher on the same task, or name its labels: task.labels.")
        if bundle.tokens.fingerprint != facts.tokenizer:
            raise UserError("the teacher has another tokenizer.", where=self.teacher, fix="Take a teacher of the same family.")
        return bundle.model

    def wrap_loss(self, loss: Loss) -> Loss:
        def taught(model: nn.Module, batch: Batch) -> Tensor:
            assert self._task is not None and self._body is not None, "prepare comes before the first step"
            with noted(model, before=False) as seen, layers_noted(self._body, [ours for ours, _ in self._pairs]) as states:
                value = loss(model, batch)
            answers, known = self._ask(batch)
            t = self.temperature
            value = torch.lerp(value, t * t * self._task.divergence(seen[0].float() / t, answers / t), self.weight)
            return value + self.hidden * distance(states, known, batch) if self._pairs else value

        return taught

    @torch.no_grad()
    def _ask(self, batch: Batch) -> tuple[Tensor, Seen]:
        """The teacher's outputs for a batch, and the states of its layers; a part of a large step at a time."""
        assert self._teacher is not None, "prepare comes before the first step"
        device, answers = batch.weight.device, []
        with layers_noted(self._teacher.body, [theirs for _, theirs in self._pairs]) as states:
            for piece in cut(batch, -(-batch.tokens // PIECE_TOKENS)):
                answers.append(self._teacher(piece.to(device)).float())
        return torch.cat(answers), states
