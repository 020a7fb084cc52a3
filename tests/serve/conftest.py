"""Services in this process: a bundle, a worker that can be told to fail, and a client of the application."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trainformer.bundle import Bundle
from trainformer.bundle.writing import Contents, write
from trainformer.core import registry
from trainformer.core.roles import Backbone, Decision, Task
from trainformer.data.columns import Columns
from trainformer.data.tokens import HubTokens
from trainformer.serve import serving, worker
from trainformer.serve.app import build
from trainformer.serve.auth import Keys, parsed
from trainformer.serve.process import Lost
from trainformer.serve.service import Service
from trainformer.serve.settings import ServeSettings

if TYPE_CHECKING:
    import httpx

ROOT = Path(__file__).resolve().parents[2]
LABELS = ["bad", "good", "so-so"]
START_SECONDS = 600
"""Long, for machines that have much else to do."""
asker = lru_cache(worker.asker)


@pytest.fixture(scope="session", autouse=True)
def _extras() -> None:
    for name in ("fastapi", "uvicorn", "prometheus_client", "httpx"):
        pytest.importorskip(name, reason=f"no {name} here: pip install 'trainformer[serve]' httpx")


class Inline:
    """A worker in this process. A text with the word DIE ends it, HANG keeps it, FAIL is an error of the model.

    `seconds` slow it, and while `hold` is not set it answers nothing.
    """

    def __init__(self, folder: Path, nice: int = 0):
        self.folder, self.alive, self.starts, self.seconds = folder, False, 0, 0.0
        self.batches: list[list[str]] = []

    async def start(self) -> None:
        self.answer = await asyncio.to_thread(asker, str(self.folder))
        self.gone, self.alive, self.starts = asyncio.Event(), True, self.starts + 1
        self.hold = asyncio.Event()
        self.hold.set()

    async def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        texts = [text for each in asked["texts"] for text in each]
        self.batches.append(texts)
        words = {word for text in texts for word in text.split()}
        await self.hold.wait()
        await asyncio.sleep(3600 if "HANG" in words else self.seconds)
        if "DIE" in words:
            self.die()
            raise Lost("it ended with code -9")
        return {"error": "RuntimeError: broken"} if "FAIL" in words else self.answer(asked)

    def die(self) -> None:
        self.alive = False
        self.gone.set()

    async def ended(self) -> None:
        await self.gone.wait()

    async def stop(self, at_once: bool = False) -> None:
        self.die()


def bundle_of(model: Path, folder: Path, name: str = "text_classification", seed: int = 1, **settings: Any) -> Path:
    """A bundle with a head of random weights; `max_tokens` is 16 unless given."""
    import torch

    torch.manual_seed(seed)
    most = settings.pop("max_tokens", 16)
    pages = settings.pop("pages", {"README.md": "# A model\n"})
    if name != "regression":
        settings.setdefault("labels", LABELS)
    task = registry.build(Task, name, settings)
    if name == "regression":
        for row, target in enumerate([1.0, 2.0, 4.0, 8.0]):
            task.observe(task.parse(("film",), target, row, 1.0))
        task.settle()
    made, backbone, _ = registry.build(Backbone, "pretrained", {"name": str(model)}).load(task)
    with torch.no_grad():
        for p in made.head.parameters():
            p.add_(torch.randn(p.shape) * 0.5)
    columns = Columns("text", "other" if task.pair else None, "label")
    tokens = HubTokens.load(str(model))
    write(folder, Contents(task, backbone, made, tokens, Decision(), columns, most, {}, pages=pages))
    return folder


@pytest.fixture(scope="session")
def bundle(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three labels that reads 16 tokens. Read only."""
    return bundle_of(tiny_model, tmp_path_factory.mktemp("served") / "reviews")


@pytest.fixture(scope="session")
def other(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another version of it. Read only."""
    return bundle_of(tiny_model, tmp_path_factory.mktemp("served") / "reviews", seed=2)


@pytest.fixture
def make(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """`make("text_pair")`: a bundle of another task, in a folder of its own."""
    return lambda *args, **settings: bundle_of(
        tiny_model, tmp_path / f"bundle-{len(list(tmp_path.iterdir()))}", *args, **settings
    )


@pytest.fixture
def offline(bundle: Path) -> Bundle:
    return Bundle.open(bundle)


async def until(true: Callable[[], Any]) -> None:
    """Waits for something that will come."""
    async with asyncio.timeout(START_SECONDS):
        while not true():
            await asyncio.sleep(0.005)


class Running:
    """A service that runs, and a client of its application."""

    def __init__(self, service: Service, client: "httpx.AsyncClient"):
        self.service, self.client, self.app = service, client, None

    def worker(self, name: str = "reviews") -> Inline:
        found: Any = self.service.models.find(name).current.lane.worker
        return found

    async def until(self, true: Callable[[], Any]) -> None:
        await until(true)

    async def predict(self, texts: Any, **more: Any) -> "httpx.Response":
        return await self.client.post("/v1/predict", json={"texts": texts, **more})


@pytest.fixture
def running(bundle: Path, tmp_path: Path) -> Callable[..., Any]:
    """`async with running(queue_tokens=100, keys="...") as it`: a service of one bundle, or of those given."""

    import httpx

    @asynccontextmanager
    async def run(
        bundles: dict[str, Path] | None = None, shadows: dict[str, Path] | None = None, keys: str = "", **settings: Any
    ) -> AsyncIterator[Running]:
        known: Keys = parsed(keys, "keys")
        service = Service(ServeSettings(**settings), tmp_path / "state", known, Inline)
        serving.add(service, bundles or {"reviews": bundle}, shadows or {})
        await service.start()
        app = build(service)
        try:
            transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=None) as client:
                it = Running(service, client)
                it.app = app  # type: ignore[assignment]
                yield it
        finally:
            await service.stop()

    return run


@pytest.fixture
def folder(bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may change."""
    return Path(shutil.copytree(bundle, tmp_path / "mine" / "reviews"))


class Served:
    """A process of `trainformer serve`."""

    def __init__(self, folder: Path, *words: str, **environment: str):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = folder / f"log-{self.port}"
        asked = [sys.executable, "-m", "trainformer", "serve", *words, "--port", str(self.port)]
        asked += ["--state", str(folder / f"state-{self.port}"), "--set", f"start_seconds={START_SECONDS}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(asked, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment})
        end = time.monotonic() + START_SECONDS
        while self.get("/health/ready") != 200:
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                self.process.wait()
                raise AssertionError(self.log.read_text())
            time.sleep(0.05)

    def get(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=START_SECONDS) as found:
                return int(found.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

    def predict(self, text: str, key: str = "") -> Any:
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/predict", json.dumps({"texts": text}).encode(), headers)
        with urllib.request.urlopen(asked, timeout=START_SECONDS) as found:
            return json.load(found)

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(START_SECONDS)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    begun: list[Served] = []

    def begin(*words: str, **environment: str) -> Served:
        begun.append(Served(tmp_path, *words, **environment))
        return begun[-1]

    yield begin
    for each in begun:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
