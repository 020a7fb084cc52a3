"""Writes docs/page.png, the service's web page in headless Chromium: python docs/make_page.py RUN/bundle

It needs `playwright` from the extra `dev` and a Chromium (`apt-get install chromium`).
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OUT = Path(__file__).resolve().with_name("page.png")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TEXT = "The first half is dull and far too long, but the last ten minutes are warm, funny and beautifully acted."
START_SECONDS = 120


@contextmanager
def served(bundle: Path, port: int) -> Iterator[str]:
    """The address of a service of a bundle that is ready."""
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as state:
        words = [sys.executable, "-m", "trainformer", "serve", f"reviews={bundle}", "--port", str(port), "--state", state]
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        try:
            wait(f"{address}/health/ready", process)
            yield address
        finally:
            process.terminate()
            process.wait()


def wait(address: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(address).close()
            return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise SystemExit("the service did not start: see `trainformer serve` with the same bundle")


def picture(address: str, browser: str, text: str, out: Path) -> None:
    """The top of the page after a text was answered and explained."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as it:
        made = it.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = made.new_page(viewport={"width": 800, "height": 860}, locale="en-US", color_scheme="light")
        page.goto(address)
        page.wait_for_selector("body[data-ready=yes]")
        page.fill("#text", text)
        page.check("#explain")
        page.click("#ask")
        page.wait_for_selector("#answer mark")
        page.screenshot(path=out)
        made.close()


def main() -> None:
    asked = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    asked.add_argument("bundle", type=Path)
    asked.add_argument("--text", default=TEXT)
    asked.add_argument("--port", type=int, default=8765)
    asked.add_argument("--out", type=Path, default=OUT)
    given = asked.parse_args()
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"no Chromium here, looked for {', '.join(BROWSERS)}: apt-get install chromium")
    with served(given.bundle, given.port) as address:
        picture(address, browser, given.text, given.out)


if __name__ == "__main__":
    main()
