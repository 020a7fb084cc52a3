"""Optional kernels in C for training in bfloat16 on a CPU, compiled on the user's machine at first use.

They only pass over memory once where PyTorch passes several times; matrix products stay with PyTorch, and so does
everything in float32 and on other devices. Without a compiler nothing is lost but time.
"""

from torch import nn

from trainformer.nn.native import linear, residual


def speed_up(model: nn.Module) -> None:
    """Puts the kernels where they fit: modules become subclasses of what they were, weights stay."""
    residual.quicken(model)
    linear.quicken(model)
