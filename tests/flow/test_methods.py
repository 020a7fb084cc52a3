"""Methods that need more of a run than its loss: columns of the file, a teacher, evaluations; and what they refuse."""

from pathlib import Path
from typing import Any

import pytest

from trainformer import train
from trainformer.core.errors import UserError


@pytest.fixture
def go(tiny_model: Path, tmp_path: Path, write: Any, rows: Any) -> Any:
    """`go("name", method)`: a run of two epochs on 60 reviews with a group and a number for each."""
    given = [row | {"source": "abc"[i % 3], "hard": i % 7} for i, row in enumerate(rows(60))]
    data, held = write("train.jsonl", given), write("held.jsonl", rows(20, seed=1))

    def run(name: str, method: Any, **words: Any) -> Any:
        settings = {"data.cache": str(tmp_path / "cache"), "train.precision": "float32", "train.epochs": 2, "data.test_share": 0}
        return train(data, out=tmp_path / name, validation=held, model=str(tiny_model), config={"method": method},
                     set=settings | words)  # fmt: skip

    return run


def test_columns_and_checkpoints_reach_the_methods(go: Any, write: Any, rows: Any) -> None:
    method = {"curriculum": {"by": "column", "column": "hard"}, "group_dro": {"column": "source"}, "soup": {"keep": 3}}
    result = go("run", method, **{"train.evals_per_epoch": 2, "train.micro_tokens": 40})
    held = write("again.jsonl", rows(20, seed=1))
    assert result.bundle.evaluate(held)["accuracy"] == result.scores["validation"]["accuracy"]


def test_a_pupil_learns_from_a_bundle(go: Any, trained: Path) -> None:
    result = go("run", {"distil": {"teacher": str(trained / "bundle"), "hidden": 1.0}})
    assert result.bundle.labels == ["bad", "good"]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"distil": {}}, r"there is no teacher"),
        ({"distil": {"teacher": "nowhere"}}, r"nowhere: no such folder"),
        ({"group_dro": {"column": "sorce"}}, r"no column 'sorce'\. Did you mean 'source'\?"),
        ({"group_dro": {"column": "label2"}}, r"no column 'label2'\. Did you mean 'label'\?"),
        ({"curriculum": {"by": "column"}}, r"`by: column` and the name of a column go together"),
        ({"curriculum": {"by": "column", "column": "text"}}, r"'text' is '.*', not a number"),
        ({"curriculum": {"start": 0}}, r"start"),
        ({"swa": {}, "ema": {}}, r"cannot be used together"),
        ({"reinit": {"layers": 5}}, r"5 of 2 layers would begin anew"),
        ({"mixup": {"alpha": 0}}, r"alpha"),
        ({"sam": {"rho": -1}}, r"rho"),
        ({"freelb": {"steps": 0}}, r"steps"),
        ({"vat": {"iterations": 1.5}}, r"iterations"),
        ({"soup": {"keep": 1}}, r"keep"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_settings_are_refused_before_training(method: Any, message: str, go: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        go("run", method)
    assert not (tmp_path / "run").exists()
