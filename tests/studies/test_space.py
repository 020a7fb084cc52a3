"""What a `search` section means: which settings a proposal gives, in which trials."""

from pathlib import Path
from typing import Any

import jsonschema
import optuna
import pytest
import yaml

from trainformer.core import config
from trainformer.studies import good, settings, space

TEXT = """
search:
  train:
    lr: {log: [1e-5, 5e-4]}
  method.lora.rank: {int: [2, 6]}
  method: {choice: [[llrd, ema], [lora], {ema: {decay: 0.9}}]}
  model.dropout: {float: [0, 0.3]}
  train.optimizer: {choice: [adamw, sgd]}
  callbacks.early_stopping.patience: {int: [1, 4]}
"""


@pytest.fixture
def base(tiny_model: Path) -> config.Config:
    return config.parse({"data": {"train": "a.jsonl"}, "model": str(tiny_model)})


@pytest.fixture
def made(base: config.Config) -> space.Space:
    return space.parse(yaml.safe_load(TEXT)["search"], base)


def fixed(**values: Any) -> Any:
    """A trial that proposes what it is told."""
    return optuna.trial.FixedTrial({name.replace("__", "."): value for name, value in values.items()})


COMMON = {"model__dropout": 0.2, "train__optimizer": "sgd", "train__lr": 1e-4, "callbacks__early_stopping__patience": 2}


def test_yaml_reads_1e_5_as_a_word_and_it_is_a_number(made: space.Space) -> None:
    lr = next(d for d in made.dimensions if d.name == "train.lr")
    assert (lr.kind, lr.low, lr.high) == ("log", 1e-5, 5e-4)


def test_a_proposal_becomes_a_configuration(made: space.Space) -> None:
    chosen = made.propose(fixed(method='["llrd", "ema"]', **COMMON))
    parsed = config.parse(made.apply(chosen))
    assert (parsed.train.lr, parsed.train.optimizer) == (1e-4, "sgd")
    assert parsed.model.settings()["dropout"] == 0.2
    assert parsed.callbacks["early_stopping"].settings()["patience"] == 2
    assert {n: m.settings() for n, m in parsed.method.items()} == {"llrd": {"decay": 0.9}, "ema": {"decay": 0.99}}, (
        "as in the base"
    )


def test_a_rank_is_only_proposed_where_there_is_lora(made: space.Space) -> None:
    with_lora = made.propose(fixed(method='["lora"]', method__lora__rank=5, **COMMON))
    assert with_lora["method.lora.rank"] == 5
    parsed = config.parse(made.apply(with_lora))
    assert list(parsed.method) == ["lora"] and parsed.method["lora"].settings()["rank"] == 5
    without = made.propose(fixed(method='{"ema": {"decay": 0.9}}', **COMMON))
    assert "method.lora.rank" not in without
    assert config.parse(made.apply(without)).method["ema"].settings()["decay"] == 0.9


def test_proposals_stay_in_their_ranges(made: space.Space) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    seen: list[dict[str, Any]] = []
    for _ in range(60):
        seen.append(made.propose(study.ask()))
        config.parse(made.apply(seen[-1]))
    ranks = {s["method.lora.rank"] for s in seen if "method.lora.rank" in s}
    assert ranks == {2, 3, 4, 5, 6}
    rates = sorted(s["train.lr"] for s in seen)
    assert 1e-5 <= rates[0] < 3e-5 and 2e-4 < rates[-1] <= 5e-4
    assert 0.25 < sum(rate < 7e-5 for rate in rates) / 60 < 0.75, "half of a logarithmic range lies below its middle, 7e-5"
    assert all((s["method"] == ["lora"]) == ("method.lora.rank" in s) for s in seen)


def test_a_section_is_read_back(made: space.Space, base: config.Config) -> None:
    assert space.parse(made.sections(), base) == made


def test_where_the_configuration_itself_lies(made: space.Space, base: config.Config) -> None:
    settled = base.dump()
    settled["train"]["lr"] = 2e-4
    assert made.found_in(settled) == {
        "method": '["llrd", "ema"]', "train.lr": 2e-4, "train.optimizer": "adamw", "callbacks.early_stopping.patience": 3,
    }  # fmt: skip
    settled["train"]["lr"] = 1.0
    settled["method"] = {"lora": {"rank": 4}}
    found = made.found_in(settled)
    assert "train.lr" not in found and "method" not in found, "what lies outside has no place"
    assert found["method.lora.rank"] == 4


def test_the_schema_takes_the_sections() -> None:
    whole = settings.schema()
    jsonschema.Draft202012Validator.check_schema(whole)
    values = {"data": {"train": "a"}, "search": yaml.safe_load(TEXT)["search"], "study": {"minutes": 30, "sampler": "random"}}
    values["search"].pop("train")
    jsonschema.validate(values | {"search": values["search"] | {"train.lr": {"log": ["1e-5", 1e-3]}}}, whole)
    for bad in ({"study": {"minute": 3}}, {"search": {"train.lr": {"logg": [1, 2]}}}, {"search": {"train.lr": {"log": [1]}}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, whole)


def test_the_good_space_lies_around_the_recipe(base: config.Config) -> None:
    settled = base.dump()
    settled["train"] |= {"lr": 1e-3, "epochs": 6.0}
    found = good.space(settled, [])
    assert found["train.lr"] == {"log": [2.5e-4, 4e-3]}
    assert found["train.epochs"] == {"int": [3, 9]}
    made = space.parse(found, base)
    assert set(made.found_in(settled)) == set(found)


def test_the_good_space_leaves_what_was_set(base: config.Config) -> None:
    settled = base.dump()
    settled["train"] |= {"lr": 1e-3, "epochs": 1.0}
    found = good.space(settled, ["train.lr", "method", "method.llrd.decay"])
    assert not {"train.lr", "method", "method.llrd.decay"} & set(found)
    assert found["train.epochs"] == {"int": [1, 2]}
    settled["method"] = {"lora": {}}
    assert "method" not in good.space(settled, []) and "method.llrd.decay" not in good.space(settled, [])


def test_a_method_of_another_package_has_dots() -> None:
    assert space.split("method.my_package.my_method.rank") == ["method", "my_package.my_method", "rank"]
    assert space.split("method.lora.rank") == ["method", "lora", "rank"]
    assert space.split("train.lr") == ["train", "lr"]
    assert space.split("method") == ["method"]


def test_the_example_is_the_page_and_is_valid(tiny_model: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    text = (root / "examples" / "search" / "sentiment.yaml").read_text(encoding="utf-8")
    shown = (root / "docs" / "search.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    assert text.endswith(shown)
    values = yaml.safe_load(text)
    jsonschema.validate(values, settings.schema())
    assert settings.parse(values["study"], "study").minutes == 30
    base = config.parse({"data": values["data"], "model": str(tiny_model), "train": values["train"]})
    assert len(space.parse(values["search"], base).dimensions) == 5
