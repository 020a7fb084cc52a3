"""Adapters: small trained bottlenecks inside frozen layers (Houlsby et al. 2019, arXiv:1902.00751)."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn

from trainformer.bundle import adapters
from trainformer.bundle.facts import ADAPTERS, facts_of
from trainformer.core.errors import UserError
from trainformer.core.files import check_manifest
from trainformer.core.roles import Method, Model, Rule
from trainformer.nn.bottleneck import Bottleneck, Fusion
from trainformer.nn.surgery import add, endings, faster, never_train, usual_head

HERE = "body.added.adapter."


class Adapter(Method):
    """Train a bottleneck after the sublayers of each layer; all else stays frozen but the head.

    Inputs: what a sublayer adds, "T D". Gives: `x + up(gelu(down(x)))` in its place, down "D width", up "width D" and zero at
    first.

    When: several tasks on one base with small files, or trained ones to combine (`fuse`); to ship a plain model take `lora`.
    Cost: 2 D width parameters a bottleneck, which stay in the bundle, run at prediction, and learn at 30 times the rate of the
    head.
    With: `lora`, `bitfit`, and every method that changes the loss.
    See: Houlsby et al. 2019, arXiv:1902.00751; Pfeiffer et al. 2020, arXiv:2005.00052; fusion: 2021, arXiv:2005.00247.
    Houlsby et al. train the norms too; here they stay as they were.
    Command: --method adapter --method ema
    """

    rate_factor: ClassVar[float] = 10.0
    stays: ClassVar[bool] = True

    width: int | None = Field(None, ge=1)
    """Width of the bottleneck; none: an eighth of the model's."""
    style: Literal["houlsby", "pfeiffer"] = "houlsby"
    """After attention and feed-forward (houlsby), or after the feed-forward alone (pfeiffer)."""
    fuse: list[str] | int = Field(default_factory=list)
    """Bundles of trained adapters to combine (AdapterFusion): they stay frozen, attention over them is trained; or how many."""

    rate: float = Field(3.0, gt=0)
    """Times the run's rate at which the bottlenecks learn; the attention of `fuse` learns at the run's."""

    def extend(self, model: Model) -> None:
        """Raises UserError for a bottleneck that is wider than the model, and where there are no such layers."""
        body = model.body
        if isinstance(self.fuse, list) and self.fuse:
            trained = [self._trained(Path(folder), model) for folder in self.fuse]
        else:
            trained = []
        inner = self.width or max(1, body.width // 8)
        if inner > body.width:
            what = f"a bottleneck of {inner} is wider than the model: {body.width}."
            raise UserError(what, where="adapter.width", fix="An eighth of the model's width is usual.")
        pairs = endings(body, "adapter")
        places = [name for pair in pairs for name in (pair if self.style == "houlsby" else pair[1:])]
        count = self.fuse if isinstance(self.fuse, int) else len(self.fuse)
        layers = [Fusion(body.width, inner, count) if count else Bottleneck(body.width, inner) for _ in places]
        kept = nn.ModuleList(layers)
        add(body, "adapter", kept)
        for number, weights in enumerate(trained):
            kept.load_state_dict({_inside(n, number): value for n, value in weights.items()}, strict=False)
        never_train(body, [p for n, p in kept.named_parameters() if ".each." in n])
        for name, layer in zip(places, layers, strict=True):
            body.get_submodule(name).register_forward_hook(layer.after)

    def groups(self, model: Model, rules: dict[str, Rule]) -> None:
        if not self.fuse:
            faster(rules, ".added.adapter.", self.rate)
        usual_head(rules, self.rate_factor)

    def _trained(self, folder: Path, model: Model) -> dict[str, Tensor]:
        """The bottlenecks of a bundle, whose width and style become those of all."""
        check_manifest(folder)
        name, facts = facts_of(folder, None)
        given = facts["methods"].get("adapter", {"fuse": 1})
        weights = load_file(folder / ADAPTERS / name / adapters.WEIGHTS)
        found = {n.removeprefix(HERE): v for n, v in weights.items() if n.startswith(HERE)}
        if given["fuse"] or list(facts["methods"]) != ["adapter"]:
            raise UserError(
                "it is not a bundle of plain adapters.", where=f"adapter.fuse {folder}", fix="Train with adapter alone."
            )
        width = len(found["0.down.bias"])
        if self.width not in (None, width) or ("style" in self.model_fields_set and self.style != given["style"]):
            what = f"its bottlenecks are {given['style']} of width {width}, the others are not."
            raise UserError(what, where=f"adapter.fuse {folder}", fix="Fuse adapters of one width and style.")
        self.width, self.style = width, given["style"]
        adapters.require_base(model, weights, facts["base"]["sha256"], f"adapter.fuse {folder}")
        return found

    def settings(self) -> dict[str, Any]:
        """A bundle has the bottlenecks themselves, and needs no folders."""
        return super().settings() | {"fuse": self.fuse if isinstance(self.fuse, int) else len(self.fuse)}


def _inside(name: str, number: int) -> str:
    """The name of a bottleneck's weight among those of a fusion: `3.up.bias` is `3.each.NUMBER.up.bias`."""
    place, _, rest = name.partition(".")
    return f"{place}.each.{number}.{rest}"
