"""A component: a class whose fields are its settings. YAML, command line, help, docs and checks all come from it."""

from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from trainformer.core.errors import UserError, nearest


class Component(BaseModel):
    """Settings are fields, each with a sentence under it; what a run learns lives in names with an underscore.

    Unknown names are refused, and True does not pass for the number 1.
    """

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_assignment=True)

    key: ClassVar[str] = ""
    """The word by which it is found: its file's name."""

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and {int, float} & {kind, *get_args(kind)} and bool not in {kind, *get_args(kind)}:
            raise ValueError(f"{value} is not a number")
        return value

    def settings(self) -> dict[str, Any]:
        """What would rebuild this component, as plain JSON values."""
        return self.model_dump(mode="json")

    @classmethod
    def summary(cls) -> str:
        """The first line of the class's docstring: its help."""
        return (cls.__doc__ or "").strip().splitlines()[0]


def explain(error: ValidationError, where: str, known: dict[str, list[str]]) -> UserError:
    """pydantic's findings in the user's words, the nearest right name for each unknown one.

    `known` maps a section ("train", "method.lora") to its settings' names.
    """
    lines = []
    for item in error.errors(include_url=False):
        place = ".".join(str(p) for p in item["loc"])
        if item["type"] == "extra_forbidden":
            section, _, word = place.rpartition(".")
            lines.append(f"no setting '{place}'. {nearest(word, known.get(section, []))}".strip())
        else:
            ours = isinstance(item.get("ctx", {}).get("error"), UserError)  # it says itself what was given
            shown = "" if item["type"] == "missing" or ours else f" (you gave {item['input']!r:.80})"
            lines.append(f"{place}: {_plain(item)}{shown}" if place else f"{_plain(item)}{shown}")
    return UserError("; ".join(lines), where=where)


def _plain(item: Any) -> str:
    cause = item.get("ctx", {}).get("error")
    if isinstance(cause, UserError):
        return str(cause)
    if item["type"] in ("model_type", "dict_type"):
        return "it must be a mapping of settings"
    text = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    return f"it must be {text}" if str(item["msg"]).startswith("Input should be ") else text
