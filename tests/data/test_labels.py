"""What counts as a label, in which order, and what is refused."""

import math

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from trainformer.core.errors import UserError
from trainformer.data.labels import balanced_weights, in_order, label_text


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("pos", "pos"),
        (3, "3"),
        (-1, "-1"),
        (2.0, "2"),
        (0.5, "0.5"),
        (True, "true"),
        (False, "false"),
        ("1.0", "1.0"),
        ("好评", "好评"),
    ],
)
def test_any_json_scalar_is_a_label(label, text):
    assert label_text(label) == text


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, "the label is null"),
        ("  ", "the label is empty"),
        (math.nan, "the label is nan"),
        (math.inf, "the label is inf"),
        (["a"], r"a list .*--task multi_label"),
        ({"a": 1}, "the label is dict"),
    ],
)
def test_what_is_no_label_is_refused(label, message):
    with pytest.raises(UserError, match=message):
        label_text(label)


def test_order():
    assert in_order(["10", "9", "-1", "2.5"]) == ["-1", "2.5", "9", "10"]
    assert in_order(["b", "10", "a", "9"]) == ["10", "9", "a", "b"]
    assert in_order(["nan", "1"]) == ["1", "nan"]


def test_balanced_weights_are_sklearns():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=[0] * 6 + [1] * 3 + [2])
    assert balanced_weights([6, 3, 1]) == pytest.approx(expected.tolist())
    assert balanced_weights([6, 0, 2]) == [8 / 12, 1.0, 2.0]
