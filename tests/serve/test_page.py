"""The page in a real browser: it answers, it is reachable by keyboard, it speaks two languages, and no text of others runs."""

import html
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PAGE = Path(__file__).resolve().parents[2] / "src" / "trainformer" / "serve" / "page.html"
FRAMES = ["{}", '"{}', "'{}", '">{}', "</textarea>{}", "</script>{}", "</title>{}", "-->{}", "]]>{}", "`${{{}}}`"]
RUNS = ["<script>window.hurt=1</script>", "<img src=x onerror=window.hurt=1>", "<svg onload=window.hurt=1>",
        "<iframe srcdoc='<script>parent.hurt=1</script>'>",
        "<a href=javascript:window.hurt=1 autofocus onfocus=window.hurt=1>x</a>"]  # fmt: skip
PAYLOADS = [frame.format(run) for frame in FRAMES for run in RUNS]


def browser_path() -> str | None:
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


needs_browser = pytest.mark.skipif(browser_path() is None, reason="no Chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with api.sync_playwright() as it:
        made = it.chromium.launch(executable_path=browser_path(), args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


@pytest.fixture
def opened(browser: Any, start: Callable[..., Any]) -> Callable[..., Any]:
    """`opened(bundle)`: the page of a service of a bundle, in a process of its own."""

    def open_(folder: Path) -> Any:
        service = start(f"reviews={folder}", "--set", "threads=1")
        page = browser.new_context(locale="en-US", accept_downloads=True).new_page()
        page.set_default_timeout(600_000)
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(f"http://127.0.0.1:{service.port}/")
        page.wait_for_selector("body[data-ready=yes]")
        return page

    return open_


def test_there_are_fifty_payloads() -> None:
    assert len(set(PAYLOADS)) == 50


def test_the_page_is_one_file_without_a_sink() -> None:
    """No address from outside, nothing that makes markup of text, both languages with the same words."""
    text = PAGE.read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|\bsrc=|@import|url\(", text)
    assert set(re.findall(r"https?://[^\"'\s)]+", text)) == {"http://www.w3.org/2000/svg"}
    words = text[text.index("const WORDS") : text.index("const LINES")]
    names = [set(re.findall(r"(?:^|[{,])\s*([a-z0-9_]+): \"", part)) for part in words.split("zh: {")]
    assert names[0] == names[1] and len(names[0]) > 40
    assert set(re.findall(r'data-t="(\w+)"', text)) | set(re.findall(r'word\("(\w+)"\)', text)) <= names[0]


def test_the_policy_lets_its_one_script_run(running: Any) -> None:
    import asyncio
    import base64
    import hashlib

    async def main() -> Any:
        async with running() as it:
            return await it.client.get("/")

    response = asyncio.run(main())
    script = re.search(r"<script>(.*?)</script>", response.text, re.DOTALL)
    policy = response.headers["content-security-policy"]
    assert script is not None and base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy and "'unsafe-inline'; connect-src 'self'" in policy


@needs_browser
def test_a_text_is_answered_by_keyboard_alone(opened: Callable[..., Any], trained: Path) -> None:
    """Tab to the text, write, Ctrl+Enter; the answer stands in a live region. Then Chinese, and the answers of a file."""
    from trainformer.bundle import Bundle

    page = opened(trained / "bundle")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "text":
            break
    page.keyboard.type("a good and warm film")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#answer .answer")
    expected = Bundle.open(trained / "bundle").predict("a good and warm film")[0]
    assert page.inner_text("#answer .answer") == expected["label"]
    assert f"{expected['score']:.4f}" in page.inner_text("#answer table")
    assert page.locator("#answer mark").count() == 0
    page.check("#explain")
    page.click("#ask")
    page.wait_for_selector("#answer mark")
    assert page.locator("#answer mark").all_inner_texts() == ["a", "good", "and", "warm", "film"]
    assert page.inner_text("#answer .words") == "a good and warm film"
    assert page.get_attribute("#answer", "aria-live") == "polite" and page.get_attribute("html", "lang") == "en"
    unnamed = page.evaluate("""[...document.querySelectorAll("button, textarea, select, input, progress, meter")]
        .filter((n) => !n.textContent.trim() && !n.labels?.length && !n.getAttribute("aria-label")).map((n) => n.id)""")
    assert unnamed == []
    assert page.inner_text("#card").startswith("---") or "#" in page.inner_text("#card")
    page.click("#language")
    assert page.inner_text("#ask") == "回答" and page.get_attribute("html", "lang") == "zh-Hans"
    lines = [json.dumps({"text": f"a {'good' if i % 2 else 'bad'} film"}) for i in range(250)] + ["{"]
    page.set_input_files("#file", {"name": "new.jsonl", "mimeType": "application/x-ndjson", "buffer": "\n".join(lines).encode()})
    page.click("#send")
    page.wait_for_selector("#download:not([hidden])")
    with page.expect_download() as download:
        page.click("#download")
    answers = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    assert [a["line"] for a in answers] == list(range(1, 252)) and "error" in answers[-1]
    assert [a["prediction"]["label"] for a in answers[:2]] == [
        a["label"] for a in Bundle.open(trained / "bundle").predict(["a bad film", "a good film"])
    ]
    assert page.evaluate("document.getElementById('progress').value") == 1
    page.click("#again")
    page.wait_for_selector("#drift svg")
    assert "训练" in page.get_attribute("#drift svg", "aria-label")
    assert page.said == [] and {url.split("/")[2].split(":")[0] for url in page.asked if not url.startswith("blob:")} == {
        "127.0.0.1"
    }


@pytest.mark.slow
@needs_browser
def test_fifty_payloads_are_inert(opened: Callable[..., Any], make: Callable[..., Path]) -> None:
    """In labels, in the card, and as texts: none runs, and each is shown as it is written."""
    folder = make(labels=PAYLOADS, max_tokens=64, pages={"README.md": "\n".join(PAYLOADS)})
    page = opened(folder)
    for payload in PAYLOADS[::10]:
        page.fill("#text", payload)
        page.check("#truncate")
        page.check("#explain")
        page.click("#ask")
        page.wait_for_selector("#answer table tr:nth-child(51)")
        assert page.evaluate("document.querySelector('#answer .words').textContent") == payload
    shown = page.evaluate("[...document.querySelectorAll('#answer table:first-of-type th[scope=row]')].map((n) => n.textContent)")
    assert sorted(shown) == sorted(PAYLOADS)
    assert page.evaluate("document.getElementById('card').textContent") == "\n".join(PAYLOADS)
    page.wait_for_timeout(300)
    assert page.evaluate("window.hurt") is None
    assert page.evaluate("document.querySelectorAll('main script, main img, main iframe, main svg').length") == 0
    assert not [u for u in page.asked if u.endswith("/x")] and page.said == []


def test_fifty_payloads_are_inert_in_the_report(tiny_model: Path, tmp_path: Path) -> None:
    """A run whose labels are payloads: the report has none of them as markup."""
    from trainformer import train

    rows = [{"text": f"{'good' if i % 2 else 'bad'} film {PAYLOADS[i % 50]}", "label": PAYLOADS[i % 2]} for i in range(80)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"data.cache": str(tmp_path / "cache"), "train.epochs": 1, "train.precision": "float32"}
    folder = train(tmp_path / "rows.jsonl", out=tmp_path / "run", model=str(tiny_model), set=settings).folder
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert not [run for run in RUNS if run in page]
    assert html.escape(RUNS[0], quote=False) in page or "&lt;script&gt;" in page
