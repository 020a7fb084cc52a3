"""How the weights of a new Transformer begin, by name, and how fast each then learns. Biases begin at 0, norms at 1."""

import math
from collections.abc import Callable

from torch import nn

from trainformer.models.design import BASE_WIDTH, Design
from trainformer.models.transformer import Attention, FeedForward, Transformer

Fill = Callable[[nn.Linear, bool, bool], object]
"""(matrix, whether it ends a layer's branch, whether it makes queries): fills the matrix."""


def initialise(body: Transformer) -> None:
    """Fills the weights of a new body in place, from torch's random numbers, as its design names it.

    xavier: uniform, so that activations and gradients keep their size (Glorot and Bengio 2010); embeddings of variance 1 / D, as
      they are scaled by sqrt(D). For the Transformer as first published, norms after the layers.
    truncated_normal: deviation 0.02, nothing beyond two of them (BERT, Devlin et al. 2019, arXiv:1810.04805).
    depth_scaled: deviation 0.02, and what each layer adds divided by the root of the number of additions, so that the residual
      stream does not grow with depth (GPT-2, Radford et al. 2019). For norms before the layers.
    fan_in: variance 1 / (numbers read), which keeps the size of states; queries also by 1 / K where scores are not scaled (T5,
      Raffel et al. 2020, arXiv:1910.10683).
    mup: fan_in, and rates by width (`Transformer.rates`): the best rate of a narrow model is that of a wide one
      (Yang et al. 2022, arXiv:2203.03466).
    """
    design = body.design
    fill = FILLS[design.initialisation](design)
    for module in body.modules():
        if isinstance(module, Attention):
            for linear in (module.query, module.key, module.value, module.output):
                fill(linear, linear is module.output, linear is module.query)
        elif isinstance(module, FeedForward):
            for matrix in filter(None, (module.gate, module.up, module.down)):
                fill(matrix, matrix is module.down, False)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=_spread(design))
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def peak_rate(design: Design) -> float:
    """The highest rate that suits a new model: 7e-4 at a width of 512 (Vaswani et al. 2017), by the root of the width."""
    width = BASE_WIDTH if design.initialisation == "mup" else design.width
    return 7e-4 * math.sqrt(512 / width)


def _spread(design: Design) -> float:
    """The deviation of the embeddings."""
    if design.scaled_embedding:
        return design.width**-0.5
    return 1.0 if design.initialisation in ("fan_in", "mup") else 0.02


def _xavier(design: Design) -> Fill:
    return lambda linear, last, query: nn.init.xavier_uniform_(linear.weight)


def _truncated(design: Design) -> Fill:
    return lambda linear, last, query: nn.init.trunc_normal_(linear.weight, std=0.02, a=-0.04, b=0.04)


def _depth_scaled(design: Design) -> Fill:
    added = design.layers * 2
    return lambda linear, last, query: nn.init.normal_(linear.weight, std=0.02 / math.sqrt(added) if last else 0.02)


def _fan_in(design: Design) -> Fill:
    sharp = 1.0 if design.scaled_scores else design.inner**-0.5
    return lambda linear, last, query: nn.init.normal_(linear.weight, std=linear.in_features**-0.5 * (sharp if query else 1.0))


FILLS: dict[str, Callable[[Design], Fill]] = {
    "xavier": _xavier,
    "truncated_normal": _truncated,
    "depth_scaled": _depth_scaled,
    "fan_in": _fan_in,
    "mup": _fan_in,
}
