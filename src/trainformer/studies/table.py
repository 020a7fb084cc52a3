"""A plain table for the terminal: columns as wide as their widest cell, numbers to the right."""

from collections.abc import Sequence

from trainformer.trust.figures import columns, shorten

WIDEST = 60
"""Columns that a cell may take, but one of the first column, which names the row; what is left out shows as three dots."""


def plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of text. The first column stands to the left, and any whose name ends in a space; the others to the right.

    >>> print(plain(["run", "rows"], [["a", "10"], ["bc", "9"]]))
    run  rows
    a      10
    bc      9
    """
    cells = [[row[0], *(shorten(cell, WIDEST) for cell in row[1:])] for row in [[h.strip() for h in head], *rows]]
    wide = [max(columns(row[i]) for row in cells) for i in range(len(head))]
    left = [i == 0 or name.endswith(" ") for i, name in enumerate(head)]
    lines = []
    for row in cells:
        padded = [_padded(cell, wide[i], left[i]) for i, cell in enumerate(row)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _padded(cell: str, wide: int, left: bool) -> str:
    room = " " * (wide - columns(cell))
    return cell + room if left else room + cell
