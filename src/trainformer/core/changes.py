"""Whether a run that goes on has the settings that it was begun with."""

from pathlib import Path
from typing import Any

from trainformer.core import config as settings
from trainformer.core.config import Config
from trainformer.core.errors import UserError

FREE = ("callbacks.", "data.cache", "train.device", "train.checkpoint_")
"""What may change between the sessions of a run: it has no part in the result."""


def refuse_change(path: Path, config: Config) -> None:
    """Raises UserError if the run was begun with other settings than those it shall go on with."""
    before, now = flat(settings.read_yaml(path)), flat(config.dump())
    for name in [*before, *(n for n in now if n not in before)]:
        if before.get(name) != now.get(name) and not name.startswith(FREE):
            what = f"{name} was {before.get(name)!r:.60} when the run began, and is {now.get(name)!r:.60} now."
            raise UserError(what, where=f"--out {path.parent}", fix="Go on with --resume and no settings, or start another run.")


def flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Settings by their full names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return found
