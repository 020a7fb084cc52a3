"""The ranks of the layers over time as inline SVG: a row a layer, a column an allocation; the darker, the higher the rank."""

from collections.abc import Sequence
from html import escape
from typing import Any

from trainformer.trust.figures import columns, svg, text

HIGH, WIDE, TOP = 11, 7, 30


def ranks(told: dict[str, Any]) -> str:
    """`told` has `steps` and, for each layer by name, its rank at each of them."""
    steps, layers = told["steps"], told["ranks"]
    most = max(max(r) for r in layers.values())
    shown = {name: _short(name) for name in layers}
    left = 12 + 6 * max(columns(s) for s in shown.values())
    rows = [_row(TOP + i * HIGH, left, shown[n], layers[n], most, steps) for i, n in enumerate(layers)]
    middle = left + len(steps) * WIDE / 2
    head = text(middle, 13, f"step {steps[0]:,} to {steps[-1]:,}", style="name")
    last = [r[-1] for r in layers.values()]
    title = f"Rank of {len(layers)} layers over time, at most {most}; in the end from {min(last)} to {max(last)}"
    return svg(left + len(steps) * WIDE + 34, TOP + len(layers) * HIGH + 8, title, head + "".join(rows))


def _row(y: float, left: float, name: str, values: Sequence[int], most: int, steps: Sequence[int]) -> str:
    found = [text(left - 6, y + HIGH - 3, name, "end", "tick")]
    for i, (step, value) in enumerate(zip(steps, values, strict=True)):
        box = f'x="{left + i * WIDE}" y="{y}" width="{WIDE}" height="{HIGH - 1}"'
        words = escape(f"{name}, step {step}: rank {value}")
        found.append(f'<g><title>{words}</title><rect class="right" {box} fill-opacity="{value / max(most, 1):.2f}"/></g>')
    found.append(text(left + len(steps) * WIDE + 6, y + HIGH - 3, str(values[-1]), "start", "tick"))
    return "".join(found)


def _short(name: str) -> str:
    """The number of the layer and the end of its name, as `3 attention.self.query`."""
    words = name.split(".")
    at = max((i for i, w in enumerate(words) if w.isdigit()), default=-1)
    return f"{words[at]} {'.'.join(words[at + 1 :])}" if at >= 0 else name
