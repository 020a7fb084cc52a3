"""Bad requests, two hundred made by small rules and more by schemathesis: each gets 4xx with a code and a sentence, never 5xx."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from trainformer.serve.gate import STREAM
from trainformer.serve.routes import LINES
from trainformer.serve.schemas import Answered

JSON = {"content-type": "application/json"}
Case = tuple[str, str, Any, dict[str, str]]
"""Method, path, content, headers."""
SENTENCE = re.compile(r"\S.{8,}[.?]$", re.DOTALL)


def bodies() -> Iterator[Any]:
    """Contents of /v1/predict that are none."""
    wrong: list[Any] = [None, True, 1, -1.5, [], {}, "", [None], [1], ["a", 2], ["a", None],
                        [["a"]], [["a", "b", "c"]], [["a", 1]], ["a", ["b", "c"]], {"text": "a"}, [{}], [[]], [[[]]],
                        [["a", ["b"]]], "\ud800", ["\udfff"], [["a", "\ud800"]]]  # fmt: skip
    for value in wrong:
        if value != "":
            yield {"texts": value}
    for name in ("top_k", "deadline_ms"):
        for value in (0, -1, 1.5, "2", True, [], {}, float("nan"), float("inf"), "x" * 5000):
            yield {"texts": "a", name: value}
    for value in ("yes", 1, 0, [], None, "true"):
        yield {"texts": "a", "truncate": value}
    for value in (1, True, [], {}, "", "x" * 201, "../reviews", "\0", "reviews\n", "<script>", "%2e%2e", "\U0001f600", "\u202e"):
        yield {"texts": "a", "model": value}
    for value in ("true", 1, "no", None):
        yield {"texts": "a", "explain": value}


def names_and_shapes() -> Iterator[Any]:
    """More of them: names that there are not, shapes that are no request, texts that do not fit."""
    for name in ("text", "Texts", "__proto__", "constructor", "texts ", "", "labels", "$ref", "a" * 1000):
        yield {name: "a"} if name != "labels" else {"texts": "a", name: []}
    for value in ([], "a", 1, None, True, [["texts", "a"]]):
        yield value
    for value in (["good " * 20], "good " * 20, ["a", "good " * 15], ["good " * 5000], [["a", "good " * 20]]):
        yield {"texts": value}
    for extra in (
        "__init__",
        "0",
        "a.b",
        "constructor",
        "prototype",
        "TEXTS",
        "top-k",
        "deadline",
        "shadow",
        "key",
        "weights",
        "path",
        "bundle",
        "__class__",
        "headers",
        "stream",
        "temperature",
        "logits",
        "admin",
    ):
        yield {"texts": "a", extra: 1}
    for top_k, truncate in ((0, 1), (None, None), ("1", "x"), ([1], [True]), (2.0, 0.0), (-(2**70), "on")):
        yield {"texts": ["a"], "top_k": top_k, "truncate": truncate}
    yield {"texts": ["a"] * 1025}
    yield {"texts": [["a film", "a film"]]}


def raw() -> Iterator[bytes]:
    """Bodies that are no JSON."""
    yield from (
        b"",
        b"{",
        b"}",
        b"{]",
        b'{"texts": "a"',
        b'{"texts": "a"}}',
        b"{'texts': 'a'}",
        b"\xff\xfe",
        b"\x00",
        b'{"texts": "\xff"}',
    )
    yield from (
        b"texts=a",
        b"<xml/>",
        b"undefined",
        b'{"texts": "a",}',
        b'{"texts": a}',
        b'{"texts": "\x01"}',
        b"// c\n{}",
        b"\xef\xbb\xbf{",
    )
    yield from (
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"9" * 10_000,
        b'{"texts": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b"1e999",
        b"-",
    )
    yield from (
        b'{"texts": "a", "top_k": ' + b"9" * 5000 + b"}",
        b'"' + b"a" * 1_000_001 + b'"',
        b"NaN",
        b"Infinity",
        b'{"texts": NaN}',
    )
    yield '{"texts": "a"}'.encode("utf-32")[:-3]


def cases() -> Iterator[Case]:
    for body in [*bodies(), *names_and_shapes()]:
        yield "POST", "/v1/predict", json.dumps(body).encode(), JSON
    for content in raw():
        yield "POST", "/v1/predict", content, JSON
    for kind in (
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "json",
        "*/*",
    ):
        yield "POST", "/v1/predict", b'{"texts": "a"}', {"content-type": kind}
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW"):
        yield method, "/v1/predict", b"", {}
    for path in ("/v1", "/v1/", "/v1/predict/", "/V1/predict", "/v1/predict:", "/v1/predict:Stream", "/v2/predict", "/.env",
                 "/admin", "/../../etc/passwd", "/v1/models/../../etc/passwd", "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
                 "/v1/models/nobody", "/v1/models/%00", "/v1/models/%0d%0aset-cookie:a", "/v1/models/<script>",
                 "/v1/models/" + "x" * 5000, "/static/../page.html", "/v1/drift?model=nobody", "/docs", "/redoc", "/%ff%fe",
                 "/v1/models/\u202e"):  # fmt: skip
        yield "GET", path, b"", {}
    for verb in ("delete", "reload:", "rollback/x", ""):
        yield "POST", f"/v1/models/reviews:{verb}", b"{}", JSON
    for size in ("-1", "a", "1e3", "0x10", "9" * 30, "1, 2", "999999999999"):
        yield "POST", "/v1/predict", b'{"texts": "a"}', {**JSON, "content-length": size}
    for items in (None, [], [{}], [{"id": 1, "label": "a"}], [{"id": "a"}], [{"id": "a", "label": None}],
                  [{"id": "a", "label": {}}], [{"id": "a", "label": [1]}], [{"id": "x" * 65, "label": "a"}],
                  [{"id": "a", "label": True}], [{"id": "a", "label": "\ud800"}],
                  [{"id": "a", "label": "b", "text": "c"}], [1], "a", [{"id": "a", "label": "b"}] * 1001):  # fmt: skip
        yield "POST", "/v1/feedback", json.dumps({"items": items}).encode(), JSON


def test_each_is_refused_with_a_code_and_a_sentence(running: Any) -> None:
    async def main() -> list[tuple[Case, Any]]:
        async with running() as it:
            found = []
            for case in cases():
                method, path, content, headers = case
                found.append((case, await it.client.request(method, path, content=content, headers=headers)))
            after = await it.predict("a good film")
            assert after.status_code == 200 and it.worker().starts == 1
            return found

    found = asyncio.run(main())
    assert len(found) >= 200
    wrong = []
    for (method, path, content, headers), response in found:
        shown = f"{method} {path[:60]} {content[:60]!r} {headers}: {response.status_code} {response.text[:200]}"
        refused = 400 <= response.status_code < 500
        if not refused or (method != "HEAD" and not tells(response.json(), response.text)):
            wrong.append(shown)
    assert wrong == []


def tells(body: Any, text: str) -> bool:
    """Whether a refusal has a code and a sentence, and nothing of our insides."""
    error = body.get("error", {})
    told = bool(re.fullmatch(r"[a-z_]+", error.get("code", ""))) and bool(SENTENCE.search(error.get("message", "")))
    return told and not re.search(r"Traceback|File \"|\.py|site-packages", text)


def test_hostile_names_come_back_as_data(running: Any) -> None:
    """What a client calls things neither changes a header nor adds a line to metrics."""
    names = ["a\r\nset-cookie: b", '"} 1\ntrainformer_fake 1', "\u202e", "<script>alert(1)</script>", "a" * 150, "\x7f"]

    async def main() -> Any:
        async with running() as it:
            found = [await it.predict("a", model=name) for name in names]
            await it.client.get("/v1/models/%22%7D%201%0Atrainformer_fake%201")
            return found, (await it.client.get("/metrics")).text

    found, metrics = asyncio.run(main())
    assert {r.status_code for r in found} == {404}
    assert not [r for r in found if "set-cookie" in r.headers or "script" in r.text]
    assert "trainformer_fake" not in metrics and "trainformer_requests_total" in metrics


def fuzzed(document: dict[str, Any], count: int) -> list[tuple[bool, Any]]:
    """So many requests that the document allows, or forbids, of each operation: (whether its JSON is forbidden, request)."""
    schemathesis = pytest.importorskip("schemathesis", reason="pip install schemathesis")
    import requests

    @schemathesis.serializer(LINES)  # type: ignore[untyped-decorator]  # it comes without types
    def as_it_is(_: Any, value: Any) -> bytes:
        return value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()

    operations = [each.ok() for each in schemathesis.openapi.from_dict(document).get_all_operations()]
    modes = schemathesis.GenerationMode
    asked = [(o, modes.POSITIVE) for o in operations] + [(o, modes.NEGATIVE) for o in operations if o.body or o.query]
    varied = sum(bool(o.body or o.query or o.path_parameters) for o, _ in asked)
    made = []
    for operation, mode in asked:
        forbidden = mode is modes.NEGATIVE and bool(operation.body) and operation.path != STREAM
        for case in drawn(operation.as_strategy(generation_mode=mode), count // varied + 1):
            words = case.as_transport_kwargs(base_url="http://127.0.0.1")
            made.append((forbidden, requests.Request(**words).prepare()))
            made[-1][1].headers.setdefault("content-type", "application/json")  # else a change of models is refused for that
    return made


def drawn(strategy: Any, count: int) -> list[Any]:
    """So many values of a strategy, the same at each call; fewer where it has no more."""
    import hypothesis

    found: list[Any] = []
    how = hypothesis.settings(max_examples=count, database=None, derandomize=True, deadline=None,
                              phases=[hypothesis.Phase.generate], suppress_health_check=list(hypothesis.HealthCheck))  # fmt: skip
    how(hypothesis.given(strategy)(lambda value: found.append(value)))()
    return found


def fault(request: Any, response: Any, forbidden: bool) -> bool:
    """Whether something other was answered than what the API promises."""
    if response.status_code >= 400:
        late = response.status_code == 504 and b"deadline_ms" in (request.body or b"")  # a millisecond was asked for, and is over
        return (response.status_code >= 500 and not late) or not tells(response.json(), response.text)
    if request.path_url.startswith(STREAM):
        lines = [json.loads(line) for line in response.text.splitlines()]
        return not all("prediction" in line or tells(line, json.dumps(line)) for line in lines)
    if request.path_url == "/v1/predict":
        Answered.model_validate_json(response.text)
    return forbidden


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_fuzzed_requests_are_answered_as_promised(count: int, running: Any) -> None:
    """What the document forbids is refused, what it allows is answered or refused; the service is whole afterwards."""

    async def main() -> list[tuple[bool, Any, Any]]:
        async with running() as it:
            found = []
            for forbidden, request in await asyncio.to_thread(fuzzed, it.app.openapi(), count):
                sent = {"content": request.body or b"", "headers": dict(request.headers)}
                found.append((forbidden, request, await it.client.request(request.method, request.url, **sent)))
            after = await it.predict("a good film")
            assert after.status_code == 200 and it.worker().starts == 1
            return found

    found = asyncio.run(main())
    statuses = [response.status_code for _, request, response in found if request.path_url == "/v1/predict"]
    assert len(found) >= count and statuses.count(200) > count / 100 and statuses.count(422) > count / 20
    wrong = [
        f"{request.method} {request.url[:100]} {(request.body or b'')[:200]!r}: {response.status_code} {response.text[:200]}"
        for forbidden, request, response in found
        if fault(request, response, forbidden)
    ]
    assert wrong == []
