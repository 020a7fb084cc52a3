"""What can be set of a service, each with a sentence: `trainformer serve BUNDLE --set NAME=VALUE`."""

from typing import Any

import yaml
from pydantic import Field, ValidationError

from trainformer.core.component import Component
from trainformer.core.errors import UserError, nearest


class ServeSettings(Component):
    """Limits of a service, and what it watches."""

    batch_tokens: int = Field(2048, ge=1)
    """Most tokens that the model reads at once; requests that wait are joined up to it."""
    queue_requests: int = Field(512, ge=1)
    """Most requests that a model has at a time, waiting or being answered; the next one gets 429."""
    queue_tokens: int = Field(65536, ge=1)
    """Most tokens that wait for a model; a request that would go beyond gets 429."""
    deadline_seconds: float = Field(30.0, gt=0)
    """Seconds in which a request is answered or given up with 504; a request may ask for fewer."""
    hang_seconds: float = Field(20.0, gt=0)
    """Seconds for one batch, after which its process counts as hung and is started anew."""
    start_seconds: float = Field(120.0, gt=0)
    """Seconds in which a process must have opened its bundle."""
    drain_seconds: float = Field(30.0, ge=0)
    """Seconds that accepted requests get at the end, after SIGTERM."""
    leave_seconds: float = Field(2.0, ge=0)
    """Seconds after SIGTERM in which requests are still accepted, each connection being told that it is the last."""
    body_bytes: int = Field(1_000_000, ge=1)
    """Most bytes of a request's body, and of a line of a stream; more gets 413 before anything is parsed."""
    body_seconds: float = Field(20.0, gt=0)
    """Seconds in which a body must have arrived, and a line of a stream; later gets 408."""
    texts: int = Field(1024, ge=1)
    """Most texts of one request; files are for /v1/predict:stream."""
    stream_lines: int = Field(256, ge=1)
    """Lines of a stream that are read ahead of the answers; memory does not grow beyond them."""
    connections: int = Field(1000, ge=1)
    """Most connections at a time; the next one gets 503."""
    threads: int | None = Field(None, ge=1)
    """Threads of each model's process; none: as many as there are cores."""
    log_texts: bool = False
    """Whether texts are logged, masked; off, no text is ever written anywhere."""
    window: int = Field(1000, ge=20)
    """The last so many texts are held against the training data."""
    embed_every: int = Field(8, ge=1)
    """Every so many batches one text's embedding is kept for the window."""
    watch_seconds: float = Field(30.0, gt=0)
    """Seconds between two looks at the alert rules."""
    keep_predictions: int = Field(1_000_000, ge=1)
    """Answers (label and score, no text) that are kept for feedback; the oldest go first."""


def settled(words: list[str] | None) -> ServeSettings:
    """Settings from words like `queue_tokens=1000`. Raises UserError for a name that is none or a value out of range."""
    values: dict[str, Any] = {}
    for word in words or []:
        name, equals, value = word.partition("=")
        if not equals or name not in ServeSettings.model_fields:
            raise UserError(f"no setting '{name}'.", where=f"--set {word}", fix=nearest(name, ServeSettings.model_fields))
        values[name] = yaml.safe_load(value)
    try:
        return ServeSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{first['msg']}.", where=f"--set {'.'.join(map(str, first['loc']))}") from error
