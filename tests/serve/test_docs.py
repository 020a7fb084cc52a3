"""What docs/serving.md says is true: its commands run, its requests are answered, its rules are read, its tables are fresh."""

import json
import re
import runpy
import shlex
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainformer.serve import alerts, auth, serving
from trainformer.serve.schemas import Answered, Feedback

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line.strip()]


def block(kind: str, number: int = 0) -> str:
    return [text for k, text in BLOCKS if k == kind][number]


def fetched(words: list[str], port: int) -> Any:
    """What a curl command gets: `-d`, `--data-binary @FILE`, `-H` and an address are all that the page uses."""
    data, headers, url = None, {}, ""
    rest = iter(words)
    for word in rest:
        if word in ("-d", "--data-binary"):
            given = next(rest)
            data = Path(given[1:]).read_bytes() if given.startswith("@") else given.encode()
        elif word == "-H":
            name, _, value = next(rest).partition(": ")
            headers[name] = value
        else:
            url = word.replace(":8000", f":{port}")
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=600) as found:
        return found.status, found.read().decode()


def test_every_command_runs(start: Callable[..., Any], trained: Path, other: Path, tmp_path: Path, cli: Any,
                            monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """In order: what serves is checked as far as the port and one service is left running; curl and the verbs speak to it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.jsonl").write_text('{"text": "a good film"}\n"so bad"\n')
    (tmp_path / "alerts.yaml").write_text(block("yaml"))
    shutil.copytree(trained / "bundle", "run/bundle")
    shutil.copytree(other, "run-2/bundle")
    opened: list[Any] = []
    monkeypatch.setattr(serving, "run", opened.append)
    service = start("reviews=run/bundle", "--set", "threads=1")
    base, ran = f"http://127.0.0.1:{service.port}", 0
    for command in COMMANDS:
        program, *words = shlex.split(command)
        if program == "curl":
            status, text = fetched(words, service.port)
            assert status == 200 and text, command
        elif program == "trainformer" and words[0] == "train":
            continue  # tests/flow runs it, page by page
        elif program == "trainformer":
            if words[0] == "reload":
                shutil.rmtree("run/bundle")
                shutil.copytree(other, "run/bundle")
            at = ["--url", base] if words[0] in ("reload", "rollback") else ["--state", "state"] if words[0] == "serve" else []
            done = cli(*words, *at)
            assert done.code == 0, f"{command}\n{done.err}"
        else:
            assert program == "pip" and re.search(r"^(serve|postgresql) = ", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        ran += 1
    assert ran >= 15
    assert [(plan.host, plan.port) for plan in opened] == [(h, 8000) for h in ("127.0.0.1", "0.0.0.0", "127.0.0.1", "127.0.0.1")]
    assert opened[1].keys.keys == auth.read(tmp_path / "keys").keys and len(opened[1].keys.keys) == 2
    assert len(opened[3].alerts.rules) == 4
    for plan in opened:
        service = serving.made(plan, {})
        assert (service.models.find("reviews").shadow is not None) == bool(plan.shadows) == (plan is opened[2])
        service.store.close()


def test_the_examples_have_the_shape_of_the_api() -> None:
    Answered.model_validate_json(block("json", 0))
    Feedback.model_validate_json(block("json", 1))


def test_every_code_of_an_error_is_on_the_page_and_no_other(running: Any) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/trainformer/serve").glob("*.py"))
    ours = set(re.findall(r'Refusal\(\s*\d+, "([a-z_]+)"', text)) | {"bad_request", "not_found"}
    told = set(re.findall(r"`([a-z_]+)`", " ".join(re.findall(r"^\| \d.*", PAGE, re.MULTILINE))))
    assert ours - told == {"internal", "invalid_line", "changing", "not_loaded", "no_previous", "content_length"}, (
        "told elsewhere, or of changes"
    )
    assert told - ours == set()


def test_the_rules_are_read(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(block("yaml"))
    assert [rule.kind for rule in alerts.read(tmp_path / "rules.yaml").rules] == ["threshold", "threshold", "change", "surge"]
    assert len(yaml.safe_load(block("yaml"))) == 4


def test_the_table_of_settings_is_fresh() -> None:
    assert runpy.run_path(str(ROOT / "docs" / "make_reference.py"))["with_settings"](PAGE) == PAGE, "stale: make docs"


def test_the_page_says_what_the_watch_keeps() -> None:
    from trainformer.bundle.reference import MOST_ROWS
    from trainformer.serve.settings import ServeSettings

    assert f"{MOST_ROWS:,} training rows" in PAGE and f"last {ServeSettings().window:,} texts" in PAGE
    assert ServeSettings().embed_every == 8 and json.loads(block("json", 1))["items"]
