"""The log: one JSON object a line, so that nothing a client sent can make a line of its own. Texts only if asked, masked."""

import json
import logging
import sys
import time
from typing import Any

from trainformer.serve.masks import masked
from trainformer.serve.service import Noted

NAME = "trainformer.serve"
SHOWN_CHARACTERS = 500


class Lines(logging.Formatter):
    """A record with its `fields` as JSON; an exception's place in the code stands in the log and nowhere else."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line: dict[str, Any] = {"at": at, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


def set_up(level: int = logging.INFO) -> None:
    """Lines on standard error, for the service and for uvicorn."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    for name, least in ((NAME, level), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(least)


def texts(noted: Noted) -> dict[str, Any]:
    """What the log tells of the texts of a request: their number and tokens; the texts only if they were asked for."""
    told: dict[str, Any] = {"texts": noted.texts, "tokens": noted.tokens} if noted.model else {}
    if noted.shown:
        told["shown"] = [[masked(text)[:SHOWN_CHARACTERS] for text in each] for each in noted.shown]
    return told
