"""The application: routes, what they are in OpenAPI, and every error as a code with a sentence."""

import json
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainformer import __version__
from trainformer.core.errors import MissingExtra
from trainformer.serve import routes
from trainformer.serve.gate import Gate
from trainformer.serve.refusals import Refusal
from trainformer.serve.service import Service

if TYPE_CHECKING:
    from fastapi import FastAPI

PAGE = Path(__file__).with_name("page.html")
CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}
SENTENCES = {404: "There is nothing at this address.", 405: "This address does not take this method."}


def build(service: Service) -> "FastAPI":
    """The ASGI application of a service, which is started and stopped by others."""
    try:
        from fastapi import FastAPI
    except ImportError as error:
        raise MissingExtra("fastapi", "serve") from error
    app = FastAPI(title="Trainformer", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False,
                  description="Answers of a fine-tuned model. An error is a code and a sentence.")  # fmt: skip
    app.add_middleware(Gate, service=service)
    _errors(app)
    routes.health(app, service)
    routes.models(app, service)
    routes.predict(app, service)
    routes.watching(app, service)
    routes.page(app, PAGE.read_bytes())
    return app


def _errors(app: "FastAPI") -> None:
    """What the framework refuses is said in our form; its own words can hold the input, ours do not."""
    from fastapi import Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import Response
    from starlette.exceptions import HTTPException

    def answer(refusal: Refusal) -> Response:
        return Response(json.dumps(refusal.body), refusal.status, refusal.headers, "application/json")

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return answer(error)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer(_invalid(error.errors()[0]))

    async def other(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        sentence = SENTENCES.get(error.status_code, "The body cannot be read as JSON.")
        code = CODES.get(error.status_code, HTTPStatus(error.status_code).name.lower())
        found = Refusal(error.status_code, code, sentence)
        found.headers |= dict(error.headers or {})
        return answer(found)

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, other)


def _invalid(first: dict[str, Any]) -> Refusal:
    """The first thing that is wrong with a body: where, and what."""
    if first["type"] == "json_invalid":
        return Refusal(400, "invalid_json", f"The body is no JSON: {first['ctx']['error']} at character {first['loc'][-1]}.")
    where = ".".join(str(part)[:60] for part in first["loc"][1:4]) or "the body"
    return Refusal(422, "invalid_request", f"{where}: {first['msg'].removeprefix('Value error, ')[:200]}.")
