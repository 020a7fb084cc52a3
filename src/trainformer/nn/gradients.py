"""Sets gradients aside and adds them again, for methods that take the gradient of a step more than once."""

from torch import Tensor, nn

Kept = list[tuple[nn.Parameter, Tensor]]


def take(model: nn.Module) -> Kept:
    """Sets gradients aside: one that stayed would be summed over the ranks again."""
    kept = [(p, p.grad) for p in model.parameters() if p.grad is not None]
    for parameter, _ in kept:
        parameter.grad = None
    return kept


def add(kept: Kept) -> None:
    """Adds gradients that were set aside to those that are there."""
    for parameter, gradient in kept:
        parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
