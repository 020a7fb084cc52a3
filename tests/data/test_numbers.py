"""What counts as a number, and what is refused."""

import math

import pytest

from trainformer.core.errors import UserError
from trainformer.data.numbers import number


@pytest.mark.parametrize(("value", "expected"), [(3, 3.0), (-2.5, -2.5), ("1e3", 1000.0), (" 4.5 ", 4.5), ("-0", 0.0)])
def test_numbers_and_text_that_is_one(value, expected):
    assert number(value) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "the target is null"),
        ("", "the target is empty"),
        (True, "the target is True, not a number"),
        ([1], r"the target is \[1\], not a number"),
        ("4 stars", "'4 stars' is not a number"),
        ("1_000", "'1_000' is not a number"),
        ("3,5", "Write decimals with a point"),
        ("nan", "the target is nan: it must be finite"),
        (math.inf, "the target is inf: it must be finite"),
        (10**400, "it must be finite"),
    ],
)
def test_what_is_no_number_is_refused(value, message):
    with pytest.raises(UserError, match=message):
        number(value)
