"""Figures as inline SVG: no script, no font and no picture from outside; colours are classes of the page's style.

Every function returns SVG text in which all words are escaped. Widths are those of a drawing that scales with the page.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import Any
from unicodedata import east_asian_width

from trainformer.trust import intervals

Point = tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """A plotting area whose scales turn values into drawing units."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = 460
    height: int = 250
    left: int = 68
    right: int = 16
    top: int = 14
    bottom: int = 42

    def px(self, value: float) -> float:
        """Horizontal place of a value."""
        low, high = self.x
        return round(self.left + (value - low) / (high - low) * (self.width - self.left - self.right), 1)

    def py(self, value: float) -> float:
        """Vertical place of a value; larger is higher."""
        low, high = self.y
        return round(self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom), 1)

    def axes(self, across: str, up: str) -> str:
        """Grid, numbers and the two names."""
        found = []
        for v in ticks(*self.y):
            y = self.py(v)
            found.append(f'<line class="grid" x1="{self.left}" x2="{self.width - self.right}" y1="{y}" y2="{y}"/>')
            found.append(text(self.left - 8, y + 4, f"{v:.6g}", "end"))
        low = self.height - self.bottom
        found += [text(self.px(v), low + 17, f"{v:,.6g}") for v in ticks(*self.x)]
        found.append(f'<line class="axis" x1="{self.left}" x2="{self.width - self.right}" y1="{low}" y2="{low}"/>')
        found.append(text((self.left + self.width - self.right) / 2, self.height - 6, across, style="name"))
        middle = (self.top + low) / 2
        found.append(
            f'<text class="name" text-anchor="middle" transform="translate(12 {middle}) rotate(-90)">{escape(up)}</text>'
        )
        return "".join(found)

    def path(self, points: Iterable[Point], style: str) -> str:
        """A line through points."""
        places = " ".join(f"{self.px(x)},{self.py(y)}" for x, y in points)
        return f'<polyline class="{style}" points="{places}"/>'


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from low to high, about `most` of them.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / most
    unit = 10.0 ** floor(log10(rough))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough * 0.999)
    first = ceil(low / step - 1e-9)
    return [round(step * i, 12) for i in range(first, floor(high / step + 1e-9) + 1)]


def span(values: Sequence[float], margin: float = 0.06) -> tuple[float, float]:
    """From the least to the largest value with a margin; a single value gets room on both sides."""
    low, high = min(values), max(values)
    room = (high - low) * margin or abs(high) * 0.05 or 0.5
    return low - room, high + room


def text(x: float, y: float, words: str, anchor: str = "middle", style: str = "tick") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def svg(width: float, height: float, title: str, inside: str) -> str:
    """A drawing that says in words what it shows."""
    words = escape(title, quote=True)
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{words}" {size}><title>{words}</title>{inside}</svg>'


def smooth(values: Sequence[float]) -> list[float]:
    """The mean over a window of about a tenth of the values, centred, narrower at the ends."""
    reach = max(1, len(values) // 20)
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(w) / len(w) for w in windows]


def loss_curve(curve: Sequence[Sequence[float]]) -> str:
    """Training loss by step, raw and smoothed, from rows of (step, loss, rate)."""
    steps, losses = [row[0] for row in curve], [row[1] for row in curve]
    even = smooth(losses)
    frame = Frame((0, max(steps)), span(losses))
    inside = frame.axes("step", "training loss") + frame.path(zip(steps, losses, strict=True), "raw")
    inside += frame.path(zip(steps, even, strict=True), "line")
    return svg(frame.width, frame.height, f"Training loss by step, from {even[0]:.3g} to {even[-1]:.3g} when smoothed", inside)


