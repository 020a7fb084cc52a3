"""How products with weights become products of integers: what is added to a graph for each input, weight and product."""

from typing import Any

import torch
from torch import Tensor

MOST = 127.0
LEAST = 1e-30
"""Stands in for the largest value of a row or column that holds nothing but zeros."""
CONTRIB = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
Parts = tuple[list[Any], dict[str, Tensor]]
"""Nodes in their order, and tensors that the graph holds, by name."""


class ByToken:
    """For ONNX Runtime: activations are rounded while it runs, with a scale for each row, which is a token.

    No token's rounding hangs on what stands beside it.
    """

    backend, domain = "onnx", CONTRIB
    alpha = 0.5
    """How much of the unevenness of columns goes into the weights, 0..1."""
    groups: tuple[int, ...] = ()
    """Columns of a token that may share a scale, the best number first; none: all of them do."""

    @classmethod
    def told(cls, group: int) -> str:
        """What is done to activations, in words."""
        return "activations int8 by token while it runs"

    def __init__(self, make: Any):
        """`make(kind, inputs, outputs, **attributes)`: a node."""
        self.make = make

    def constants(self) -> dict[str, Tensor]:
        """What all roundings share."""
        return {"last_axis": torch.tensor([-1]), "least_row": torch.tensor(LEAST), "all_rows": torch.tensor([-1]),
                "row_step": torch.tensor(1 / MOST), "row_zero": torch.tensor(128, dtype=torch.uint8),
                "one_zero": torch.tensor([128], dtype=torch.uint8)}  # fmt: skip

    def source(self, name: str, factors: Tensor, top: Tensor) -> Parts:
        """An input "... K" whose columns are divided by `factors` "K", rounded: values = (integer - 128) / 127 x largest.

        `top` is the largest absolute value that any of its columns was seen to have then. Rows are rounded by one operator that
        takes a step for each: fewer passes over the states than to divide them before.
        """
        make = self.make
        nodes = [
            make("Mul", [name, f"{name}_smooth"], [f"{name}_even"]),
            make("ReduceMax", [f"{name}_even", "last_axis"], [f"{name}_top"], keepdims=1),
            make("ReduceMin", [f"{name}_even", "last_axis"], [f"{name}_bottom"], keepdims=1),
            make("Neg", [f"{name}_bottom"], [f"{name}_depth"]),
            make("Max", [f"{name}_top", f"{name}_depth", "least_row"], [f"{name}_row"]),
            make("Mul", [f"{name}_row", "row_step"], [f"{name}_step"]),
            make("Reshape", [f"{name}_step", "all_rows"], [f"{name}_steps"]),
            make("Shape", [f"{name}_steps"], [f"{name}_count"]),
            make("Expand", ["one_zero", f"{name}_count"], [f"{name}_zeros"]),
            make("Flatten", [f"{name}_even"], [f"{name}_rows"], axis=-1),
            make("QuantizeLinear", [f"{name}_rows", f"{name}_steps", f"{name}_zeros"], [f"{name}_rounded"], axis=0),
            make("Shape", [name], [f"{name}_shape"]),
            make("Reshape", [f"{name}_rounded", f"{name}_shape"], [f"{name}_int8"]),
        ]
        return nodes, {f"{name}_smooth": 1 / factors}

    def weights(self, name: str, weight: Tensor, top: Tensor) -> Parts:
        """Weights "K N", their rows multiplied by the factors, as integers: values = integer x scale "N" of its column."""
        scale = weight.abs().amax(0).clamp(min=LEAST) / MOST
        return [], {
            f"{name}_int8": (weight / scale).round().to(torch.int8),
            f"{name}_scale": scale,
            f"{name}_zero": torch.zeros(weight.shape[1], dtype=torch.int8),
        }

    def product(self, source: str, weight: str, out: str) -> list[Any]:
        """The product of a rounded input with integer weights."""
        return [
            self._integer_product(source, weight, f"{out}_product"),
            self.make("Mul", [f"{out}_product", f"{source}_row"], [out]),
        ]

    def _integer_product(self, source: str, weight: str, out: str) -> Any:
        read = [f"{source}_int8", f"{weight}_int8", "row_step", f"{weight}_scale", "row_zero", f"{weight}_zero"]
        return self.make("MatMulIntegerToFloat", read, [out], domain=CONTRIB)


