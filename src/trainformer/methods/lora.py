"""LoRA: train a low-rank change to each matrix instead of the matrix (Hu et al. 2022, arXiv:2106.09685)."""

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr

from trainformer.core.errors import UserError
from trainformer.core.roles import Method, Model, Rule
from trainformer.models import peft_files
from trainformer.nn import peft_layers
from trainformer.nn.surgery import usual_head

TWICE = "both change the same matrices, and peft folds one change a matrix"


class Lora(Method):
    """Train a low-rank change to each matrix of the layers and the head; all else stays frozen.

    Inputs: the linear layers of the body. Gives: `W x + (alpha / rank) * B A x`, A "R D" random, B "D R" zero at first, in
    float32; folded into W to ship, so a bundle is a plain model.

    When: many models on one base, small files, little memory; the first of its kind to try, since a plain model ships.
    Cost: a few percent of the memory for gradients and optimiser; the backward pass runs through all layers as ever.
    With: every method.
    See: Hu et al. 2022, arXiv:2106.09685; DoRA: Liu et al. 2024, arXiv:2402.09353; rsLoRA: Kalajdzievski 2023, arXiv:2312.03732.
    Command: --method lora --method ema
    """

    rate_factor: ClassVar[float] = 10.0
    stays: ClassVar[bool] = False
    shards: ClassVar[bool] = True
    clashes: ClassVar[dict[str, str]] = {"adalora": TWICE, "ia3": TWICE}

    rank: int = Field(8, ge=1)
    """Rank of the change: more can learn more and costs more."""
    alpha: float = Field(16.0, gt=0)
    """Strength of the change: it is scaled by alpha / rank."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on what goes into the change, 0..1."""
    targets: list[str] | None = None
    """Names, or ends of names, of the linear layers to change, as `query`; none: all of them in the layers."""
    dora: bool = False
    """Learn the length of each row of a matrix apart from its direction (DoRA); slower, better at low ranks."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA), so that high ranks learn as fast as low ones."""

    start: str | None = None
    """Folder of a peft adapter to begin from: rank, strength, targets and, without a probe (`train.probe=false`), the head."""

    _head: str = PrivateAttr("")

    def extend(self, model: Model) -> None:
        """Raises UserError for a target that is not there, a rank that a layer has no room for, another base's adapter."""
        if self.start is not None:
            self._follow(Path(self.start), model)
        chosen = peft_layers.targets_of(model.body, self.targets, "lora.targets")
        peft_layers.require_room(model.body, chosen, self.rank, "lora.rank")
        scale = {"r": self.rank, "lora_alpha": self.alpha, "lora_dropout": self.dropout}
        peft_layers.inject(model.body, "LoraConfig", chosen, use_dora=self.dora, use_rslora=self.rslora, **scale)

        if self.start is not None:
            self._head = peft_files.start(model, Path(self.start), "lora.start")

    def groups(self, model: Model, rules: dict[str, Rule]) -> None:
        usual_head(rules, self.rate_factor)

    def _follow(self, folder: Path, model: Model) -> None:
        """Takes the settings of a peft folder for its own."""
        given = peft_files.settings_of(folder, "lora.start")
        odd = [k for k in ("rank_pattern", "alpha_pattern", "fan_in_fan_out", "lora_bias") if given.get(k)]
        if given.get("peft_type") != "LORA" or odd or given.get("bias", "none") != "none":
            what = f"an adapter of kind {given.get('peft_type')}{' with ' + ', '.join(odd) if odd else ''} is not read."
            raise UserError(what, where="lora.start", fix="Take a plain LoRA adapter.")
        self.rank, self.alpha = int(given["r"]), float(given["lora_alpha"])
        self.dora, self.rslora = bool(given.get("use_dora")), bool(given.get("use_rslora"))
        self.targets = peft_files.targets_in(folder, model) or self.targets

    def settings(self) -> dict[str, Any]:
        """A bundle has the adapter itself, and needs no folder to start from."""
        return super().settings() | {"start": None}

    def told(self) -> dict[str, Any]:
        """Whether the head of the adapter that it started from was taken."""
        return {"start_head": self._head} if self._head else {}

    def fold(self, model: Model) -> None:
        """Adds each change to its matrix and takes the wrapping off: names are those of the plain model again."""
        peft_layers.fold(model.body)
