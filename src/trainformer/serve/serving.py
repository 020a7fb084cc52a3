"""Starts a service and ends it well: what is refused at the start, and what happens at SIGTERM."""

import asyncio
import ipaddress
import logging
import re
import shutil
import signal
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from trainformer.core.errors import MissingExtra, UserError
from trainformer.serve.alerts import Alerts
from trainformer.serve.auth import Keys
from trainformer.serve.copies import adopt, kept
from trainformer.serve.process import NICE, Lost, Process
from trainformer.serve.settings import ServeSettings

if TYPE_CHECKING:
    import uvicorn

    from trainformer.serve.service import Service

log = logging.getLogger("trainformer.serve")
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
WAITING = 2048
"""Connections that wait to be taken at most."""
SETTLE_SECONDS = 0.5
"""How long what is under way at the end has to arrive."""


def named(words: Iterable[str]) -> dict[str, Path]:
    """Folders by name, from `NAME=BUNDLE` or a folder alone, which is called as its run is. Raises UserError."""
    found: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        folder = Path(path if equals else word)
        if not equals:
            whole = folder.absolute()
            name = whole.parent.name if whole.name == "bundle" else whole.name
        if not NAME.fullmatch(name):
            raise UserError(f"'{name:.60}' is no name of a model.", where=word, fix="NAME=BUNDLE, of letters, digits, . _ -")
        if name in found:
            raise UserError(f"two models are called '{name}'.", where=word, fix="Give names: NAME=BUNDLE.")
        found[name] = folder
    return found


def require_safe(host: str, keys: Keys) -> None:
    """Raises UserError for an address that others can reach where no key protects it."""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local and not keys:
        what = "others can reach this address, and there are no keys."
        raise UserError(
            what, where=f"--host {host}", fix="Make one: trainformer key NAME --keys FILE, then serve with --keys FILE."
        )


@dataclass(frozen=True)
class Plan:
    """What was asked for on the command line."""

    bundles: dict[str, Path]
    shadows: dict[str, Path]
    host: str
    port: int
    state: Path
    keys: Keys
    alerts: Alerts
    store: str | None
    settings: ServeSettings


def run(plan: Plan) -> None:
    """Serves until a signal. Raises UserError for a bundle that cannot be opened, a port or data base that is not there."""
    for name in plan.shadows:
        if name not in plan.bundles:
            raise UserError(f"no model '{name}' to stand beside.", where=f"--shadow {name}={plan.shadows[name]}")
    with door(plan.host, plan.port) as bound:
        asyncio.run(_run(plan, bound))


def door(host: str, port: int) -> socket.socket:
    """A socket that is bound and does not listen yet: whether the address can be had is known before any bundle is read.

    Raises UserError for an address that cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        made = socket.socket(family, kind, protocol)  # not 0: asyncio would leave Nagle's algorithm on, and answers 40 ms late
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(address)
        except OSError:
            made.close()
            raise
    except OSError as error:
        raise _taken(host, port, error) from error
    return made


def _taken(host: str, port: int, error: OSError) -> UserError:
    what = f"this address cannot be listened on: {error.strerror}."
    return UserError(what, where=f"{host} port {port}", fix="Choose another --host or --port.")


async def _run(plan: Plan, bound: socket.socket) -> None:
    """The models' processes open their bundles while this one reads what it needs itself."""
    begun: dict[tuple[Path, int], Process] = {}
    every: list[Process] = []
    there = kept(plan.state)
    try:
        for nice, bundles in ((0, plan.bundles), (NICE, plan.shadows)):
            for source in bundles.values():
                _, folder = adopt(source, plan.state)
                if (folder, nice) not in begun:
                    process = begun[folder, nice] = Process(folder, plan.settings.threads, plan.settings.start_seconds, nice)
                    every.append(process)
                    await process.begin()
        service = await asyncio.to_thread(made, plan, begun)
        await _serve(service, plan, bound)
    except UserError:
        for copy in kept(plan.state) - there:  # of what is refused nothing stays
            shutil.rmtree(copy)
        raise
    finally:
        for process in every:
            await process.stop(at_once=True)


def made(plan: Plan, begun: dict[tuple[Path, int], Process]) -> "Service":
    """The service of a plan; a model takes the process that was begun for it. Raises UserError for what is no bundle."""
    from trainformer.serve.service import Service
    from trainformer.serve.store import Store

    def take(folder: Path, nice: int) -> Process:
        new = Process(folder, plan.settings.threads, plan.settings.start_seconds, nice)
        return begun.pop((folder, nice), new)

    store = Store.postgresql(plan.store, plan.settings.keep_predictions) if plan.store else None
    service = Service(plan.settings, plan.state, plan.keys, take, store)
    service.watch.alerts = plan.alerts
    add(service, plan.bundles, plan.shadows)
    return service


def add(service: "Service", bundles: dict[str, Path], shadows: dict[str, Path]) -> None:
    """Reads all bundles. Raises UserError for one that is none."""
    for name, folder in bundles.items():
        service.models.add(name, folder, shadows.get(name))


async def _serve(service: "Service", plan: Plan, bound: socket.socket) -> None:
    """Opens the port when all models are ready, and ends them after the last answer."""
    try:
        server = _server(service, plan)
        await service.start()
        _listen(bound, plan)
        await server.serve(sockets=[bound])
    except Lost as error:
        raise UserError(f"a model cannot be opened: {error}", where="serve") from error
    finally:
        await service.stop()


def _listen(bound: socket.socket, plan: Plan) -> None:
    """From here on connections are taken, and the log says where. Raises UserError if another was quicker."""
    try:
        bound.listen(WAITING)
    except OSError as error:
        raise _taken(plan.host, plan.port, error) from error
    host, port = bound.getsockname()[:2]
    log.info("listening", extra={"fields": {"url": f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"}})


def _server(service: "Service", plan: Plan) -> "uvicorn.Server":
    """The server of HTTP, which ends as `Leaving` says."""
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra("uvicorn", "serve") from error
    from trainformer.serve.app import build
    from trainformer.serve.log import set_up

    set_up()
    plain: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False, "ws": "none", "lifespan": "off"}
    limits: dict[str, Any] = {
        "limit_concurrency": plan.settings.connections,
        "timeout_graceful_shutdown": max(1, int(plan.settings.drain_seconds)),
    }

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """uvicorn's stops listening at once, and who balances load would still send."""
            Leaving(service, self)(sig, frame)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            """uvicorn's closes every connection that no request was read from yet: what is under way on them is read first."""
            for taking in sockets or []:
                taking.listen(0)
            await asyncio.sleep(SETTLE_SECONDS)
            for listener in self.servers:
                listener.close()
            await asyncio.sleep(SETTLE_SECONDS)
            await super().shutdown(sockets)

    return Server(uvicorn.Config(build(service), **plain, **limits))


class Leaving:
    """At the first signal: not ready any more, each connection is told that it is the last, and a while later the port closes.
    At the second: at once."""

    def __init__(self, service: "Service", server: Any):
        self.service, self.server = service, server

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.service.leaving or number == signal.SIGINT:
            self.server.should_exit = True
        self.service.leaving = True
        timer = threading.Timer(self.service.settings.leave_seconds, self._close)
        timer.daemon = True
        timer.start()

    def _close(self) -> None:
        self.server.should_exit = True
