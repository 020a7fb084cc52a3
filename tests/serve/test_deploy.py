"""The files of deploy/: parsed, and what they promise is in them."""

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from trainformer import __version__
from trainformer.cli import app
from trainformer.serve.gate import OPEN
from trainformer.serve.settings import ServeSettings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def served(words: list[str]) -> dict[str, Any]:
    """The words after `trainformer serve`, as the command line reads them."""
    verbs: Any = typer.main.get_command(app)
    return dict(verbs.commands["serve"].make_context("serve", words).params)


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def test_the_dockerfile() -> None:
    """Known instructions in order, files that exist, a user who is not root, words that the command line takes."""
    found = instructions()
    known = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in found} == known and found[0][0] == "FROM"
    assert ":latest" not in found[0][1] and ":" in found[0][1]
    by_name = dict(found)
    assert by_name["USER"] == "10001" and [n for n, _ in found].index("USER") > max(
        i for i, (n, _) in enumerate(found) if n == "RUN"
    )
    for name, words in found:
        if name == "COPY":
            assert all((DEPLOY.parent / each).exists() for each in words.split()[:-1]), words
    assert yaml.safe_load(by_name["ENTRYPOINT"]) == ["trainformer", "serve"]
    given = served(yaml.safe_load(by_name["CMD"]))
    assert (given["host"], str(given["keys"]), given["port"]) == ("0.0.0.0", "/run/keys", int(by_name["EXPOSE"]))
    code = yaml.safe_load(by_name["HEALTHCHECK"].partition("CMD ")[2])[2]
    compile(code, "healthcheck", "exec")
    assert "/health/ready" in code and by_name["STOPSIGNAL"] == "SIGTERM"


def test_the_unit(tmp_path: Path) -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "trainformer.service")
    service = dict(unit["Service"])
    program, verb, *words = shlex.split(service["ExecStart"])
    assert (Path(program).name, verb) == ("trainformer", "serve")
    given = served(words)
    assert given["host"] == "127.0.0.1" and str(given["state"]) == f"/var/lib/{service['StateDirectory']}"
    assert service["DynamicUser"] == service["NoNewPrivileges"] == "yes" and service["ProtectSystem"] == "strict"
    assert int(service["TimeoutStopSec"]) > ServeSettings().leave_seconds + ServeSettings().drain_seconds
    assert service["KillMode"] == "mixed" and "User" not in service and unit["Install"]["WantedBy"] == "multi-user.target"
    if shutil.which("systemd-analyze"):
        text = (DEPLOY / "trainformer.service").read_text().replace(program, "/bin/true")
        (tmp_path / "trainformer.service").write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", str(tmp_path / "trainformer.service")], capture_output=True, text=True
        )
        assert "trainformer.service" not in done.stderr, done.stderr


def test_the_kubernetes_manifest() -> None:
    listed = {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}
    assert set(listed) == {"Deployment", "Service", "PodDisruptionBudget"}
    spec = listed["Deployment"]["spec"]
    pod, [box] = spec["template"]["spec"], spec["template"]["spec"]["containers"]
    label = spec["template"]["metadata"]["labels"]
    assert label == spec["selector"]["matchLabels"] == listed["Service"]["spec"]["selector"]
    assert label == listed["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 10001
    assert box["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert box["image"] == f"trainformer:{__version__}"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert box[probe]["httpGet"]["path"] in OPEN and box[probe]["httpGet"]["port"] == box["ports"][0]["name"]
    assert box["livenessProbe"]["httpGet"]["path"] == "/health/live", "a full queue is no reason to kill"
    assert set(box["resources"]) == {"requests", "limits"} and all(set(r) == {"cpu", "memory"} for r in box["resources"].values())
    given = served(box["args"])
    assert given["host"] == "0.0.0.0" and given["port"] == box["ports"][0]["containerPort"]
    mounts = {m["name"]: m for m in box["volumeMounts"]}
    assert set(mounts) == {v["name"] for v in pod["volumes"]}
    assert str(given["keys"]).startswith(mounts["keys"]["mountPath"]) and str(given["state"]) == mounts["state"]["mountPath"]
    leave = float(dict(word.split("=") for word in given["sets"])["leave_seconds"])
    assert pod["terminationGracePeriodSeconds"] > leave + ServeSettings().drain_seconds
    assert listed["Service"]["spec"]["ports"][0]["targetPort"] == box["ports"][0]["name"]


def test_the_nginx_configuration(tmp_path: Path) -> None:
    """Braces are balanced, lines end as they must, the limits are those of the service; nginx agrees where it is there."""
    lines = [line.split("#")[0].strip() for line in (DEPLOY / "nginx.conf").read_text().splitlines()]
    assert all(line.endswith((";", "{", "}")) for line in lines if line)
    text = "\n".join(lines)
    assert text.count("{") == text.count("}") > 4
    assert "client_max_body_size 1m;" in text and ServeSettings().body_bytes <= 1024**2
    assert re.search(r"location = /v1/predict:stream \{[^}]*proxy_request_buffering off;[^}]*proxy_buffering off;", text)
    assert float(re.search(r"proxy_read_timeout (\d+)s", text)[1]) > ServeSettings().deadline_seconds  # type: ignore[index]
    if shutil.which("nginx"):
        plain = re.sub(r"ssl_certificate.*;|listen 443 ssl;", "", text) + "\n"
        (tmp_path / "nginx.conf").write_text(f"events {{}}\npid {tmp_path}/pid;\nhttp {{\naccess_log off;\n{plain}}}\n")
        done = subprocess.run(
            ["nginx", "-t", "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "log")], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["Dockerfile", "trainformer.service", "kubernetes.yaml", "nginx.conf"])
def test_the_page_names_it(name: str) -> None:
    assert f"../deploy/{name}" in (DEPLOY.parent / "docs" / "serving.md").read_text()
