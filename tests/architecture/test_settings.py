"""Every setting is explained, and the names of the options are frozen: a new one shows in review, as a line of options.txt.

python tests/architecture/test_settings.py     # writes options.txt anew
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo

from trainformer.core import registry
from trainformer.core.config import Config
from trainformer.core.roles import Backbone, Callback, Method, Task
from trainformer.studies.settings import StudySettings

FROZEN = Path(__file__).with_name("options.txt")
REWRITE = "An option was added, renamed or removed. If that is meant: python tests/architecture/test_settings.py"
ROLES: dict[str, type] = {"task": Task, "model": Backbone, "method": Method, "callbacks": Callback}


def settings() -> Iterator[tuple[str, FieldInfo]]:
    """(name, field) of each option: `train.lr`, and `method.lora.rank` for a component's."""
    for section, field in Config.model_fields.items():
        yield section, field
        if section not in ROLES:
            for name, inner in field.annotation.model_fields.items():  # type: ignore[union-attr]
                yield f"{section}.{name}", inner
    for section, role in ROLES.items():
        for component, kind in registry.classes(role):
            for name, inner in kind.model_fields.items():
                yield f"{section}.{component}.{name}", inner
    for name, inner in StudySettings.model_fields.items():
        yield f"study.{name}", inner


def names() -> list[str]:
    return sorted(name for name, _ in settings())


def test_every_setting_has_a_sentence() -> None:
    short = [name for name, field in settings() if not (field.description or "").rstrip().endswith(".")]
    assert short == [], "write a sentence under the setting: what it does, unit, range"
    assert [name for name, field in settings() if "\n" in (field.description or "")] == [], "on one line: it is a cell of a table"


def test_every_component_has_a_sentence() -> None:
    silent = [f"{s}.{name}" for s, role in ROLES.items() for name, kind in registry.classes(role) if "__doc__" not in vars(kind)]
    assert silent == []


def test_the_options_are_those_written_down() -> None:
    assert names() == FROZEN.read_text(encoding="utf-8").splitlines(), REWRITE


if __name__ == "__main__":
    FROZEN.write_text("\n".join(names()) + "\n", encoding="utf-8")
    print(f"{FROZEN}: {len(names())} options")
