"""What a search is asked for, as it stands in STUDY/study.yaml, and whether one that goes on is still the same."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trainformer.api import gathered
from trainformer.core import config as configuration
from trainformer.core.changes import FREE, flat
from trainformer.core.config import Config
from trainformer.core.errors import UserError
from trainformer.core.files import write_text
from trainformer.data.read import open_source
from trainformer.studies import settings as study_settings
from trainformer.studies import space as spaces
from trainformer.studies.settings import StudySettings

FILE = "study.yaml"
FILES = ("data.train", "data.validation", "data.test")


@dataclass
class Asked:
    """A base configuration, what is searched around it, and for how long."""

    config: Config
    search: dict[str, Any] | None
    """The section of the space, None for a good space around what trial 0 settles on."""
    study: StudySettings
    given: list[str] = field(default_factory=list)
    """Settings that the user has set, by their full names: a good space leaves them alone."""
    auto: bool = False
    """The whole default run must fit into the time."""

    def rows(self) -> dict[str, str]:
        """SHA-256 of each file of rows: other rows, other scores."""
        named = {name: getattr(self.config.data, name) for name in ("train", "validation", "test")}
        return {name: open_source(file, name).fingerprint for name, file in named.items() if file is not None}

    def base(self) -> dict[str, Any]:
        """The settings that all trials share, by their full names; where files lie is no part of it."""
        return {n: v for n, v in flat(self.config.dump()).items() if not n.startswith((*FREE, *FILES))}

    def save(self, folder: Path) -> None:
        """Writes study.yaml."""
        plain: dict[str, Any] = {"config": self.config.dump(), "search": self.search, "study": self.study.settings()}
        plain |= {"given": self.given, "auto": self.auto}
        write_text(folder / FILE, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120))


def read(folder: Path) -> Asked:
    """What study.yaml says."""
    path = folder / FILE
    plain = configuration.read_yaml(path)
    study = study_settings.parse(plain["study"], str(path))
    return Asked(configuration.parse(plain["config"], str(path)), plain["search"], study, plain["given"], plain["auto"])


def ask(config: Any, files: dict[str, str], words: dict[str, Any], limits: dict[str, Any], auto: bool = False) -> Asked:
    """From the words of the command line. Raises UserError for what is wrong in the file, its space included.

    `limits` are study settings that stand over those of the file.
    """
    values, where = gathered(config, files, words)
    section, given = values.pop("search", None), values.pop("study", None)
    study = study_settings.parse({**(given or {}), **_said(limits)}, where)
    if study.trials is None and study.minutes is None:
        fix = "Give --minutes M, --trials N, or both."
        raise UserError("nothing says when the search ends.", where=where, fix=fix)
    checked = configuration.parse(values, where)
    backbone, _ = checked.model.resolve()  # found once, so that all trials have the same
    checked = checked.model_copy(update={"model": backbone})
    if checked.data.train is None:
        raise UserError("no training rows given.", where="--data", fix="trainformer search config.yaml --data FILE --out STUDY")
    if section is not None:
        section = spaces.parse(section, checked, f"{where}: search").sections()
    return Asked(checked, section, study, sorted({*flat(values), *({"method"} & {*values})}), auto)


def refuse_existing(folder: Path, resume: bool, told: bool) -> None:
    """Nothing is written over: a folder with anything in it is refused, unless its search goes on."""
    where = f"--out {folder}"
    begun = (folder / FILE).is_file()
    if folder.exists() and not folder.is_dir():
        raise UserError("it is a file; a study is a folder.", where=where, fix="Choose another name.")
    fresh = not folder.is_dir() or not any(folder.iterdir())
    if resume and not begun and not (told and fresh):
        fix = "Name a config to start one." if fresh else "Choose another name."
        raise UserError(f"there is no search to go on with: it has no {FILE}.", where=where, fix=fix)
    if not (resume or fresh):
        fix = "To go on with it: --resume." if begun else "Choose another name."
        raise UserError("it exists and is not empty; nothing is written over.", where=where, fix=fix)
    if not resume and not told:
        raise UserError("nothing says what to search.", where=where, fix="trainformer search config.yaml --out STUDY")


def go_on(folder: Path, asked: Asked | None, limits: dict[str, Any]) -> Asked:
    """What a search that goes on is asked for: as before, with other limits if they are given.

    Raises UserError if it is asked for another space or other settings than it was begun with.
    """
    before = read(folder)
    if asked is None:
        study = study_settings.parse(before.study.settings() | _said(limits), str(folder / FILE))
        _refuse_other_storage(before, study, folder)
        return Asked(before.config, before.search, study, before.given, before.auto)
    if asked.search != before.search:
        names = sorted(n for n in {*(asked.search or {}), *(before.search or {})} if _of(asked, n) != _of(before, n))
        what = f"the space is another than that which the search began with: {names[0] if names else 'search'} differs."
        raise UserError(what, where=f"--out {folder}", fix="Go on with --resume and no config, or choose another --out.")
    _refuse_other_storage(before, asked.study, folder)
    refuse_other_base(before.base(), asked.base(), f"--out {folder}")
    return asked


def refuse_other_base(before: dict[str, Any], now: dict[str, Any], where: str) -> None:
    """Raises UserError that names the first setting in which two searches differ."""
    for name in [*before, *(n for n in now if n not in before)]:
        if before.get(name) != now.get(name):
            what = f"{name} was {before.get(name)!r:.60} when the search began, and is {now.get(name)!r:.60} now."
            raise UserError(what, where=where, fix="Go on with the same settings, or choose another --out and study.name.")


def _refuse_other_storage(before: Asked, study: StudySettings, folder: Path) -> None:
    if (study.storage, study.name) != (before.study.storage, before.study.name):
        what = f"its trials are in {before.study.storage or 'study.db'} under the name '{before.study.name}'."
        raise UserError(what, where=f"--out {folder}", fix="Go on without --storage and study.name.")


def _of(asked: Asked, name: str) -> Any:
    return (asked.search or {}).get(name)


def limits(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """The limits that a search goes on with: those that are asked for, else those of before."""
    before = read(folder).study
    return {"minutes": before.minutes, "trials": before.trials, "storage": before.storage} | _said(asked)


def _said(limits: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in limits.items() if v is not None}
