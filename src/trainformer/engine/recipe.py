"""The default recipe: what the user left open, settled from the size of the data and of the model."""

import math
from collections.abc import Iterable

from trainformer.core.config import TrainSettings
from trainformer.core.errors import UserError
from trainformer.core.roles import Method, Model
from trainformer.engine.optim import KNOWN

USUAL_TOKENS, LEAST_TOKENS = 512, 8
STEPS = 1000
"""About so many steps are enough for a pretrained encoder to settle on small data."""
LEAST_EPOCHS, MOST_EPOCHS = 3, 10
BASE_WIDTH, BASE_RATE = 768, 5e-5
"""BERT-base learns well at 5e-5 (Devlin et al. 2019, arXiv:1810.04805); a narrower model bears more, a wider one less."""


def longest(asked: int | None, most: int, methods: Iterable[Method]) -> int:
    """Tokens of the longest text, special ones included: what is asked for, else 512, or what the model and methods leave.

    Raises UserError for more than the model reads, and for methods that leave a text next to nothing.
    """
    left = most - sum(method.takes() for method in methods)
    if left < LEAST_TOKENS:
        raise UserError(f"only {left} of the model's tokens are left for a text.", where="method", fix="Shorten the prompt.")
    if asked is not None and asked > left:
        raise UserError(f"data.max_tokens {asked} is more than the model reads.", where="data", fix=f"At most {left}.")
    return asked or min(USUAL_TOKENS, left)


def trained(model: Model) -> list[str]:
    """What to say about the share of the parameters that is trained, where that is not all."""
    every = sum(p.numel() for p in model.parameters())
    some = sum(p.numel() for p in model.parameters() if p.requires_grad)
    words = f"trained: {some:,} of {every:,} parameters ({some / every:.2%}); the others stay as they are"
    return [words] if some < every else []


def settle(settings: TrainSettings, rows: int, width: int, methods: Iterable[Method] = ()) -> tuple[TrainSettings, list[str]]:
    """The settings with epochs and rate filled in, and what to say about them; a method may ask for a higher rate."""
    said, found = [], {}
    if settings.epochs is None:
        steps = math.ceil(rows / settings.step_rows)
        found["epochs"] = float(min(MOST_EPOCHS, max(LEAST_EPOCHS, round(STEPS / steps))))
        said.append(f"epochs: {found['epochs']:g} for {rows} rows (--set train.epochs=N)")
    if settings.lr is None:
        times, asking = max(((m.rate_factor, type(m).key) for m in methods), default=(1.0, ""), key=lambda each: each[0])
        found["lr"] = BASE_RATE * BASE_WIDTH / width * KNOWN[settings.optimizer].factor * times
        few = f", {times:g} times the usual with {asking}" if times != 1 else ""
        said.append(f"lr: {found['lr']:.2g} for a model of width {width}{few} (--set train.lr=X)")
    return settings.model_copy(update=found), said
