"""What is said, from scores worked out by hand."""

import pytest
import torch

from trainformer.core.errors import UserError
from trainformer.core.roles import Decision
from trainformer.metrics.decide import AnyOf, OneOf, check_labels, number_answers, numbers


def logits(*rows):
    return torch.tensor(rows, dtype=torch.float64).log()


def labels(rule, output, **decision):
    return [a["label"] for a in rule.answers(output, Decision(**decision))]


ONE, ANY = OneOf(["a", "b", "c"]), AnyOf(["a", "b", "c"])
ROWS = logits([0.5, 0.3, 0.2], [0.2, 0.3, 0.5])


def test_answer_of_one_label():
    first = ONE.answers(ROWS, Decision())[0]
    assert first == {"label": "a", "score": pytest.approx(0.5), "scores": pytest.approx({"a": 0.5, "b": 0.3, "c": 0.2})}


def test_temperature_flattens():
    # roots of 0.5, 0.3, 0.2, scaled to one
    roots = [x**0.5 for x in (0.5, 0.3, 0.2)]
    scores = ONE.answers(ROWS, Decision(temperature=2.0))[0]["scores"]
    assert list(scores.values()) == pytest.approx([r / sum(roots) for r in roots])


def test_thresholds_hold_a_label_back_unless_none_reaches_its_own():
    assert labels(ONE, ROWS, thresholds={"a": 0.6}) == ["b", "c"]
    assert labels(ONE, ROWS, thresholds={"a": 0.6, "b": 0.9, "c": 0.9}) == ["a", "c"]
    assert ONE.answers(ROWS, Decision(thresholds={"a": 0.6}))[0]["score"] == pytest.approx(0.3)


def test_costs_choose_the_least_expected():
    # saying a costs 5 x 0.2 where c is true; saying c costs 0.1 x 0.5 where a is true
    costs = {"a": {"c": 5.0}, "c": {"a": 0.1, "b": 0.1}}
    assert labels(ONE, ROWS, costs=costs) == ["c", "c"]


def test_silence():
    answers = ONE.answers(ROWS[:1], Decision(abstain=0.51))
    assert answers[0]["label"] is None and answers[0]["abstained"] is True and answers[0]["score"] == pytest.approx(0.5)
    assert "abstained" not in ONE.answers(ROWS[:1], Decision(abstain=0.49))[0]


def test_any_number_of_labels():
    output = torch.tensor([[2.0, 0.0, -1.0], [-2.0, -1.0, -3.0]])
    first, second = ANY.answers(output, Decision())
    assert first["label"] == ["a", "b"] and first["score"] == pytest.approx(0.5)
    assert second["label"] == [] and second["score"] == pytest.approx(1 - torch.tensor(-1.0).sigmoid().item())
    assert labels(ANY, output, thresholds={"b": 0.2, "a": 0.95}) == [["b"], ["b"]]
    assert labels(ANY, output, abstain=0.6) == [None, []]


def test_numbers():
    output = torch.tensor([[1.0], [-5.0]])
    assert number_answers(numbers(output, 3.0, 2.0)) == [
        {"label": 5.0, "score": None, "scores": {}},
        {"label": -7.0, "score": None, "scores": {}},
    ]
    assert numbers(output, 3.0, 2.0, 0.0, 4.0).tolist() == [4.0, 0.0]


def test_an_unknown_label_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"no label 'positiv'. Did you mean 'positive'\?"):
        check_labels(["positiv"], ["negative", "positive"], "decision.costs")
