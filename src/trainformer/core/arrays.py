"""Numbers as NumPy arrays, whatever holds them: what answers and scores needs no PyTorch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def array(values: Any) -> Array:
    """An array, a list, or a tensor of any device as an array; a tensor's fractions in float64, which holds each of its types."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.double() if values.is_floating_point() else values).numpy()
    return np.asarray(values)
