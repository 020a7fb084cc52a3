"""A text as two: cut at the end of a sentence, as near to its middle as there is one."""

import re

ENDS = re.compile(r"[.!?;][\"')\]]*\s+|[。！？；…]+[”’」』）]*|\n+")
SPACE = re.compile(r"\s+")


def halves(text: str) -> tuple[str, str]:
    """Two parts that together are the text: cut behind a sentence, else at a space, else in the middle.

    >>> halves("It rained. We stayed in. Nobody came.")
    ('It rained. We stayed in. ', 'Nobody came.')
    >>> halves("下雨了。我们没出门。")
    ('下雨了。', '我们没出门。')
    """
    middle = len(text) / 2
    for pattern in (ENDS, SPACE):
        places = [m.end() for m in pattern.finditer(text) if m.end() < len(text)]
        if places:
            here = min(places, key=lambda place: abs(place - middle))
            return text[:here], text[here:]
    return text[: len(text) // 2], text[len(text) // 2 :]
