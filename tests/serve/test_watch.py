"""What is watched: windows against the training data, the running score, alerts, metrics and logs."""

import asyncio
import http.server
import json
import logging
import re
import socketserver
import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from trainformer.bundle import Bundle, reference, states
from trainformer.bundle.reference import Reference
from trainformer.core.errors import UserError
from trainformer.serve import alerts, log
from trainformer.serve.alerts import Alerts, Rule
from trainformer.serve.reader import Read
from trainformer.serve.settings import ServeSettings, settled
from trainformer.serve.watch import Window


def test_a_run_leaves_its_reference(trained: Path) -> None:
    """Of 64 training rows all are kept, of 8 validation rows the answers and the mean states, by hand (half precision)."""
    found = reference.read(trained / "bundle")
    bundle = Bundle.open(trained / "bundle")
    assert found is not None
    rows = [json.loads(line) for line in (trained.parent / "reviews.jsonl").read_text().splitlines()]
    assert len(found.lengths) == len(found.unknown) == 64 and len(found.scores) == len(found.embeddings) == 8
    possible = {len(row["text"].split()) + 2 for row in rows}
    assert {int(n) for n in found.lengths} <= possible and found.unknown.max() == 0
    assert sum(found.labels.values()) == 8 and set(found.labels) <= {"good", "bad"}
    by_hand = []
    for row in rows:
        with states.watched(bundle.model, [0]) as seen:
            bundle.predict(row["text"])
        by_hand.append(seen.found[0])
    distances = torch.cdist(torch.from_numpy(found.embeddings), torch.stack(by_hand)).min(1).values
    assert distances.max() < 5e-3, "each is the mean state of one of the rows"


def test_a_bundle_without_a_reference_is_served(running: Any) -> None:
    async def main() -> Any:
        async with running() as it:
            await it.predict("a good film")
            return (await it.client.get("/v1/drift")).json()

    found = asyncio.run(main())
    assert {k: found[k] for k in ("reference", "drift", "charts", "texts")} == {
        "reference": False,
        "drift": {},
        "charts": {},
        "texts": 1,
    }


def known() -> Reference:
    drawn = torch.randn(50, 4).numpy()
    scores = torch.linspace(0.5, 1, 100).numpy()
    return Reference(np.arange(3.0, 103), np.zeros(100), scores, np.empty(0), drawn, {"good": 60, "bad": 40})


def answered(count: int, label: str, score: float, length: int) -> Window:
    window = Window("v", known(), 1000)
    reads = [Read(length + i % 5, length, 0, 1) for i in range(count)]
    window.add(reads, [{"label": label, "score": score} for _ in range(count)])
    return window


def test_a_window_against_the_training_data() -> None:
    window = answered(50, "good", 0.6, 10)
    found = window.drift()
    tokens = [10 + i % 5 for i in range(50)]
    assert set(found) == {"length", "unknown", "confidence", "label"}
    assert found["length"]["ks"] == pytest.approx(stats.ks_2samp(known().lengths, tokens).statistic, abs=1e-12)
    assert found["confidence"]["ks"] == pytest.approx(stats.ks_2samp(known().scores, [0.6] * 50).statistic, abs=1e-6)
    assert found["unknown"]["ks"] == 1 and found["unknown"]["p"] < 1e-9
    assert found["label"]["psi"] > 0.25 and found["label"]["window"] == 50
    charts = window.charts()
    assert charts["label"] == {"names": ["good", "bad"], "training": [0.6, 0.4], "window": [1.0, 0.0]}
    assert sum(charts["length"]["window"]) == pytest.approx(1)


def test_too_few_texts_say_nothing() -> None:
    assert answered(19, "good", 0.6, 10).drift() == {}


def test_a_window_forgets() -> None:
    window = Window("v", known(), 20)
    for length in (5, 50):
        window.add([Read(length, length, 0, 0)] * 30, [{"label": ["good"], "score": None}] * 30)
    assert [n for n, _ in window.reads] == [50] * 20


