"""What is searched: ranges and choices of settings, checked against the schema, and how a proposal becomes a configuration.

search:
  train.lr: {log: [1e-5, 5e-4]}                       # by orders of magnitude
  train.epochs: {int: [2, 8]}
  method.llrd.decay: {float: [0.7, 1.0]}              # only in trials whose methods include llrd
  method: {choice: [[llrd, ema], [lora]]}
"""

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from trainformer.core import config as settings
from trainformer.core.config import Config
from trainformer.core.errors import UserError, nearest

KINDS = ("log", "float", "int", "choice")
SHAPE = "Write {log: [1e-5, 5e-4]}, {float: [0, 0.3]}, {int: [1, 8]} or {choice: [a, b]}."
INSIDE = ("method", "callbacks")
FIXED = {
    "task": "it decides what the scores mean.",
    "data": "all trials must be measured on the same rows.",
    "decision": "it is fitted after training, and the trials are compared before.",
    "callbacks": "it only watches.",
}
"""Sections that cannot be searched; the settings of early stopping and `data.max_tokens` can."""
FREE = ("data.max_tokens", "task.label_smoothing", "task.focal_gamma", "task.class_weights", "task.huber_delta")


@dataclass(frozen=True)
class Dimension:
    """A setting and what it may be."""

    name: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    choices: dict[str, Any] = field(default_factory=dict)
    """Value of each choice, by the word it is shown and stored as."""

    @property
    def needs(self) -> str:
        """The method without which the setting means nothing; "" for others."""
        section, *inner = split(self.name)
        return inner[0] if section == "method" and inner else ""

    def ends(self) -> list[Any]:
        """The values at its ends, or all of its choices: if these are allowed, all are."""
        if self.kind == "choice":
            return list(self.choices.values())
        return [int(self.low), int(self.high)] if self.kind == "int" else [self.low, self.high]

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range."""
        return self.low <= value <= self.high and (self.kind != "int" or value == int(value))

    def propose(self, trial: Any) -> Any:
        """What an Optuna trial proposes; the same at each call."""
        if self.kind == "choice":
            return self.choices[trial.suggest_categorical(self.name, list(self.choices))]
        if self.kind == "int":
            return trial.suggest_int(self.name, int(self.low), int(self.high))
        return trial.suggest_float(self.name, self.low, self.high, log=self.kind == "log")

    def section(self) -> dict[str, Any]:
        """What `parse` reads back."""
        return {self.kind: self.ends()}


@dataclass(frozen=True)
class Space:
    """All that is searched, over a base configuration as plain values; `method` comes first, for others depend on it."""

    base: dict[str, Any]
    dimensions: list[Dimension]

    def propose(self, trial: Any) -> dict[str, Any]:
        """Settings by name; those of a method only where the trial has the method."""
        chosen: dict[str, Any] = {}
        for each in self.dimensions:
            if each.needs in ("", *self._methods(chosen)):
                chosen[each.name] = each.propose(trial)
        return chosen

    def apply(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The base with settings laid over it."""
        values = deepcopy(self.base)
        for name, value in chosen.items():
            put(values, name, value)
        return values

    def found_in(self, settled: dict[str, Any]) -> dict[str, Any]:
        """Where a settled configuration lies: value, or word of the choice, by name; what lies outside is left out."""
        found: dict[str, Any] = {}
        for each in self.dimensions:
            if each.needs not in ("", *settled["method"]):
                continue
            value = get(settled, each.name)
            if each.kind == "choice":
                for word, choice in each.choices.items():
                    if _same(get(_settle(self.apply({each.name: choice})), each.name), value):
                        found[each.name] = word
            elif isinstance(value, int | float) and each.holds(value):
                found[each.name] = value
        return found

    def sections(self) -> dict[str, Any]:
        """What `parse` reads back."""
        return {each.name: each.section() for each in self.dimensions}

    def _methods(self, chosen: dict[str, Any]) -> list[str]:
        return list(self.apply({"method": chosen["method"]} if "method" in chosen else {})["method"])


def parse(section: Any, base: Config, where: str = "search") -> Space:
    """A checked space. Raises UserError for an unknown setting, an empty range, or a value that the schema refuses."""
    if not isinstance(section, dict) or not section:
        raise UserError("a mapping of settings to ranges is expected.", where=where, fix=f"train.lr: ... {SHAPE}")
    found = [_dimension(name, given, where) for name, given in _leaves(section)]
    found.sort(key=lambda d: d.name != "method")
    space = Space(base.dump(), found)
    for each in found:
        if each.name != "method" and "." not in each.name and each.name in settings.SECTIONS:
            what = f"'{each.name}' is a section; settings of it can be searched."
            raise UserError(what, where=where, fix=f"Name one: {each.name}.SETTING.")
        for value in each.ends():
            _check(space, each, value, where)
        _refuse_fixed(each.name, base, where)
    return space


