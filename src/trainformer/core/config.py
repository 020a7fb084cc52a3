"""Everything that can be set, in one schema: YAML, flags, `--set section.key=value` and the reference all come from it."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError

from trainformer.core import registry
from trainformer.core.component import Component, explain
from trainformer.core.errors import UserError, nearest
from trainformer.core.roles import Backbone, Callback, Method, Task
from trainformer.core.train_settings import TrainSettings as TrainSettings

Share = Annotated[float, Field(ge=0, lt=1)]
METHODS: dict[str, dict[str, Any]] = {"llrd": {}, "ema": {"decay": 0.99}}
"""The default recipe's methods: layer-wise rates, and an average of the weights over about a hundred steps."""
CALLBACKS: dict[str, dict[str, Any]] = {"console": {}, "early_stopping": {}}


class DataSettings(Component):
    """Where the rows come from and what their columns mean."""

    train: str | None = None
    """File of training rows (.jsonl, .csv, .tsv, .parquet) or, online, the name of a data set of the hub."""
    validation: str | None = None
    """File of validation rows, which choose the epoch and the decision layer; none: a share of the training rows."""
    test: str | None = None
    """File of test rows, scored once at the end; none: a share of the training rows."""
    text: str | None = None
    """Column of the text; none: found by its name and content, and said."""
    text_b: str | None = None
    """Column of the second text of a pair."""
    label: str | None = None
    """Column of the label or, for regression, of the number; none: found by its name, and said."""
    weight: str | None = None
    """Column of row weights, 0 or more; they are scaled so that their mean is 1."""
    max_tokens: int | None = Field(None, ge=8)
    """Longest sequence in tokens, special tokens included; none: 512, or less if the model takes less."""
    validation_share: Share = 0.1
    """Share of the training rows that validates, 0..1, where no validation file is given."""
    test_share: Share = 0.1
    """Share of the training rows that tests, 0..1, where no test file is given; 0: no test."""
    cache: str | None = None
    """Folder of the token cache; none: the user's cache folder."""


