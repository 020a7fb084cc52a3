"""Who may import whom: the contracts of pyproject.toml hold, and they are those of docs/architecture.md."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any


def test_every_contract_is_kept(root: Path) -> None:
    lint = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True, no_logo=True))",
    ]
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    done = subprocess.run(lint, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contract_is_the_page(root: Path, project: dict[str, Any]) -> None:
    page = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = re.search(r"## Who may import whom.*?```\n(.*?)```", page, re.DOTALL)
    assert drawn, "docs/architecture.md no longer draws the layers"
    layers = next(c for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    assert layers["exhaustive"]
    assert [re.sub("[()]", "", line) for line in layers["layers"]] == drawn[1].strip().splitlines()
