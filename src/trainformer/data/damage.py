"""Signs that a text was decoded or cut wrongly before it reached us: mojibake, replacement and control characters."""

import re
import unicodedata

CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f]")
REPLACED = re.compile("\ufffd|锟斤拷")
CP1252 = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
TWICE = re.compile(f"[\xc2-\xf4][\x80-\xbf{CP1252}]+")
"""UTF-8 read as Latin-1 or Windows-1252: a lead byte and what follows it, each shown as a letter of its own."""
HANZI = re.compile("[\u2e80-\u9fff\ue000-\uf8ff]{6}")

DAMAGE = {
    "mojibake": "texts that look like UTF-8 read in another encoding (as in 'Ã©', 'â€™')",
    "replacement_characters": "texts with U+FFFD or its traces, where characters were lost in a conversion",
    "control_characters": "texts with control characters or NUL",
}
FIXES = {
    "mojibake": "Export the rows again as UTF-8; the package ftfy repairs most of such texts.",
    "replacement_characters": "Export the rows again from where they came, as UTF-8.",
    "control_characters": "Take them out.",
}


def damage(text: str) -> list[str]:
    """The signs that a text shows, as keys of DAMAGE.

    >>> damage("cafÃ© au lait"), damage("café au lait"), damage("a\\x00b")
    (['mojibake'], [], ['control_characters'])
    """
    if text.isascii() and text.isprintable():
        return []
    found = []
    if not text.isascii() and (_read_as_latin(text) or _read_as_gbk(text)):
        found.append("mojibake")
    if REPLACED.search(text):
        found.append("replacement_characters")
    if "mojibake" not in found and CONTROL.search(text):
        found.append("control_characters")
    return found


def _read_as_latin(text: str) -> bool:
    return any(_decodes(match.group()) for match in TWICE.finditer(text))


def _decodes(group: str) -> bool:
    """Whether the letters, taken back to bytes, begin with a character that people write."""
    raw = b"".join(c.encode("cp1252") if c in CP1252 else c.encode("latin-1") for c in group)
    width = 2 if raw[0] < 0xE0 else 3 if raw[0] < 0xF0 else 4
    try:
        char = raw[:width].decode("utf-8")
    except UnicodeDecodeError:
        return False
    if width == 2:
        return raw[0] in (0xC2, 0xC3, 0xD0, 0xD1)
    return unicodedata.category(char) not in ("Cn", "Co", "Cs")


def _read_as_gbk(text: str) -> bool:
    """UTF-8 read as GBK shows other characters whose GBK bytes are UTF-8, which next to no Chinese text is."""
    match = HANZI.search(text)
    if match is None:
        return False
    try:
        return len(match.group().encode("gbk").decode("utf-8")) == 4
    except UnicodeError:
        return False