def _leaves(section: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Ranges by the full names of their settings: `train: {lr: ...}` is `train.lr`."""
    for key, value in section.items():
        name = f"{before}{key}"
        if isinstance(value, dict) and not (len(value) == 1 and set(value) <= {*KINDS}):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _dimension(name: str, given: Any, where: str) -> Dimension:
    place = f"{where}: {name}"
    if not isinstance(given, dict):
        before, _, last = name.rpartition(".")
        word = nearest(last, KINDS) if before and "Did you mean" in nearest(last, KINDS) else ""
        raise UserError(f"{given!r:.60} is no range and no choice.", where=place, fix=f"{word} {SHAPE}".strip())
    ((kind, values),) = given.items()
    if not isinstance(values, list) or (kind != "choice" and len(values) != 2):
        raise UserError(
            f"{values!r:.60} is not a list of {'values' if kind == 'choice' else 'two numbers'}.", where=place, fix=SHAPE
        )
    if kind == "choice":
        return Dimension(name, kind, choices=_choices(values, place))
    low, high = (_number(v, place) for v in values)
    if low >= high:
        raise UserError(f"the low end {low:g} is not below the high end {high:g}.", where=place, fix=SHAPE)
    if kind == "log" and low <= 0:
        raise UserError(
            f"a logarithmic range begins above 0, not at {low:g}.", where=place, fix="Use {float: [...]} or a low end above 0."
        )
    if kind == "int" and (low != int(low) or high != int(high)):
        raise UserError(f"{low:g} and {high:g} are not both whole numbers.", where=place, fix="Use {float: [...]}.")
    return Dimension(name, kind, low, high)


def _choices(values: list[Any], place: str) -> dict[str, Any]:
    words = {v if isinstance(v, str) else json.dumps(v, ensure_ascii=False): v for v in values}
    if len(words) != len(values) or len(words) < 2:
        what = "a choice is given twice." if len(words) != len(values) else "one choice is no choice."
        raise UserError(what, where=place, fix="Give two or more that differ.")
    return words


def _number(value: Any, place: str) -> float:
    """YAML reads 1e-5 as a word, and it is meant as a number."""
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{value!r:.40} is not a number.", where=place, fix=SHAPE) from error


def _refuse_fixed(name: str, base: Config, where: str) -> None:
    section = split(name)[0]
    if section in FIXED and name not in FREE and not name.startswith("callbacks.early_stopping."):
        raise UserError(f"'{name}' cannot be searched: {FIXED[section]}", where=where)
    given = base.data.validation and (base.data.test or not base.data.test_share)
    if name == "train.seed" and not given:
        what = "'train.seed' also chooses the rows that are held out, and all trials must be measured on the same."
        raise UserError(what, where=where, fix="Give files for validation and test.")


def _check(space: Space, each: Dimension, value: Any, where: str) -> None:
    """Raises UserError if the schema refuses the value, in a trial that has the method it belongs to."""
    chosen: dict[str, Any] = {}
    if each.needs and each.needs not in space.base["method"]:
        options = next((d.ends() for d in space.dimensions if d.name == "method"), [])
        built = [space.apply({"method": option})["method"] for option in options]
        home = next((o for o, methods in zip(options, built, strict=True) if each.needs in methods), None)
        if home is None:
            there = sorted({name for methods in [space.base["method"], *built] for name in methods})
            what = f"no trial has the method '{each.needs}', so '{each.name}' cannot be searched."
            raise UserError(what, where=where, fix=f"{nearest(each.needs, there)} Or add it to `method`.".strip())
        chosen["method"] = home
    settings.parse(space.apply(chosen | {each.name: value}), where)


def split(name: str) -> list[str]:
    """`method.lora.rank` -> method, lora, rank; `train.lr` -> train, lr. A method of another package has dots in its name."""
    section, _, rest = name.partition(".")
    if section in INSIDE and "." in rest:
        return [section, *rest.rsplit(".", 1)]
    return [section, rest] if rest else [section]


def put(values: dict[str, Any], name: str, value: Any) -> None:
    """Sets a value by its full name. Methods that are named keep the settings that they have in the base."""
    *way, last = split(name)
    if name == "method":
        listed = {value: None} if isinstance(value, str) else dict.fromkeys(value) if isinstance(value, list) else value
        before = values["method"]
        value = {key: {**before.get(key, {}), **(given or {})} for key, given in listed.items()}
    inner = values
    for key in way:
        inner = inner.setdefault(key, {})
    inner[last] = value


def get(values: dict[str, Any], name: str) -> Any:
    """The value under a full name, None where there is none."""
    found: Any = values
    for key in split(name):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def word(value: Any) -> str:
    """A proposed value as people read it: methods joined by +, numbers short.

    >>> word('["llrd", "ema"]'), word(0.00123456)
    ('llrd+ema', '0.00123')
    """
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, str) and value[:1] in ("[", "{"):
        inside = json.loads(value)
        return "+".join(map(str, inside)) if inside else value
    return str(value)


def _settle(values: dict[str, Any]) -> dict[str, Any]:
    return settings.parse(values, "search").dump()


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON, order of keys included: the order of methods is their nesting."""
    return json.dumps(one) == json.dumps(other)