class Fixed(ByToken):
    """For ONNX Runtime: activations are rounded by what the validation rows showed; what is larger is cut.

    All tokens share a scale, so their columns must be the more even.
    """

    alpha = 0.8

    @classmethod
    def told(cls, group: int) -> str:
        return "activations int8 with scales fixed by the rows, larger ones cut"

    def source(self, name: str, factors: Tensor, top: Tensor) -> Parts:
        nodes = [
            self.make("Mul", [name, f"{name}_smooth"], [f"{name}_unit"]),
            self.make("QuantizeLinear", [f"{name}_unit", "row_step", "row_zero"], [f"{name}_int8"]),
        ]
        return nodes, {f"{name}_smooth": 1 / (factors * top)}

    def weights(self, name: str, weight: Tensor, top: Tensor) -> Parts:
        return super().weights(name, weight * top, top)

    def product(self, source: str, weight: str, out: str) -> list[Any]:
        return [self._integer_product(source, weight, out)]


class ByGroup(ByToken):
    """For OpenVINO, in ONNX's own operators: weights are integers, and it rounds activations itself while it runs.

    Each token has a scale for each group of its columns, so that one that is large spoils none but those beside it.
    """

    backend, domain = "openvino", ""
    groups: tuple[int, ...] = (128, 64, 32)

    @classmethod
    def told(cls, group: int) -> str:
        if not group:
            return "activations stay float32: groups of 32 columns do not divide them"
        return f"activations int8 by token and {group} columns while it runs"

    def constants(self) -> dict[str, Tensor]:
        return {}

    def source(self, name: str, factors: Tensor, top: Tensor) -> Parts:
        return [self.make("Mul", [name, f"{name}_smooth"], [f"{name}_rounded"])], {f"{name}_smooth": 1 / factors}

    def weights(self, name: str, weight: Tensor, top: Tensor) -> Parts:
        read = [f"{name}_int8", f"{name}_scale", f"{name}_zero"]
        return [self.make("DequantizeLinear", read, [f"{name}_rounded"], axis=1)], super().weights(name, weight, top)[1]

    def product(self, source: str, weight: str, out: str) -> list[Any]:
        return [self.make("MatMul", [f"{source}_rounded", f"{weight}_rounded"], [out])]


class FixedStandard(ByGroup):
    """For OpenVINO: activations are rounded by what the validation rows showed; what is larger is cut."""

    alpha, groups = Fixed.alpha, ()

    @classmethod
    def told(cls, group: int) -> str:
        return Fixed.told(group)

    def constants(self) -> dict[str, Tensor]:
        return {"step": torch.tensor(1 / MOST), "zero": torch.tensor(0, dtype=torch.int8)}

    def source(self, name: str, factors: Tensor, top: Tensor) -> Parts:
        nodes = [
            self.make("Mul", [name, f"{name}_smooth"], [f"{name}_unit"]),
            self.make("QuantizeLinear", [f"{name}_unit", "step", "zero"], [f"{name}_int8"]),
            self.make("DequantizeLinear", [f"{name}_int8", "step", "zero"], [f"{name}_rounded"]),
        ]
        return nodes, {f"{name}_smooth": 1 / (factors * top)}

    def weights(self, name: str, weight: Tensor, top: Tensor) -> Parts:
        return super().weights(name, weight * top, top)


WAYS: dict[tuple[str, str], type[ByToken]] = {
    ("onnxruntime", "dynamic"): ByToken,
    ("onnxruntime", "static"): Fixed,
    ("openvino", "dynamic"): ByGroup,
    ("openvino", "static"): FixedStandard,
}
"""By the program, and by when the scales of activations are told."""
