"""Two hundred bad requests, made by small rules: each gets 4xx with a code and a sentence, never 5xx."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

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
    for value in (True, 1, "no", None):
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
        good = 400 <= response.status_code < 500
        if good and method != "HEAD":
            error = response.json().get("error", {})
            good = bool(re.fullmatch(r"[a-z_]+", error.get("code", ""))) and bool(SENTENCE.search(error.get("message", "")))
            good = good and not re.search(r"Traceback|File \"|\.py|site-packages", response.text)
        if not good:
            wrong.append(shown)
    assert wrong == []


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
