"""Alert rules: a threshold, a change, a surge; told to the log, a file, a webhook on this machine, or by mail."""

import json
import logging
import smtplib
import time
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from email.message import EmailMessage
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean, pstdev
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from trainformer.core.component import Component
from trainformer.core.errors import UserError

log = logging.getLogger("trainformer.serve")
LEAST_LOOKS = 5
SECONDS = 5.0
HERE = {"localhost", "127.0.0.1", "::1"}


class Rule(Component):
    """When to tell whom."""

    name: str = Field(min_length=1, max_length=100)
    """What the alert is called."""
    series: str
    """What it looks at: `p99_ms`, `refused_share`, `reviews.length.psi`; `*` stands for anything."""
    kind: Literal["threshold", "change", "surge"] = "threshold"
    """threshold: beyond a value; change: away from the mean of the last looks; surge: many deviations above it."""
    above: float | None = None
    """threshold: more than this."""
    below: float | None = None
    """threshold: less than this."""
    by: float = Field(0.5, gt=0)
    """change: more than this share of the mean, up or down."""
    deviations: float = Field(4.0, gt=0)
    """surge: more than so many standard deviations of the last looks."""
    looks: int = Field(30, ge=LEAST_LOOKS)
    """How many looks back a change or a surge is held against."""
    to: list[str] = Field(default_factory=lambda: ["log"])
    """log, file:PATH, http://127.0.0.1:PORT/PATH, smtp://HOST:PORT?from=A&to=B."""

    @field_validator("to")
    @classmethod
    def _places(cls, to: list[str]) -> list[str]:
        for place in to:
            url = urlsplit(place)
            if url.scheme in ("http", "https") and url.hostname not in HERE:
                raise ValueError(f"'{place}' is not on this machine; a webhook goes to localhost")
            if url.scheme == "smtp" and not {"from", "to"} <= set(parse_qs(url.query)):
                raise ValueError(f"'{place}' needs ?from=ADDRESS&to=ADDRESS")
            if place != "log" and url.scheme not in ("file", "http", "https", "smtp"):
                raise ValueError(f"'{place}' is neither log, file:, http: nor smtp:")
        return to

    @model_validator(mode="after")
    def _bound(self) -> "Rule":
        if self.kind == "threshold" and self.above is None and self.below is None:
            raise ValueError("a threshold needs above or below")
        return self

    def broken(self, value: float, before: Sequence[float]) -> str:
        """Why this value is one to tell, or nothing."""
        if self.kind == "threshold":
            over = self.above is not None and value > self.above
            under = self.below is not None and value < self.below
            return (
                f"{value:.4g} is {'above' if over else 'below'} {self.above if over else self.below:g}" if over or under else ""
            )
        if len(before) < LEAST_LOOKS:
            return ""
        mean = fmean(before)
        if self.kind == "change":
            return f"{value:.4g} after a mean of {mean:.4g}" if abs(value - mean) > self.by * abs(mean) else ""
        bound = mean + self.deviations * max(pstdev(before), 1e-9)
        return f"{value:.4g} is more than {self.deviations:g} deviations above {mean:.4g}" if value > bound else ""


class Alerts:
    """Rules and what they have seen. An alert is told when it begins and when it is over, not at each look."""

    def __init__(self, rules: list[Rule]):
        self.rules = rules
        self.before: dict[tuple[str, str], deque[float]] = {}
        self.on: set[tuple[str, str]] = set()

    def look(self, values: Mapping[str, float]) -> Iterator[tuple[str, str, float]]:
        """Asks each rule; gives (name, message, value) of what has begun or ended, and tells it to the rule's places."""
        for rule in self.rules:
            for series in [s for s in values if fnmatchcase(s, rule.series)]:
                at, value = (rule.name, series), values[series]
                before = self.before.setdefault(at, deque(maxlen=rule.looks))
                why = rule.broken(value, before)
                before.append(value)
                if bool(why) == (at in self.on):
                    continue
                self.on ^= {at}
                message = f"{series}: {why}" if why else f"{series}: {value:.4g}, as before again"
                self._tell(rule, message, value)
                yield rule.name, message, value

    def _tell(self, rule: Rule, message: str, value: float) -> None:
        """A place that cannot be reached is logged; the others are told all the same."""
        for place in rule.to:
            try:
                tell(place, rule.name, message, value)
            except OSError as error:  # smtplib's and urllib's errors are of this kind, too
                log.error("alert not delivered", extra={"fields": {"place": place.partition("?")[0], "why": str(error)}})


def tell(place: str, name: str, message: str, value: float) -> None:
    """Delivers an alert. Raises OSError."""
    fields = {"at": time.time(), "alert": name, "message": message, "value": value}
    url = urlsplit(place)
    if place == "log":
        log.warning("alert", extra={"fields": {"alert": name, "told": message, "value": value}})
    elif url.scheme == "file":
        with Path(url.path).open("a", encoding="utf-8") as f:
            f.write(json.dumps(fields) + "\n")
    elif url.scheme in ("http", "https"):
        asked = urllib.request.Request(place, json.dumps(fields).encode(), {"content-type": "application/json"})
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=SECONDS).close()
    else:
        _mail(url.hostname or "localhost", url.port or 25, {k: v[0] for k, v in parse_qs(url.query).items()}, (name, message))


def _mail(host: str, port: int, ends: Mapping[str, str], words: tuple[str, str]) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = ends["from"], ends["to"], f"trainformer: {' '.join(words[0].split())}"
    mail.set_content(words[1])
    with smtplib.SMTP(host, port, timeout=SECONDS) as server:
        server.send_message(mail)


def read(file: Path | None) -> Alerts:
    """Rules from a YAML list. Raises UserError."""
    if file is None:
        return Alerts([])
    try:
        listed = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(listed, list):
            raise UserError("a list of rules is expected.", where=f"--alerts {file}")
        return Alerts([Rule(**each) for each in listed])
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise UserError(f"it cannot be read: {error}", where=f"--alerts {file}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", where=f"--alerts {file}") from error