class DecisionSettings(Component):
    """How scores become answers; everything here is fitted on validation, never on test."""

    calibrate: bool = True
    """Fit one temperature (Guo et al. 2017, arXiv:1706.04599), so that a score of 0.8 is right 8 times in 10."""
    thresholds: Literal["none", "f1"] = "none"
    """Least score to say a label: none, or for each label the one of the best F1."""
    abstain_error: float | None = Field(None, gt=0, lt=1)
    """Say nothing where the error would be larger: the band that keeps the error of what is said below this share."""
    costs: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Cost of saying one label where another is true, `costs[said][true]`; the label of least expected cost is said."""


def _named(role: Any, key: str, default: str) -> BeforeValidator:
    """A component from `NAME` or `{key: NAME, setting: value}`."""

    def make(value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict):
            return value
        settings = dict(value)
        return registry.build(role, settings.pop(key, default), settings)

    return BeforeValidator(make)


def _several(role: Any) -> BeforeValidator:
    """Components by name, in order, from a list of names or `{NAME: {setting: value}}`."""

    def make(value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list):
            value = {name: {} for name in value}
        if not isinstance(value, dict):
            return value
        return {n: s if isinstance(s, role) else _inside(role, n, s) for n, s in value.items()}

    return BeforeValidator(make)


def _inside(role: Any, name: str, settings: Any) -> Any:
    if not isinstance(settings, dict | None):
        raise UserError(f"the settings of '{name}' must be a mapping, not {settings!r}.")
    try:
        return registry.build(role, name, settings)
    except ValidationError as error:
        raise explain(error, name, {"": list(registry.find(role, name).model_fields)}) from error


class Config(Component):
    """A whole run. What is left out is chosen by the run, said, and written to RUN/config.yaml."""

    task: Annotated[SerializeAsAny[Task], _named(Task, "name", "text_classification")] = Field(
        default="text_classification", validate_default=True
    )
    """What is learnt: a name of `trainformer list tasks`, with its settings."""
    data: DataSettings = Field(default_factory=DataSettings)
    """Where the rows come from."""
    model: Annotated[SerializeAsAny[Backbone], _named(Backbone, "kind", "pretrained")] = Field(
        default_factory=dict, validate_default=True
    )
    """The encoder: its name or folder, with settings."""
    method: Annotated[dict[str, SerializeAsAny[Method]], _several(Method)] = Field(
        default_factory=lambda: dict(METHODS), validate_default=True
    )
    """Methods by name; their order is their nesting. Naming any replaces the default, `llrd` and `ema`."""
    train: TrainSettings = Field(default_factory=TrainSettings)
    """The loop."""
    decision: DecisionSettings = Field(default_factory=DecisionSettings)
    """How scores become answers."""
    callbacks: Annotated[dict[str, SerializeAsAny[Callback]], _several(Callback)] = Field(
        default_factory=lambda: CALLBACKS, validate_default=True
    )
    """What watches the run, by name. In a file, naming any replaces the default; a flag adds to what is there."""

    def dump(self) -> dict[str, Any]:
        """Plain values that `parse` reads back to an equal configuration."""
        plain = self.model_dump(mode="json")
        plain["task"] = {"name": type(self.task).key, **plain["task"]}
        plain["model"] = {"kind": type(self.model).key, **plain["model"]}
        return plain


SECTIONS = list(Config.model_fields)


def parse(values: dict[str, Any], where: str = "settings") -> Config:
    """A checked configuration. Raises UserError that names the setting, its value and the nearest right word."""
    try:
        config = Config(**values)
    except ValidationError as error:
        raise explain(error, where, _known(values)) from error
    for name, method in config.method.items():
        for other, reason in method.clashes.items():
            if other in config.method:
                raise UserError(f"the methods '{name}' and '{other}' cannot be used together: {reason}", where=where)
    return config


def _known(values: dict[str, Any]) -> dict[str, list[str]]:
    """The settings' names of each section, for suggestions."""
    known = {"": SECTIONS}
    for section, kind in (("data", DataSettings), ("train", TrainSettings), ("decision", DecisionSettings)):
        known[section] = list(kind.model_fields)
    roles: list[tuple[str, Any, str, str]] = [
        ("task", Task, "name", "text_classification"),
        ("model", Backbone, "kind", "pretrained"),
    ]
    for section, role, key, default in roles:
        given = values.get(section, {})
        name = given.get(key, default) if isinstance(given, dict) else str(given)
        if name in registry.names(role):
            known[section] = list(registry.find(role, name).model_fields)
    return known


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; safe loading only."""
    if not path.is_file():
        raise UserError("no such file.", where=str(path), fix=nearest_file(path))
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"it is not YAML: {str(error).replace(chr(10), ' ')}", where=str(path)) from error
    if not isinstance(values, dict):
        raise UserError("a mapping of sections is expected.", where=str(path), fix=f"Sections: {', '.join(SECTIONS)}.")
    return values


def nearest_file(path: Path) -> str:
    """The most similar name in the folder of a file that is not there."""
    folder = path.parent
    if not folder.is_dir():
        return f"There is no folder {folder}."
    return nearest(path.name, [p.name for p in folder.iterdir() if not p.name.startswith(".")])


def override(values: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """The values with `section.key=value` words laid over them. A value is JSON or YAML: 3, 1e-4, true, [a, b]."""
    merged: dict[str, Any] = json.loads(json.dumps(values))
    for word in assignments:
        path, equals, text = word.partition("=")
        if not equals or "." not in path:
            what = f"'{word}' is not of the form section.key=value."
            raise UserError(what, where="--set", fix=f"Sections: {', '.join(SECTIONS)}.")
        keys = path.split(".")
        if keys[0] == "method":
            merged.setdefault("method", {name: dict(given) for name, given in METHODS.items()})
        if keys[0] == "callbacks":
            merged.setdefault("callbacks", {name: {} for name in CALLBACKS})
        _put(merged, keys, scalar(text), word)
    return merged


def _put(values: dict[str, Any], path: list[str], value: Any, word: str) -> None:
    inner: Any = values
    for key in path[:-1]:
        if isinstance(inner.get(key), str):
            inner[key] = {"name": inner[key]}
        elif isinstance(inner.get(key), list):
            inner[key] = {name: {} for name in inner[key]}
        inner = inner.setdefault(key, {})
        if inner is None or not isinstance(inner, dict):
            raise UserError(f"'{word}': '{key}' has no settings inside.", where="--set")
    inner[path[-1]] = value


def scalar(text: str) -> Any:
    """The value that a word of the command line stands for."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"'{text}' is neither JSON nor YAML.", where="--set", fix="Put quotes around it.") from error


def dump_yaml(config: Config) -> str:
    """The complete configuration as YAML that can be run again."""
    return yaml.safe_dump(config.dump(), sort_keys=False, allow_unicode=True, width=120)


def schema() -> dict[str, Any]:
    """JSON Schema of a YAML file, every component's settings included: for editors that complete and check."""
    whole = Config.model_json_schema()
    defs = whole.setdefault("$defs", {})
    named: list[tuple[str, Any, str]] = [("task", Task, "name"), ("model", Backbone, "kind")]
    for section, role, key in named:
        choices = [_with_key(defs, c.model_json_schema(), key, n) for n, c in registry.classes(role)]
        whole["properties"][section] = {"anyOf": [{"type": "string"}, *choices]}
    several: list[tuple[str, Any]] = [("method", Method), ("callbacks", Callback)]
    for section, role in several:
        inside = {n: _hoist(defs, c.model_json_schema()) for n, c in registry.classes(role)}
        listed = {"type": "array", "items": {"type": "string"}}
        whole["properties"][section] = {"anyOf": [listed, {"type": "object", "properties": inside}]}
    return whole


def _hoist(defs: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    defs.update(part.pop("$defs", {}))
    return part


def _with_key(defs: dict[str, Any], part: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    part = _hoist(defs, part)
    part.setdefault("properties", {})[key] = {"const": name}
    return part
