"""Keys: stored as hashes, compared in constant time, each with a name, a rate and what it may do."""

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainformer.core.errors import UserError

VARIABLE = "TRAINFORMER_KEYS"
PREFIX = "tf_"
LINE = re.compile(r"(?P<name>[\w.-]{1,64}) (?P<sha256>[0-9a-f]{64})(?: per_minute=(?P<rate>[1-9]\d{0,8}))?(?P<admin> admin)?")


@dataclass(frozen=True)
class Key:
    """A name, the SHA-256 of a secret of 256 random bits (which no list of words can find, so one round is enough),
    requests a minute, and whether it may change models."""

    name: str
    sha256: str
    per_minute: int | None = None
    admin: bool = False

    @property
    def line(self) -> str:
        """As it stands in the file."""
        rate = "" if self.per_minute is None else f" per_minute={self.per_minute}"
        return f"{self.name} {self.sha256}{rate}{' admin' if self.admin else ''}"


class Keys:
    """All keys of a service; without any, everybody who reaches it may do everything."""

    def __init__(self, keys: list[Key], clock: Callable[[], float] = time.monotonic):
        self.keys, self.clock = keys, clock
        self._left = {key.name: (float(key.per_minute or 0), clock()) for key in keys}

    def __bool__(self) -> bool:
        return bool(self.keys)

    def who(self, secret: str) -> Key | None:
        """The key of a secret. All are compared, each in constant time, so that the time tells nothing."""
        digest = hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def spend(self, key: Key) -> float:
        """Counts a request against the key's rate; 0, or the seconds to wait before the next one is taken."""
        if key.per_minute is None:
            return 0.0
        left, then = self._left[key.name]
        now = self.clock()
        left = min(key.per_minute, left + (now - then) * key.per_minute / 60)
        self._left[key.name] = (left - (left >= 1), now)
        return 0.0 if left >= 1 else (1 - left) * 60 / key.per_minute


def parsed(text: str, where: str) -> Keys:
    """Keys from lines `NAME SHA256 [per_minute=N] [admin]`; `#` begins a comment. Raises UserError."""
    keys: list[Key] = []
    for number, line in enumerate(text.replace(";", "\n").splitlines(), 1):
        line = " ".join(line.partition("#")[0].split())
        if not line:
            continue
        found = LINE.fullmatch(line)
        if found is None:
            what = "a key is written NAME SHA256 [per_minute=N] [admin]."
            raise UserError(what, where=f"{where} line {number}", fix="`trainformer key NAME --keys FILE` writes one.")
        if found["name"] in {key.name for key in keys}:
            raise UserError(f"the name '{found['name']}' comes twice.", where=f"{where} line {number}")
        rate = int(found["rate"]) if found["rate"] else None
        keys.append(Key(found["name"], found["sha256"], rate, bool(found["admin"])))
    return Keys(keys)


def read(file: Path | None) -> Keys:
    """The keys of a file, or of the environment's TRAINFORMER_KEYS. Raises UserError for a file without any."""
    if file is None:
        return parsed(os.environ.get(VARIABLE, ""), VARIABLE)
    try:
        keys = parsed(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("it cannot be read.", where=f"--keys {file}") from error
    if not keys:
        raise UserError("there is no key in it.", where=f"--keys {file}", fix=f"trainformer key NAME --keys {file}")
    return keys


def add(file: Path, name: str, per_minute: int | None, admin: bool) -> str:
    """Adds a new key to a file and gives its secret, which is stored nowhere. Raises UserError."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    secret = PREFIX + secrets.token_urlsafe(32)
    line = Key(name, hashlib.sha256(secret.encode()).hexdigest(), per_minute, admin).line
    whole = (text if not text or text.endswith("\n") else text + "\n") + line + "\n"
    parsed(whole, str(file))
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as f:
        f.write(whole)
    return secret