def test_feedback_keeps_the_running_score(running: Any, offline: Bundle) -> None:
    texts = [f"{w} film" for w in ("good", "bad", "so", "very", "dull", "warm")]

    async def main() -> Any:
        async with running() as it:
            found = (await it.predict(texts)).json()
            truths = [{"id": p["id"], "label": p["label"] if i < 4 else "else"} for i, p in enumerate(found["predictions"])]
            first = (await it.client.post("/v1/feedback", json={"items": [*truths, {"id": "nobody", "label": "good"}]})).json()
            again = (
                await it.client.post("/v1/feedback", json={"items": [truths[4] | {"label": found["predictions"][4]["label"]}]})
            ).json()
            return first, again, (await it.client.get("/v1/feedback")).json()

    first, again, kept = asyncio.run(main())
    assert (first["taken"], first["unknown"]) == (6, ["nobody"])
    assert first["scores"]["reviews"] == {"truths": 6, "right": 4 / 6}
    assert again["scores"]["reviews"] == kept["scores"]["reviews"] == {"truths": 6, "right": 5 / 6}


def test_no_text_is_kept_or_logged(running: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the data base nor the log holds a word of what was asked."""
    logging.getLogger("trainformer.serve").propagate = True
    caplog.set_level(logging.INFO, "trainformer.serve")

    async def main() -> None:
        async with running() as it:
            await it.predict("xyzzy plugh film")

    asyncio.run(main())
    kept = b"".join(p.read_bytes() for p in (tmp_path / "state").glob("serve.sqlite*"))
    lines = [log.Lines().format(record) for record in caplog.records]
    assert b"xyzzy" not in kept and lines and not [line for line in lines if "xyzzy" in line]
    assert json.loads(lines[-1])["texts"] == 1
    with sqlite3.connect(tmp_path / "state" / "serve.sqlite") as base:
        assert base.execute("SELECT count(*) FROM predictions").fetchone() == (1,)
    base.close()


def test_texts_are_logged_masked_if_asked(running: Any, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("trainformer.serve").propagate = True
    caplog.set_level(logging.INFO, "trainformer.serve")

    async def main() -> None:
        async with running(log_texts=True) as it:
            await it.predict("film\nfor ann@example.org")

    asyncio.run(main())
    lines = [log.Lines().format(record) for record in caplog.records]
    assert json.loads(lines[-1])["shown"] == [["film\nfor [e-mail]"]]
    assert not [line for line in lines if "\n" in line]


def test_metrics_count(running: Any) -> None:
    async def main() -> str:
        async with running() as it:
            await it.predict(["a good film", "so bad"])
            await it.predict(3)
            return (await it.client.get("/metrics")).text  # type: ignore[no-any-return]

    text = asyncio.run(main())
    for line in ('trainformer_texts_total{model="reviews"} 2.0', 'trainformer_tokens_total{model="reviews"} 9.0',
                 'trainformer_requests_total{route="/v1/predict",status="200"} 1.0',
                 'trainformer_requests_total{route="/v1/predict",status="422"} 1.0',
                 'trainformer_model_ready{model="reviews"} 1.0',
                 'trainformer_queue_tokens{model="reviews"} 0.0',
                 'trainformer_worker_restarts{model="reviews"} 0.0'):  # fmt: skip
        assert line in text.splitlines(), text


def rule(**settings: Any) -> Rule:
    return Rule(**({"name": "r", "series": "x"} | settings))


def told(rule_: Rule, values: list[float]) -> list[int]:
    """The looks at which something was told."""
    found = Alerts([rule_])
    return [i for i, value in enumerate(values) if list(found.look({"x": value}))]


def test_a_threshold_is_told_when_it_begins_and_when_it_is_over() -> None:
    assert told(rule(above=1.0), [0.5, 1.5, 2, 0.9, 1.1]) == [1, 3, 4]
    assert told(rule(below=0.5), [0.6, 0.4, 0.4, 0.7]) == [1, 3]


def test_a_change_is_held_against_the_mean_of_before() -> None:
    """By half of the mean 10: 14 is not, 16 is, 4 is."""
    for value, expected in ((14, []), (16, [5]), (4, [5])):
        assert told(rule(kind="change", by=0.5), [10, 9, 11, 10, 10, value]) == expected
    assert told(rule(kind="change"), [10, 10, 10, 10, 100]) == [], "four looks are too few"


def test_a_surge_is_many_deviations() -> None:
    """Mean 10, deviation 1: four deviations are 14."""
    before = [9, 11, 9, 11, 9, 11]
    assert told(rule(kind="surge"), [*before, 13.9]) == []
    assert told(rule(kind="surge"), [*before, 14.1]) == [6]
    assert told(rule(kind="surge"), [*before, 0]) == []


def test_a_star_stands_for_any_model() -> None:
    found = Alerts([rule(series="*.length.psi", above=0.25)])
    messages = [m for _, m, _ in found.look({"a.length.psi": 0.3, "b.length.psi": 0.1, "c.label.psi": 9.0})]
    assert messages == ["a.length.psi: 0.3 is above 0.25"]


def test_a_file_a_webhook_and_a_mail_get_it(tmp_path: Path) -> None:
    """Real servers on loopback: HTTP, and SMTP as far as a mail needs it."""
    got: dict[str, str] = {}

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got["hook"] = self.rfile.read(int(self.headers["content-length"])).decode()
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words: Any) -> None: ...

    class Mail(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            data = ""
            for line in self.rfile:
                word = line[:4].upper()
                if data or word == b"DATA":
                    data += line.decode() if data else " "
                    done = line == b".\r\n"
                    if word == b"DATA" or done:
                        self.wfile.write(b"354 go on\r\n" if not done else b"250 ok\r\n")
                    if done:
                        got["mail"], data = data, ""
                else:
                    self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")

    with http.server.HTTPServer(("127.0.0.1", 0), Hook) as hook, socketserver.TCPServer(("127.0.0.1", 0), Mail) as mail:
        threads = [threading.Thread(target=server.handle_request) for server in (hook, mail)]
        for thread in threads:
            thread.start()
        to = [f"file:{tmp_path}/alerts.jsonl", f"http://127.0.0.1:{hook.server_address[1]}/x",
              f"smtp://127.0.0.1:{mail.server_address[1]}?from=a@example.org&to=b@example.org"]  # fmt: skip
        assert len(list(Alerts([rule(above=1.0, to=to)]).look({"x": 2.0}))) == 1
        for thread in threads:
            thread.join()
    assert (
        json.loads((tmp_path / "alerts.jsonl").read_text())["message"] == json.loads(got["hook"])["message"] == "x: 2 is above 1"
    )
    assert "Subject: trainformer: r" in got["mail"] and "x: 2 is above 1" in got["mail"]


def test_a_place_that_cannot_be_reached_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    to = ["http://127.0.0.1:1/x", "smtp://127.0.0.1:1?from=a&to=b", "file:/nowhere/at/all", f"file:{tmp_path}/a"]
    assert len(list(Alerts([rule(above=1.0, to=to)]).look({"x": 2.0}))) == 1
    assert (tmp_path / "a").read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: 1", "a list of rules"), ("- {name: a}", "series"), ("- {name: a, series: x}", "needs above or below"),
     ("- {name: a, series: x, above: 1, to: ['http://example.org']}", "not on this machine"),
     ("- {name: a, series: x, above: 1, to: [pager]}", "neither"), ("- [", "cannot be read"), ("- 3", "cannot be read"),
     ("- {name: a, series: x, above: 1, to: ['smtp://h']}", "needs .from=ADDRESS")],
)  # fmt: skip
def test_bad_rules(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        alerts.read(tmp_path / "rules.yaml")


def test_the_watch_fills_gauges_and_fires_alerts(running: Any) -> None:
    async def main() -> Any:
        async with running(watch_seconds=0.1) as it:
            it.service.watch.alerts = Alerts([rule(series="requests_per_second", above=0.001)])
            found = (await it.predict("a good film")).json()["predictions"][0]
            await it.client.post("/v1/feedback", json={"items": [{"id": found["id"], "label": found["label"]}]})
            await it.until(lambda: it.service.watch.scores.get("reviews", {}).get("truths") == 1)
            await it.until(it.service.store.alerts)
            while 'series="score.right"' not in (text := (await it.client.get("/metrics")).text):
                await asyncio.sleep(0.01)
            return text, (await it.client.get("/v1/feedback")).json()["alerts"]

    text, fired = asyncio.run(main())
    assert re.search(r'^trainformer_watch\{model="reviews",series="score.right"\} 1.0$', text, re.MULTILINE)
    assert [a["name"] for a in fired] == ["r"]


def test_settings_from_words() -> None:
    assert settled(["queue_tokens=100", "log_texts=true"]) == ServeSettings(queue_tokens=100, log_texts=True)
    for words, message in (
        (["queue_token=1"], "Did you mean 'queue_tokens'"),
        (["texts=0"], "greater than or equal to 1"),
        (["texts=true"], "not a number"),
    ):
        with pytest.raises(UserError, match=message):
            settled(words)


def test_every_setting_has_a_sentence() -> None:
    for kind in (ServeSettings, Rule):
        assert [n for n, f in kind.model_fields.items() if not (f.description or "").endswith(".")] == []
