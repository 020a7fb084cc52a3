"""What is masked, and what is not."""

import doctest

import pytest

from trainformer.serve import masks
from trainformer.serve.masks import masked


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ann.o-neil+x@mail.example.co.uk", "[e-mail]"),
        ("4111 1111 1111 1111", "[card]"),  # the test number of Visa
        ("5500-0000-0000-0004", "[card]"),  # of Mastercard
        ("340000000000009", "[card]"),  # of American Express
        ("11010519491231002X", "[identity]"),  # the example of GB 11643-1999
        ("078-05-1120", "[identity]"),  # the best known social security number of the USA
        ("AB 12 34 56 C", "[identity]"),  # a national insurance number of the UK
        ("GB82 WEST 1234 5698 7654 32", "[account]"),  # the example of ISO 13616
        ("DE89370400440532013000", "[account]"),
        ("+44 20 7946 0958", "[phone]"),
        ("(030) 1234 5678", "[phone]"),
        ("13800138000", "[phone]"),
        ("555-123-4567", "[phone]"),
    ],
)
def test_these_are_masked(text: str, kind: str) -> None:
    assert masked(f"so {text}, he said") == f"so {kind}, he said"
    assert masked(text) == kind


@pytest.mark.parametrize(
    "text", ["a film of 2024", "12.5 of 100", "at @home", "page 1234567", "1,000,000", "v1.2.3", "10:30", "3-4 stars"]
)
def test_these_are_not(text: str) -> None:
    assert masked(text) == text


def test_check_digits() -> None:
    assert masks.luhn("4111111111111111") and not masks.luhn("4111111111111112")
    assert masks.chinese_identity("11010519491231002X") and not masks.chinese_identity("110105194912310021")
    assert masks.iban("GB82WEST12345698765432") and not masks.iban("GB82WEST12345698765433")


def test_the_example() -> None:
    assert doctest.testmod(masks).failed == 0


def test_a_long_text_is_masked_in_no_time() -> None:
    """No pattern runs away on texts that nearly fit."""
    for text in ("1 " * 50_000, "a" * 100_000 + "@", "a.b@" * 25_000, "(1) " * 25_000, "AB" * 50_000):
        masked(text)
