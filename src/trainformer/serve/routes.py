"""The routes: each takes words from HTTP and gives them to the service."""

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from trainformer.serve.gate import STREAM, Gone
from trainformer.serve.refusals import Refusal
from trainformer.serve.schemas import Answered, Asked, Feedback, Refused
from trainformer.serve.service import Service
from trainformer.serve.stream import Options, answers

if TYPE_CHECKING:
    from fastapi import FastAPI

LINES = "application/x-ndjson"
CARD_CHARACTERS = 100_000
SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
WORDS = {
    400: "The body is no JSON.",
    401: "No key, or one that is not known.",
    408: "The body came too slowly.",
    413: "Too many bytes, texts or tokens.",
    415: "Not JSON.",
    422: "Not what is asked for: the message says where.",
    429: "Too much at a time; Retry-After says when to come back.",
    500: "The model failed on this request.",
    503: "The service is stopping.",
    504: "Not ready by the deadline.",
}
REFUSED: dict[int | str, dict[str, Any]] = {s: {"model": Refused, "description": words} for s, words in WORDS.items()}
FEW: dict[int | str, dict[str, Any]] = {s: REFUSED[s] for s in (401, 429)}


def health(app: "FastAPI", service: Service) -> None:
    """Whether the service lives, and whether it takes requests: the only routes without a key."""
    from fastapi.responses import JSONResponse

    @app.get("/health/live", tags=["health"], summary="Whether the service runs")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get(
        "/health/ready", tags=["health"], summary="Whether requests should come here", responses={503: {"description": "No"}}
    )
    async def ready() -> JSONResponse:
        return JSONResponse({"status": "ready" if service.ready else "not ready"}, 200 if service.ready else 503)


def models(app: "FastAPI", service: Service) -> None:
    """What is served, and its change."""
    changed: dict[int | str, dict[str, Any]] = FEW | {s: {"model": Refused} for s in (403, 404, 409)}

    @app.get("/v1/models", tags=["models"], summary="The models by name", responses=FEW)
    async def listed() -> dict[str, Any]:
        return {"models": [served.told for served in service.models.served.values()]}

    @app.post("/v1/models/{name}:reload", tags=["models"], summary="Read the folder anew", responses=changed)
    async def reload(name: str) -> dict[str, Any]:
        return await service.reload(name)

    @app.post("/v1/models/{name}:rollback", tags=["models"], summary="Back to the version before", responses=changed)
    async def rollback(name: str) -> dict[str, Any]:
        return await service.rollback(name)

    @app.get("/v1/models/{name}", tags=["models"], summary="A model with its card", responses=FEW | {404: {"model": Refused}})
    async def one(name: str) -> dict[str, Any]:
        served = service.models.find(name)
        card = served.current.folder / "README.md"
        text = card.read_text(encoding="utf-8")[:CARD_CHARACTERS] if card.is_file() else ""
        return served.told | {"card": text}


def predict(app: "FastAPI", service: Service) -> None:
    """Texts to answers, at once or as a stream."""
    from fastapi import Request
    from fastapi.responses import Response
    from starlette.types import Receive, Scope, Send

    @app.post("/v1/predict", tags=["predict"], summary="Answer texts", response_model=Answered, responses=REFUSED)
    async def predict(asked: Asked) -> Response:
        found = json.dumps(await service.predict(asked), ensure_ascii=False)
        return Response(found, media_type="application/json")

    class Streamed(Response):
        """Lines that are sent as they come. It reads the body itself: what listens for the end would take it away."""

        def __init__(self, made: AsyncIterator[bytes]):
            self.made = made
            super().__init__(media_type=LINES)

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            kept = [(n, v) for n, v in self.raw_headers if n != b"content-length"]
            await send({"type": "http.response.start", "status": 200, "headers": kept})
            async for line in self.made:
                try:
                    async with asyncio.timeout(service.settings.body_seconds):
                        await send({"type": "http.response.body", "body": line, "more_body": True})
                except TimeoutError as error:
                    raise Gone from error  # a client that does not read holds its own stream up, and not for ever
            await send({"type": "http.response.body", "body": b""})

    form = {"schema": {"type": "string"}, "example": '"a fine film"\n{"id": 7, "text": "two hours that nobody gives back"}\n'}
    body = {"requestBody": {"required": True, "content": {LINES: form}}}

    @app.post(STREAM, tags=["predict"], summary="Answer a file, line by line", openapi_extra=body, responses=REFUSED)
    async def stream(request: Request, model: str | None = None, top_k: int | None = None, truncate: bool = False) -> Streamed:
        service.models.find(model)
        if top_k is not None and top_k < 1:
            raise Refusal(422, "invalid_request", "top_k: at least 1 is expected.")
        return Streamed(answers(service, request.receive, Options(model, top_k, truncate)))


def watching(app: "FastAPI", service: Service) -> None:
    """Metrics, drift, load, true labels."""
    from fastapi.responses import Response

    @app.get("/metrics", tags=["watch"], summary="Numbers for Prometheus", responses=FEW)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/load", tags=["watch"], summary="The last minute, and what waits now", responses=FEW)
    async def load() -> dict[str, Any]:
        queues = {n: s.current.lane.queue for n, s in service.models.served.items()}
        waiting = {n: {"requests": len(q.open), "tokens": q.tokens, "wait_seconds": q.wait} for n, q in queues.items()}
        return {"load": service.watch.load(), "queues": waiting, "leaving": service.leaving}

    @app.get("/v1/drift", tags=["watch"], summary="The last texts against the training data", responses=FEW | {404: REFUSED[422]})
    async def drift(model: str | None = None) -> dict[str, Any]:
        served = service.models.find(model)
        window = service.watch.windows[served.name]
        found = await asyncio.to_thread(window.drift)
        about = {"model": served.name, "version": window.version, "reference": window.reference is not None}
        return about | {"drift": found, "charts": window.charts(), "texts": len(window.reads)}

    @app.post("/v1/feedback", tags=["watch"], summary="True labels of answers", responses=REFUSED)
    async def feedback(given: Feedback) -> dict[str, Any]:
        truths = [(item.id, item.label) for item in given.items]
        unknown = await asyncio.to_thread(service.store.learn, truths)
        return {"taken": len(truths) - len(unknown), "unknown": unknown, "scores": await service.scores()}

    @app.get("/v1/feedback", tags=["watch"], summary="The running scores, and the last alerts", responses=FEW)
    async def scores() -> dict[str, Any]:
        return {"scores": await service.scores(), "alerts": await asyncio.to_thread(service.store.alerts)}


def page(app: "FastAPI", html: bytes) -> None:
    """The page, one file. The browser runs its one script, known by its hash, and asks nobody but this service."""
    from fastapi.responses import Response

    script = SCRIPT.search(html)
    assert script is not None, "the page has a script"
    known = base64.b64encode(hashlib.sha256(script[1]).digest()).decode()
    allowed = f"script-src 'sha256-{known}'; style-src 'unsafe-inline'; connect-src 'self'"
    content = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(html, media_type="text/html; charset=utf-8", headers={"content-security-policy": content})
