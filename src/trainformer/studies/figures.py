"""Figures of a search as inline SVG: what mattered, which settings went with which score, and what a score cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import log10

from trainformer.trust.figures import Frame, columns, shorten, span, svg, text

LEFT_OUT = "–"
"""Stands where a setting has no meaning in a trial: the rank of an adapter that it does not have."""


@dataclass(frozen=True)
class Axis:
    """A setting, or the score, and its value in each trial: numbers, words, or None."""

    name: str
    values: Sequence[float | str | None]
    log: bool = False

    @property
    def words(self) -> list[str]:
        """Its places from the bottom up, where it has words; empty for numbers."""
        there = [v for v in self.values if v is not None]
        return sorted({str(v) for v in there}) if any(isinstance(v, str) for v in there) or not there else []

    def place(self, value: float | str | None) -> float | None:
        """Where a value lies, 0..1 from the bottom up; None where it has none."""
        if value is None:
            return None
        if self.words:
            return (self.words.index(str(value)) + 0.5) / len(self.words)
        low, high = self.ends
        shown = self._scale(float(value))
        return 0.5 if low == high else (shown - self._scale(low)) / (self._scale(high) - self._scale(low))

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest number."""
        numbers = [float(v) for v in self.values if v is not None]
        return min(numbers), max(numbers)

    def _scale(self, value: float) -> float:
        return log10(value) if self.log else value


def importance(shares: dict[str, float]) -> str:
    """A bar for each setting, the most important first."""
    shown = {name: shorten(name, 34) for name in shares}
    left = 16 + 7 * max(columns(s) for s in shown.values())
    most, inside = max(shares.values()) or 1.0, ""
    for i, (name, share) in enumerate(sorted(shares.items(), key=lambda item: -item[1])):
        y, wide = 10 + 26 * i, round(220 * share / most, 1)
        inside += text(left - 8, y + 13, shown[name], "end", "label")
        inside += f'<rect class="bar" x="{left}" y="{y}" width="{max(wide, 1)}" height="17" rx="2"/>'
        inside += text(left + wide + 8, y + 13, f"{share:.0%}", "start")
    return svg(left + 290, 26 * len(shares) + 20, "Importance of each setting, as a share of all", inside)


def parallel(axes: Sequence[Axis], best: int) -> str:
    """A line for each trial through all axes, the last of which is the score; the line of the trial at `best` stands out."""
    gap, top, tall = 132, 46, 250
    wide = gap * (len(axes) - 1) + 150
    inside = ""
    for i, axis in enumerate(axes):
        x = 75 + gap * i
        inside += f'<line class="axis" x1="{x}" x2="{x}" y1="{top}" y2="{top + tall}"/>'
        inside += text(x, 16 + 15 * (i % 2), shorten(axis.name, 19), style="name")
        inside += "".join(text(x + 5, y, words, "start", "label") for y, words in _marks(axis, top, tall))
    order = [i for i in range(len(axes[0].values)) if i != best]
    for i in [*order, best]:
        inside += _line(axes, i, best, (gap, top, tall))
    title = f"Settings and score of {len(order) + 1} trials; the best is marked"
    return svg(wide, top + tall + 34, title, inside)


def _marks(axis: Axis, top: int, tall: int) -> list[tuple[float, str]]:
    """(height, words) of what is written beside an axis."""
    found = [(axis.place(w) or 0.0, shorten(w, 17)) for w in axis.words]
    if not axis.words:
        low, high = axis.ends
        found = [(axis.place(v) or 0.0, f"{v:.3g}") for v in dict.fromkeys((low, high))]
    marks = [(top + tall * (1 - place) + 4, words) for place, words in found]
    return [*marks, (top + tall + 24.0, LEFT_OUT)] if None in axis.values else marks


def _line(axes: Sequence[Axis], i: int, best: int, size: tuple[int, int, int]) -> str:
    gap, top, tall = size
    points, told = [], []
    for k, axis in enumerate(axes):
        place = axis.place(axis.values[i])
        points.append(f"{75 + gap * k},{top + tall + 20 if place is None else top + tall * (1 - place):.1f}")
        told.append(f"{axis.name}: {_shown(axis.values[i])}")
    style = "line two" if i == best else "raw"
    return f'<polyline class="{style}" points="{" ".join(points)}"><title>{escape("; ".join(told))}</title></polyline>'


def _shown(value: float | str | None) -> str:
    return LEFT_OUT if value is None else value if isinstance(value, str) else f"{value:.4g}"


def cost(points: Sequence[tuple[int, float, float]], best: int, score: str) -> str:
    """A dot for each trial (number, seconds, score); the best is marked."""
    frame = Frame(span([0.0, *(seconds for _, seconds, _ in points)]), span([s for *_, s in points], 0.12))
    inside = frame.axes("seconds of the trial", f"validation {score}")
    for number, seconds, value in points:
        style, radius = ("best", 6) if number == best else ("dot", 3.5)
        where = f'cx="{frame.px(seconds)}" cy="{frame.py(value)}"'
        words = f"trial {number}: {value:.4f} in {seconds:.0f} s"
        inside += f'<circle class="{style}" {where} r="{radius}"><title>{words}</title></circle>'
    return svg(
        frame.width, frame.height, f"Score of {len(points)} trials against their seconds; trial {best} is the best", inside
    )
