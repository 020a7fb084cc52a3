"""Numbers as targets: what counts as one, and the scale of those seen in training."""

from math import isfinite, sqrt
from typing import Any

from pydantic import Field, PrivateAttr

from trainformer.core.component import Component
from trainformer.core.errors import UserError


class Scaled(Component):
    """Settings of what learns a number, and what it keeps of the training targets: mean, spread and range."""

    huber_delta: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Error, in standard deviations of the targets, beyond which an outlier pulls no harder (Huber 1964); 0: squared error."""
    mean: float | None = None
    """Mean of the training targets; filled by training."""
    deviation: float | None = Field(None, gt=0)
    """Standard deviation of the training targets; filled by training."""
    least: float | None = None
    """Smallest training target; filled by training."""
    most: float | None = None
    """Largest training target; filled by training."""

    _rows: int = PrivateAttr(0)
    _moments: tuple[float, float] = PrivateAttr((0.0, 0.0))
    _range: tuple[float, float] = PrivateAttr((float("inf"), float("-inf")))

    @property
    def scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the training targets, once they are fixed."""
        assert self.mean is not None and self.deviation is not None, "the scale is fixed by settle()"
        return self.mean, self.deviation

    def _observe_number(self, value: float) -> None:
        """Sees one training target (Welford 1962: one pass, no loss of digits)."""
        self._rows += 1
        mean, squares = self._moments
        step = value - mean
        mean += step / self._rows
        self._moments = mean, squares + step * (value - mean)
        self._range = min(self._range[0], value), max(self._range[1], value)

    def _fix_scale(self) -> None:
        """After the last row. Raises UserError if there is none, or all targets are the same."""
        if self._rows == 0:
            raise UserError("there are no training rows to learn from.")
        least, most = self._range
        if least == most:
            raise UserError(f"all {self._rows} training targets are {least}: there is nothing to learn.")
        deviation = sqrt(self._moments[1] / self._rows)
        if not isfinite(deviation) or deviation == 0:
            raise UserError(f"the targets, from {least} to {most}, do not fit floating-point numbers.", fix="Use another unit.")
        self.mean, self.deviation, self.least, self.most = self._moments[0], deviation, least, most

    def _standard(self, value: float) -> float:
        """The target as deviations from the mean: what is learnt."""
        mean, deviation = self.scale
        return (value - mean) / deviation


def number(value: Any) -> float:
    """A target as a number; text only if all of it is one. Raises UserError for anything else, and for NaN and infinity."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise UserError(f"the target is {'null' if value is None else 'empty'}.", fix="Give the row a number or remove it.")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UserError(f"the target is {value!r:.60}, not a number.")
    parsed = _float(value)
    if parsed is None:
        fix = "Write decimals with a point." if "," in str(value) else "Labels that are words: --task text_classification."
        raise UserError(f"the target '{value:.60}' is not a number.", fix=fix)
    if not isfinite(parsed):
        raise UserError(f"the target is {str(value)[:60]}: it must be finite.", fix="Mend the number or remove the row.")
    return parsed


def _float(value: int | float | str) -> float | None:
    try:
        return None if isinstance(value, str) and "_" in value else float(value)
    except OverflowError:
        return float("inf")
    except ValueError:
        return None
