"""Keys: who may do what. Every route but live and ready is closed without one."""

import asyncio
import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest

from trainformer.core.errors import UserError
from trainformer.serve import auth
from trainformer.serve.auth import Keys
from trainformer.serve.serving import require_safe

SECRET, ADMIN, SLOW = "tf_one", "tf_two", "tf_three"


def line(name: str, secret: str, more: str = "") -> str:
    return f"{name} {hashlib.sha256(secret.encode()).hexdigest()} {more}"


KEYS = "\n".join([line("web", SECRET), line("ops", ADMIN, "admin"), line("slow", SLOW, "per_minute=2")])


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def test_every_route_but_live_and_ready_is_closed(running: Any) -> None:
    """All routes of the application, each with each of its methods, and addresses that do not exist."""

    async def main() -> dict[str, int]:
        async with running(keys=KEYS) as it:
            pairs = [(m, r.path) for r in it.app.routes for m in r.methods]
            pairs += [("GET", "/nothing"), ("DELETE", "/v1/predict"), ("GET", "/health/live/"), ("GET", "//health/live")]
            found = {}
            for method, path in pairs:
                response = await it.client.request(
                    method, path.replace("{name}", "reviews"), headers={"content-type": "application/json"}
                )
                found[f"{method} {path}"] = response.status_code
            return found

    found = asyncio.run(main())
    opened = {route for route, status in found.items() if status != 401}
    assert opened == {"GET /health/live", "GET /health/ready"}
    assert len(found) >= 15 and {
        "POST /v1/predict",
        "POST /v1/predict:stream",
        "GET /metrics",
        "GET /",
        "GET /openapi.json",
    } <= set(found)


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer tf_on", "Bearer tf_onee", "bearer TF_ONE", "Basic tf_one", "tf_one", "Digest tf_one",
     "Basic " + base64.b64encode(b"tf_one:").decode(), "Basic ////", "Bearer \xff\xfe", "Bearer tf_one, tf_two"],
)  # fmt: skip
def test_what_is_no_key(header: str, running: Any) -> None:
    async def main() -> Any:
        async with running(keys=KEYS) as it:
            return await it.client.get("/v1/models", headers=[(b"authorization", header.encode("latin-1"))])

    response = asyncio.run(main())
    assert response.status_code == 401 and response.json()["error"]["code"] == "no_key"
    assert response.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize("header", ["Bearer tf_one", "bearer tf_one", "Basic " + base64.b64encode(b"anyone:tf_one").decode()])
def test_a_key_opens(header: str, running: Any) -> None:
    async def main() -> Any:
        async with running(keys=KEYS) as it:
            answer = await it.client.post("/v1/predict", json={"texts": "a film"}, headers={"authorization": header})
            change = await it.client.post("/v1/models/reviews:reload", json={}, headers={"authorization": header})
            admin = await it.client.post("/v1/models/reviews:reload", json={}, headers=bearer(ADMIN))
            return answer.status_code, change.status_code, change.json()["error"]["code"], admin.status_code

    assert asyncio.run(main()) == (200, 403, "not_admin", 200)


def test_a_rate_is_kept_by_key(running: Any) -> None:
    """Two a minute: the third is refused for half a minute; another key goes on; after the time it is taken again."""

    async def main() -> Any:
        async with running(keys=KEYS) as it:
            now = [0.0]
            it.service.keys.clock = lambda: now[0]
            it.service.keys._left = {name: (left, 0.0) for name, (left, _) in it.service.keys._left.items()}
            first = [await it.client.get("/v1/models", headers=bearer(SLOW)) for _ in range(3)]
            other = await it.client.get("/v1/models", headers=bearer(SECRET))
            now[0] = 30.0
            return first, other, await it.client.get("/v1/models", headers=bearer(SLOW))

    first, other, later = asyncio.run(main())
    assert [r.status_code for r in first] == [200, 200, 429] and (other.status_code, later.status_code) == (200, 200)
    assert (first[2].headers["retry-after"], first[2].json()["error"]["code"]) == ("30", "rate")


def test_all_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is compared by hmac.compare_digest, also after the one that fits."""
    compared = []
    keys = auth.parsed(KEYS, "keys")
    monkeypatch.setattr(auth.hmac, "compare_digest", lambda one, other: compared.append(one) or one == other)
    found = keys.who(SECRET)
    assert found is not None and found.name == "web"
    assert compared == [key.sha256 for key in keys.keys] and len(compared) == 3


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "10.0.0.1"])
def test_other_addresses_need_keys(host: str) -> None:
    with pytest.raises(UserError, match="there are no keys"):
        require_safe(host, Keys([]))
    require_safe(host, auth.parsed(KEYS, "keys"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    require_safe(host, Keys([]))


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "192.168.1.5:8000"])
def test_without_keys_a_page_under_another_name_is_refused(host: str, running: Any) -> None:
    async def main() -> Any:
        async with running() as it:
            found = [
                await it.client.get("/v1/models", headers={"host": h}) for h in (host, "localhost:8000", "127.0.0.1", "[::1]:1")
            ]
            return [r.status_code for r in found]

    assert asyncio.run(main()) == [421, 200, 200, 200]


def test_cors_is_off(running: Any) -> None:
    async def main() -> Any:
        async with running() as it:
            asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
            before = await it.client.options("/v1/predict", headers=asked)
            form = await it.client.post(
                "/v1/predict", content='{"texts": "a"}', headers={"content-type": "text/plain", "origin": "https://evil.example"}
            )
            change = await it.client.post("/v1/models/reviews:rollback", headers={"origin": "https://evil.example"})
            return before, form, change

    before, form, change = asyncio.run(main())
    assert before.status_code == 405 and (form.status_code, change.status_code) == (415, 415)
    assert not [name for r in (before, form, change) for name in r.headers if name.startswith("access-control")]


def test_a_file_of_keys_holds_no_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    secrets = [auth.add(file, "web", 600, False), auth.add(file, "ops", None, True)]
    text = file.read_text()
    assert not [s for s in secrets if s in text] and file.stat().st_mode & 0o777 == 0o600
    keys = auth.read(file)
    found = [keys.who(s) for s in secrets]
    assert [(k.name, k.per_minute, k.admin) for k in found if k] == [("web", 600, False), ("ops", None, True)]
    assert all(len(s) >= 43 for s in secrets)


@pytest.mark.parametrize(
    ("text", "words"),
    [("web abc", "line 1: a key is written"), (f"# c\n{line('a', 'x')}\n{line('a', 'y')}", "line 3: the name 'a' comes twice"),
     ("we b " + "0" * 64, "line 1"), (line("a", "x", "per_minute=0"), "line 1"), (line("a", "x", "root"), "line 1")],
)  # fmt: skip
def test_a_bad_file_of_keys(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        auth.parsed(text, "keys")


def test_an_empty_file_of_keys_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none\n")
    for file, words in ((tmp_path / "keys", "no key in it"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(UserError, match=words):
            auth.read(file)
