"""The store in PostgreSQL: the same answers as in SQLite, by a server that the test starts."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainformer.core.errors import UserError
from trainformer.serve.store import Store

psycopg = pytest.importorskip("psycopg", reason="pip install 'trainformer[postgresql]'")


def program(name: str) -> str | None:
    """PostgreSQL's programs are in the path, or where Debian puts them."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


@pytest.fixture
def url() -> Iterator[str]:
    """A data base on a free port of loopback; the server refuses to run as root, so root gives it to nobody."""
    initdb, control = program("initdb"), program("pg_ctl")
    if initdb is None or control is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    user = "nobody" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    if user is not None:
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base, log = str(folder / "base"), str(folder / "log")
    try:
        subprocess.run(
            [initdb, "-D", base, "-U", "watch", "-A", "trust", "-E", "UTF8"], check=True, capture_output=True, user=user
        )
        options = f"-p {port} -k {folder} -h 127.0.0.1"
        subprocess.run(
            [control, "-D", base, "-l", log, "-o", options, "-w", "-t", "300", "start"], check=True, stdout=-3, user=user
        )
        yield f"postgresql://watch@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([control, "-D", base, "-m", "immediate", "stop"], stdout=-3, stderr=-3, user=user)
        shutil.rmtree(folder)


def test_it_keeps_what_sqlite_keeps(url: str, tmp_path: Path) -> None:
    found = []
    for store in (Store.postgresql(url, 5), Store.sqlite(tmp_path / "s.sqlite", 5)):
        for i in range(8):
            store.add("m", "v", [{"id": str(i), "label": ["a", "ü'\\"][i % 2], "score": 0.5}])
            store.flush()
        unknown = store.learn([("1", "a"), ("6", "a"), ("7", "b")])
        first = store.score("m", "v")
        store.learn([("7", "ü'\\")])
        store.alert("slow", "p99_ms: 7", 7.0)
        found.append((unknown, first, store.score("m", "v"), [a["message"] for a in store.alerts()]))
        store.close()
    assert found[0] == found[1] == (["1"], {"truths": 2, "right": 0.5}, {"truths": 2, "right": 1.0}, ["p99_ms: 7"])


def test_a_data_base_that_is_not_there_is_told_without_its_password() -> None:
    with pytest.raises(UserError, match="the data base cannot be used") as caught:
        Store.postgresql("postgresql://watch:secret@127.0.0.1:1/none", 5)
    assert "secret" not in str(caught.value)
