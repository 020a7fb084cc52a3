"""A service in a process of its own, by the command line: start, drain at SIGTERM, reload, what is refused at the start."""

import asyncio
import json
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainformer.core.errors import UserError
from trainformer.serve import serving


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(600):
        while not true():
            await asyncio.sleep(0.01)


async def ask(port: int, text: str, sent: list[str], answered: list[int], lost: list[str]) -> None:
    """Requests one after the other over kept connections, until the port is closed; what was sent whole must be answered."""
    body = json.dumps({"texts": text}).encode()
    lines = ("POST /v1/predict HTTP/1.1", "host: localhost", "content-type: application/json", f"content-length: {len(body)}")
    head = "".join(f"{line}\r\n" for line in (*lines, "")).encode()
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return
        closing = False
        while not closing:
            try:
                writer.write(head + body)
                await writer.drain()
                sent.append(text)
                answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                size = next(int(line.split(": ")[1]) for line in answer.split("\r\n") if line.startswith("content-length"))
                await reader.readexactly(size)
            except (OSError, asyncio.IncompleteReadError):
                lost.append(text)
                break
            answered.append(int(answer.split(" ")[1]))
            closing = "connection: close" in answer
        writer.close()


def test_sigterm_under_load_loses_nothing(start: Callable[..., Any], bundle: Path) -> None:
    """Eight clients ask without a pause; at SIGTERM each is told that a connection was its last; all that was sent is answered,
    and the service and its model's process end with code 0."""
    service = start(f"reviews={bundle}", "--set", "leave_seconds=1", "--set", "threads=1")
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    sent: list[str] = []
    answered: list[int] = []
    lost: list[str] = []

    async def main() -> None:
        asking = [asyncio.create_task(ask(service.port, f"a good film {'so ' * i}", sent, answered, lost)) for i in range(8)]
        await until(lambda: len(answered) > 40)
        service.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*asking)

    asyncio.run(main())
    assert service.process.wait(600) == 0, service.log.read_text()[-2000:]
    assert len(answered) > 40 and set(answered) == {200}
    assert lost == [] and len(sent) == len(answered)
    assert len(children) == 1 and not [pid for pid in children if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
def test_keys_reload_and_rollback_by_command(start: Callable[..., Any], folder: Path, other: Path, tmp_path: Path, cli: Any,
                                             monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    keys = tmp_path / "keys"
    web = cli("key", "web", "--keys", keys).out.strip()
    admin = cli("key", "ops", "--keys", keys, "--admin").out.strip()
    service = start(f"reviews={folder}", "--keys", str(keys))
    url = f"http://127.0.0.1:{service.port}"
    assert service.get("/v1/models") == 401
    first = service.predict("a good film", web)["version"]
    shutil.rmtree(folder)
    shutil.copytree(other, folder)
    refused = cli("reload", "reviews", "--url", url)
    assert refused.code == 2 and "A key is needed" in refused.err
    monkeypatch.setenv("TRAINFORMER_KEY", web)
    assert "may not change models" in cli("reload", "reviews", "--url", url).err
    monkeypatch.setenv("TRAINFORMER_KEY", admin)
    assert cli("reload", "reviews", "--url", url).answers[0]["previous"] == first
    assert service.predict("a good film", web)["version"] != first
    assert cli("rollback", "reviews", "--url", url).answers[0]["version"] == first
    assert service.predict("a good film", web)["version"] == first
    assert service.end() == 0
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert [line["url"] for line in lines if line["message"] == "listening"] == [url]
    assert {line.get("key") for line in lines if line.get("path") == "/v1/predict"} == {"web"}
    assert not [s for s in (web, admin) if s in service.log.read_text()]


def test_what_is_refused_at_the_start(cli: Any, bundle: Path, tmp_path: Path) -> None:
    """Each with exit code 2 and one line."""
    state = ("--state", tmp_path / "state", "--port", 0)
    for words, told in (
        ((bundle, "--host", "0.0.0.0"), "others can reach this address, and there are no keys."),
        ((tmp_path / "nothing",), "no such folder"),
        ((bundle, bundle), "two models are called"),
        ((f"a b={bundle}",), "is no name of a model"),
        ((f"x={bundle}", "--shadow", f"y={bundle}"), "no model 'y' to stand beside"),
        ((bundle, "--set", "queue=1"), "no setting 'queue'"),
        ((bundle, "--keys", tmp_path / "none"), "cannot be read"),
        ((bundle, "--alerts", tmp_path / "none"), "cannot be read"),
    ):
        done = cli("serve", *words, *state)
        assert done.code == 2 and told in done.err and done.err.count("\n") == 1, done.err


def test_an_address_that_cannot_be_had_is_refused_at_once(cli: Any, tmp_path: Path) -> None:
    """Before the bundle is looked at: there is none."""
    state = ("--state", tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = cli("serve", tmp_path / "nothing", "--port", other.getsockname()[1], *state)
    elsewhere = cli("serve", tmp_path / "nothing", "--host", "192.0.2.1", "--keys", keys_of(cli, tmp_path), *state)
    for done in (taken, elsewhere):
        assert done.code == 2 and "cannot be listened on" in done.err and done.err.count("\n") == 1, done.err


def keys_of(cli: Any, folder: Path) -> Path:
    assert cli("key", "web", "--keys", folder / "keys").code == 0
    return folder / "keys"


def test_two_that_are_bound_to_one_port(tmp_path: Path) -> None:
    """Of two services that start at the same time the second is told when it begins to listen."""
    with serving.door("127.0.0.1", 0) as one, serving.door("127.0.0.1", one.getsockname()[1]) as two:
        one.listen()
        plan: Any = SimpleNamespace(host="127.0.0.1", port=one.getsockname()[1])
        with pytest.raises(UserError, match="cannot be listened on: Address already in use"):
            serving._listen(two, plan)


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """asyncio turns the algorithm of Nagle off where it is told that a socket is of TCP; else an answer takes 40 ms more."""

    async def main(bound: socket.socket) -> int:
        set_to: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ours = writer.get_extra_info("socket")
            set_to.set_result(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(taken, sock=bound):
            _, writer = await asyncio.open_connection(*bound.getsockname())
            found = await set_to
            writer.close()
        return found

    with serving.door("127.0.0.1", 0) as bound:
        assert asyncio.run(main(bound))


def test_names_of_models(tmp_path: Path) -> None:
    found = serving.named([str(tmp_path / "run-1" / "bundle"), f"two={tmp_path}", str(tmp_path / "mine")])
    assert list(found) == ["run-1", "two", "mine"]
    for word in ("=x", "-a=x", "a/b=x", "a:reload=x", "ü=x", "a" * 65 + "=x"):
        with pytest.raises(UserError, match="is no name"):
            serving.named([word])
