"""Masks what names a person in a text before it is logged: e-mail, card, identity and phone numbers."""

import re
from collections.abc import Callable
from functools import reduce

Check = Callable[[str], bool]
DIGITS = re.compile(r"\D")
CN_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
CN_LAST = "10X98765432"


def luhn(number: str) -> bool:
    """Whether the last digit fits the others (ISO/IEC 7812), as on payment cards."""
    digits = [int(d) for d in reversed(DIGITS.sub("", number))]
    doubled = [d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)]
    return 13 <= len(digits) <= 19 and sum(doubled) % 10 == 0


def chinese_identity(number: str) -> bool:
    """Whether the last character fits the seventeen digits (GB 11643-1999)."""
    return CN_LAST[sum(int(d) * w for d, w in zip(number, CN_WEIGHTS, strict=False)) % 11] == number[-1].upper()


def iban(number: str) -> bool:
    """Whether the check digits fit (ISO 13616)."""
    packed = number.replace(" ", "").upper()
    return int("".join(str(int(c, 36)) for c in packed[4:] + packed[:4])) % 97 == 1


def _long_enough(number: str) -> bool:
    return 8 <= len(DIGITS.sub("", number)) <= 15


MASKS: list[tuple[str, re.Pattern[str], Check]] = [
    ("[e-mail]", re.compile(r"[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"), lambda _: True),
    ("[identity]", re.compile(r"(?<![0-9A-Za-z])[1-9][0-9]{16}[0-9Xx](?![0-9A-Za-z])"), chinese_identity),
    ("[identity]", re.compile(r"(?<![\d-])(?!000|666|9\d\d)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![\d-])"), lambda _: True),
    ("[identity]", re.compile(r"\b[A-CEGHJ-PR-TW-Z]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]\b"), lambda _: True),
    ("[account]", re.compile(r"\b[A-Z]{2}[0-9]{2}(?: ?[0-9A-Z]{4}){2,7}(?: ?[0-9A-Z]{1,3})?\b"), iban),
    ("[card]", re.compile(r"(?<![0-9])[0-9](?:[ -]?[0-9]){12,18}(?![0-9])"), luhn),
    ("[phone]", re.compile(r"(?<![\w.])\+?(?:\([0-9]{1,4}\)[ -]?)?[0-9](?:[ .()/-]{0,2}[0-9]){7,14}(?![\w])"), _long_enough),
]
"""Name, pattern, and what tells a number from others of its form. Order: the stricter first."""


def masked(text: str) -> str:
    """The text with each such place replaced by the name of its kind. It masks too much rather than too little.

    >>> masked("mail ann@example.org or call +44 20 7946 0958")
    'mail [e-mail] or call [phone]'
    """
    return reduce(_mask, MASKS, text)


def _mask(text: str, kind: tuple[str, re.Pattern[str], Check]) -> str:
    name, pattern, check = kind
    return pattern.sub(lambda m: name if check(m[0]) else m[0], text)
