"""What every request passes first: who asks, how often, how much. Nothing is parsed before it has passed."""

import asyncio
import base64
import binascii
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from trainformer.serve import log as logs
from trainformer.serve.refusals import Refusal
from trainformer.serve.service import CALLER, NOTED, Noted, Service

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = {"/health/live", "/health/ready"}
"""The only paths that are answered without a key."""
PREDICT, STREAM = "/v1/predict", "/v1/predict:stream"
ADMIN = (":reload", ":rollback")
KINDS = {STREAM: ("application/x-ndjson", "application/json")}
DIGITS = re.compile(r"[0-9]{1,18}")
LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}
SAFE = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}
log = logging.getLogger(logs.NAME)


class Gone(Exception):
    """The client went away."""


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: App, service: Service):
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        began, noted = time.perf_counter(), Noted()
        NOTED.set(noted)
        CALLER.set(None)
        reply = Reply(send, self.service)
        try:
            await self.app(scope, await self._admit(scope, receive), reply)
        except Refusal as refusal:
            await reply.refuse(refusal)
        except Gone:
            reply.status = 499
        except Exception:  # the last place where a request is known: its mistake is ours, logged, and others go on
            log.exception("request broke off")
            await reply.refuse(Refusal(500, "internal", "The service made a mistake; it is in its log."))
        self._tell(scope, noted, reply.status, time.perf_counter() - began)

    async def _admit(self, scope: Scope, receive: Receive) -> Receive:
        """Checks host, key, rate, kind and size, in this order. Raises Refusal."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        self._host(headers)
        if scope["path"] not in OPEN:
            self._caller(scope, headers)
        if scope["method"] == "POST":
            self._kind(scope["path"], headers)
        if scope["path"] == STREAM:
            return receive
        if scope["path"] == PREDICT:
            self.service.refuse_if_full()
        return _again(await self._body(headers, receive), receive)

    def _host(self, headers: dict[str, str]) -> None:
        """Without keys only a client that knows it speaks to this machine: no page of another site may, under its own name."""
        name, colon, port = headers.get("host", "").rpartition(":")
        name = name if colon and port.isdigit() else headers.get("host", "")
        if not self.service.keys and name.lower() not in LOOPBACK:
            raise Refusal(421, "wrong_host", "Without keys only localhost, 127.0.0.1 and [::1] are answered.")

    def _caller(self, scope: Scope, headers: dict[str, str]) -> None:
        keys = self.service.keys
        if not keys:
            return
        key = keys.who(_secret(headers.get("authorization", "")))
        if key is None:
            raise Refusal(401, "no_key", "A key is needed: Authorization: Bearer KEY.")
        CALLER.set(key)
        if scope["path"].endswith(ADMIN) and not key.admin:
            raise Refusal(403, "not_admin", "This key may not change models.")
        wait = keys.spend(key)
        if wait:
            message = f"The key '{key.name}' has {key.per_minute} requests a minute, and they are spent."
            raise Refusal(429, "rate", message, retry_after=wait)

    def _kind(self, path: str, headers: dict[str, str]) -> None:
        """JSON alone: what a form of another site can send is refused, and CORS is off for the rest."""
        kinds = KINDS.get(path, ("application/json",))
        if headers.get("content-type", "").partition(";")[0].strip().lower() not in kinds:
            raise Refusal(415, "content_type", f"The content-type must be {' or '.join(kinds)}.")

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        """The whole body. Raises Refusal: 413 as soon as it is known to be too large, 408 if it comes too slowly."""
        settings = self.service.settings
        declared = headers.get("content-length", "0")
        if not DIGITS.fullmatch(declared):
            raise Refusal(400, "content_length", "The content-length is no number of bytes.")
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(settings.body_seconds):
                while more and max(len(body), int(declared)) <= settings.body_bytes:
                    came = await receive()
                    if came["type"] == "http.disconnect":
                        raise Gone
                    body += came.get("body", b"")
                    more = came.get("more_body", False)
        except TimeoutError as error:
            raise Refusal(408, "slow_body", f"The body had not come within {settings.body_seconds:g} s.") from error
        if max(len(body), int(declared)) > settings.body_bytes:
            raise Refusal(413, "too_large", f"The body is larger than {settings.body_bytes} bytes; files are for {STREAM}.")
        return bytes(body)

    def _tell(self, scope: Scope, noted: Noted, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "other"
        self.service.metrics.request(route, status, seconds)
        if route not in OPEN:
            self.service.watch.request(status, seconds)
        caller = CALLER.get()
        fields = {"method": scope["method"], "path": scope["path"], "status": status, "ms": round(1000 * seconds, 2)}
        fields |= {"id": noted.id} if noted.id else {}
        fields |= {"key": caller.name} if caller else {}
        log.info("request", extra={"fields": fields | logs.texts(noted)})


class Reply:
    """Sends, adding what every answer has; remembers the status."""

    def __init__(self, send: Send, service: Service):
        self.send, self.service, self.status, self.started = send, service, 499, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.started = message["status"], True
            extra = SAFE | ({"connection": "close"} if self.service.leaving else {})
            there = {name.lower() for name, _ in message["headers"]}
            added = [(n.encode(), v.encode()) for n, v in extra.items() if n.encode() not in there]
            message = {**message, "headers": [*message["headers"], *added]}
        await self.send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """The refusal as JSON. If something was sent already the connection breaks, so that nobody takes it for whole."""
        if self.started:
            raise RuntimeError("broken off while an answer was sent") from refusal
        body = json.dumps(refusal.body).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
        listed = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self({"type": "http.response.start", "status": refusal.status, "headers": listed})
        await self({"type": "http.response.body", "body": body})


def _again(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body once, and then what comes after it."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _secret(header: str) -> str:
    """The secret of `Bearer KEY`, or the password of `Basic`, which browsers send."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""
