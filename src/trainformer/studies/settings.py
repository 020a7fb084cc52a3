"""The two sections that a file of a search has beside those of a run: `search`, what is searched, and `study`, how."""

from typing import Any, Literal

from pydantic import Field, ValidationError

from trainformer.core import config
from trainformer.core.component import Component, explain


class StudySettings(Component):
    """How settings are searched: for how long, by which sampler, and where trials are remembered."""

    trials: int | None = Field(None, ge=1)
    """Trials in all, those before a resume and on other machines included; none: as many as the minutes allow."""
    minutes: float | None = Field(None, gt=0)
    """Minutes in all, those before a resume included, after which no trial begins and none goes on."""
    sampler: Literal["tpe", "random"] = "tpe"
    """What proposes: TPE (Watanabe 2023, arXiv:2304.11127) learns from the trials before, random does not."""
    pruner: Literal["asha", "hyperband", "none"] = "asha"
    """What ends poor trials early: ASHA (Li et al. 2020, arXiv:1810.05934), Hyperband (Li et al. 2018, arXiv:1603.06560)."""
    storage: str | None = None
    """Optuna storage that several machines share, as `postgresql://host/db`; none: the file `study.db` in the study's folder."""
    name: str = Field("trainformer", min_length=1)
    """Name of the study in its storage."""
    seed: int = Field(0, ge=0, lt=2**31)
    """The proposals follow from it and from the trials before; the runs have their own `train.seed`."""


def parse(values: dict[str, Any] | None, where: str) -> StudySettings:
    """Checked settings. Raises UserError that names the setting and the nearest right word."""
    try:
        return StudySettings(**(values or {}))
    except ValidationError as error:
        raise explain(error, f"{where}: study", {"": list(StudySettings.model_fields)}) from error


def schema() -> dict[str, Any]:
    """JSON Schema of a YAML file with the two sections, for editors that complete and check."""
    whole = config.schema()
    number = {"type": ["number", "string"]}
    pair = {"type": "array", "items": number, "minItems": 2, "maxItems": 2}
    ranges = [_one(kind, pair) for kind in ("log", "float", "int")] + [_one("choice", {"type": "array", "minItems": 2})]
    words = "What is searched: a range or choices for each setting, by its full name."
    whole["properties"]["search"] = {"type": "object", "description": words, "additionalProperties": {"anyOf": ranges}}
    whole["properties"]["study"] = StudySettings.model_json_schema()
    return whole


def _one(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {kind: values}, "required": [kind], "additionalProperties": False}
