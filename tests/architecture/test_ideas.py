"""docs/ideas.md points at the lines that compute its formulas, and each pointer is right.

python tests/architecture/test_ideas.py     # mends the line numbers
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "ideas.md"
POINTER = re.compile(r"`([\w/]+\.py):(\d+)` `([^`]+)`")
MEND = "If the code moved: python tests/architecture/test_ideas.py"


def lines(file: str) -> list[str]:
    return (ROOT / "src" / "trainformer" / file).read_text(encoding="utf-8").splitlines()


def wrong(page: str) -> list[str]:
    """The pointers whose line does not say what they say."""
    found = POINTER.findall(page)
    return [f"{f}:{n} {code}" for f, n, code in found if code not in "".join(lines(f)[int(n) - 1 : int(n)])]


def mended(page: str) -> str:
    def at(match: re.Match[str]) -> str:
        file, _, code = match.groups()
        places = [number for number, line in enumerate(lines(file), 1) if code in line]
        assert len(places) == 1, f"{file}: {len(places)} lines say {code}"
        return f"`{file}:{places[0]}` `{code}`"

    return POINTER.sub(at, page)


def test_every_pointer_is_right() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert len(POINTER.findall(page)) >= 20
    assert wrong(page) == [], MEND


def test_a_wrong_pointer_is_found() -> None:
    right = "`models/transformer.py:1` `The Transformer`"
    assert wrong(right) == [] and wrong(right.replace(":1`", ":2`")) == ["models/transformer.py:2 The Transformer"]


if __name__ == "__main__":
    PAGE.write_text(mended(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