def rate_curve(curve: Sequence[Sequence[float]]) -> str:
    """Learning rate by step, in units of its power of ten."""
    top = max(row[2] for row in curve)
    power = floor(log10(top)) if top > 0 else 0
    frame = Frame((0, max(row[0] for row in curve)), (0, 1.08 * top / 10.0**power or 1))
    inside = frame.axes("step", f"learning rate, 1e{power}" if power else "learning rate")
    inside += frame.path([(row[0], row[2] / 10.0**power) for row in curve], "line")
    return svg(frame.width, frame.height, f"Learning rate by step, at most {top:.3g}", inside)


def score_curve(history: Sequence[dict[str, Any]], key: str, best_step: int, name: str) -> str:
    """A validation score at each evaluation; the one that ships is marked."""
    points = [(h["step"], h["validation"][key]) for h in history]
    frame = Frame((0, max(1, *(p[0] for p in points))), span([p[1] for p in points], 0.12))
    inside = frame.axes("step", f"validation {name}") + frame.path(points, "line two")
    title = f"Validation {name} at {len(points)} evaluations"
    for step, value in points:
        x, y, chosen = frame.px(step), frame.py(value), step == best_step
        style, radius = ("best", 6) if chosen else ("dot", 3.5)
        inside += f'<circle class="{style}" cx="{x}" cy="{y}" r="{radius}"><title>step {step}: {value:.4f}</title></circle>'
        if chosen:
            left = x > frame.width * 0.75
            inside += text(x + (-10 if left else 10), y - 9, f"ships: {value:.4g}", "end" if left else "start", "mark")
            title += f"; step {step} ships, with {value:.4g}"
    return svg(frame.width, frame.height, title, inside)


def confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """A heat map, a row for each true label; the shade is the share of the row's true label."""
    size = max(26, min(64, 620 // len(labels)))
    shown = [shorten(label, 20) for label in labels]
    wide = max(columns(s) for s in shown)
    upright = wide * 7 < size
    left, top = 34 + wide * 7, 40 if upright else 30 + wide * 5
    cells = []
    for i, row in enumerate(matrix):
        y = top + i * size
        cells.append(text(left - 8, y + size / 2 + 4, shown[i], "end", "label"))
        cells += [_cell(left + j * size, y, size, (i, j, count, sum(row)), labels) for j, count in enumerate(row)]
    for j, words in enumerate(shown):
        x = left + (j + 0.5) * size
        turned = f'<text class="label" transform="translate({x:.0f} {top - 7:.0f}) rotate(-40)">{escape(words)}</text>'
        cells.append(text(x, top - 8, words, style="label") if upright else turned)
    middle, extent = left + len(labels) * size / 2, len(labels) * size
    cells.append(text(middle, 13, "said", style="name"))
    cells.append(f'<text class="name" text-anchor="middle" transform="translate(12 {top + extent / 2}) rotate(-90)">true</text>')
    title = f"Confusion matrix of {len(labels)} labels: rows are true labels, columns the labels that were said"
    return svg(left + extent + (8 if upright else wide * 5), top + extent + 6, title, "".join(cells))


def _cell(x: float, y: float, size: int, what: tuple[int, int, int, int], labels: Sequence[str]) -> str:
    """One cell, for (true, said, rows, rows of the true label)."""
    true, said, count, total = what
    share = count / max(total, 1)
    words = escape(f"true {labels[true]}, said {labels[said]}: {count:,} rows, {share:.1%} of its true label")
    kind = "right" if true == said else "wrong"
    box = f'x="{x}" y="{y}" width="{size - 2}" height="{size - 2}" rx="3"'
    shade = share if true == said else share**0.5  # a few errors are what a reader looks for
    rect = f'<rect class="empty" {box}/><rect class="{kind}" {box} fill-opacity="{shade:.3f}"/>'
    style = "on" if shade > 0.55 else "count" if count else "zero"
    return f"<g><title>{words}</title>{rect}{text(x + size / 2 - 1, y + size / 2 + 4, f'{count}', style=style)}</g>"


def reliability(bins: Sequence[dict[str, Any]], ece: float) -> str:
    """Share of hits against the mean score of each bin, with 95 % intervals, and the rows of each bin below."""
    frame = Frame((0, 1), (0, 1), width=460, height=430, bottom=112)
    low, rows = frame.height - frame.bottom, max(1, *(b["rows"] for b in bins))
    inside = frame.axes("", "share that is right") + frame.path([(0, 0), (1, 1)], "diagonal")
    inside += text(frame.px(0.5), low + 34, "score", style="name") + text(8, frame.height - 14, "rows", "start", "name")
    for each in (b for b in bins if b["rows"]):
        x, (least, most) = frame.px(each["score"]), intervals.share(each["hits"] * each["rows"], each["rows"])
        words = (
            f"{each['rows']:,} rows, mean score {each['score']:.3f}, right {each['hits']:.3f} (95 %: {least:.3f} to {most:.3f})"
        )
        inside += (
            f'<g><title>{words}</title><line class="whisker" x1="{x}" x2="{x}" y1="{frame.py(least)}" y2="{frame.py(most)}"/>'
        )
        inside += f'<circle class="dot" cx="{x}" cy="{frame.py(each["hits"])}" r="4.5"/>'
        tall = max(1.0, 48 * each["rows"] / rows)
        start, wide = frame.px(each["from"]), frame.px(each["to"]) - frame.px(each["from"])
        box = f'x="{start + 1}" width="{wide - 2:.1f}" y="{frame.height - 8 - tall:.1f}" height="{tall:.1f}"'
        inside += f'<rect class="bar" {box}/></g>'
    return svg(frame.width, frame.height, f"Reliability diagram: expected calibration error {ece:.4f}", inside)


def scatter(points: Sequence[Sequence[float]]) -> str:
    """Numbers that were said against those that are true."""
    both = span([v for point in points for v in point])
    frame = Frame(both, both, width=460, height=420)
    inside = frame.axes("true", "said") + frame.path([(v, v) for v in both], "diagonal")
    inside += "".join(f'<circle class="faint" cx="{frame.px(t)}" cy="{frame.py(s)}" r="2.6"/>' for t, s in points)
    return svg(frame.width, frame.height, f"Numbers that were said against true numbers, {len(points)} rows", inside)


def lengths(histogram: Sequence[dict[str, int]], name: str, limit: int | None = None) -> str:
    """How many texts have how many tokens; the limit is marked where texts reach it."""
    end, most = histogram[-1]["to"] + 1, max(bar["texts"] for bar in histogram)
    frame = Frame((0, end), (0, 1.06 * most), width=300, height=190, left=52)
    inside = frame.axes(f"tokens of a text, {name}", "texts")
    for bar in (b for b in histogram if b["texts"]):
        x, y = frame.px(bar["from"]), frame.py(bar["texts"])
        wide, tall = frame.px(bar["to"] + 1) - x - 1, frame.height - frame.bottom - y
        words = f"{bar['from']} to {bar['to']} tokens: {bar['texts']:,} texts"
        inside += f'<rect class="bar" x="{x}" y="{y}" width="{wide:.1f}" height="{tall:.1f}"><title>{words}</title></rect>'
    if limit is not None and limit < end:
        x = frame.px(limit)
        inside += f'<line class="limit" x1="{x}" x2="{x}" y1="{frame.top}" y2="{frame.height - frame.bottom}"/>'
        inside += text(x - 4, frame.top + 9, f"cut at {limit}", "end", "tick")
    return svg(frame.width, frame.height, f"Lengths of the texts of {name} in tokens, up to {end - 1}", inside)


def columns(words: str) -> int:
    """Widths of a letter that words take; a Chinese character takes two.

    >>> columns("a好")
    3
    """
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in words)


def shorten(words: str, most: int) -> str:
    """Words that take at most so many columns; what is left out shows as three dots."""
    if columns(words) <= most:
        return words
    while columns(words) > most - 1:
        words = words[:-1]
    return words + "…"
