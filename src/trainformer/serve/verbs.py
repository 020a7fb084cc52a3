"""The verbs of the command line around a service. What a verb needs is imported inside it, so that --help answers at once."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

KEY = "TRAINFORMER_KEY"
Url = Annotated[str, typer.Option(help=f"where the service is; its key is read from ${KEY}")]
Model = Annotated[str, typer.Argument(help="name of the model", metavar="NAME")]


def serve(
    bundles: Annotated[
        list[str], typer.Argument(help="folders of bundles; the first answers by default", metavar="[NAME=]BUNDLE...")
    ],
    host: Annotated[str, typer.Option(help="address; any but loopback needs --keys")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8000,
    keys: Annotated[Path | None, typer.Option(help="file of keys, made by `trainformer key`; or $TRAINFORMER_KEYS")] = None,
    shadow: Annotated[list[str] | None, typer.Option(help="NAME=BUNDLE that is asked too, compared, and not returned")] = None,
    alerts: Annotated[Path | None, typer.Option(help="YAML list of alert rules")] = None,
    state: Annotated[Path | None, typer.Option(help="folder for versions and answers; none: ~/.local/state/trainformer")] = None,
    store: Annotated[str | None, typer.Option(help="postgresql:// URL instead of SQLite; or $TRAINFORMER_STORE")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE, see docs/serving.md")] = None,
) -> None:
    """Answer over HTTP: the page at /, the API at /v1/predict."""
    from trainformer.serve import alerts as rules
    from trainformer.serve import auth, serving
    from trainformer.serve.settings import settled

    known, settings = auth.read(keys), settled(sets)
    serving.require_safe(host, known)
    home = os.environ.get("XDG_STATE_HOME", "~/.local/state")
    folder = state or Path(f"{home}/trainformer/{port}").expanduser()
    found, beside = serving.named(bundles), serving.named(shadow or [])
    url = store or os.environ.get("TRAINFORMER_STORE")
    serving.run(serving.Plan(found, beside, host, port, folder, known, rules.read(alerts), url, settings))


def key(
    name: Annotated[str, typer.Argument(help="who will use it: letters, digits, . _ -")],
    keys: Annotated[Path, typer.Option(help="file of keys; it is made if it is not there")],
    per_minute: Annotated[
        int | None, typer.Option(min=1, help="most requests a minute; none: as many as there is room for")
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="it may reload models and roll them back")] = False,
) -> None:
    """Make a key: its hash goes into the file, the key itself is printed once."""
    from trainformer.serve import auth

    print(auth.add(keys, name, per_minute, admin))


def reload(name: Model, url: Url = "http://127.0.0.1:8000") -> None:
    """Have a running service read a model's folder anew, without losing a request."""
    print(json.dumps(_post(f"{url}/v1/models/{name}:reload")))


def rollback(name: Model, url: Url = "http://127.0.0.1:8000") -> None:
    """Have a running service answer with the version before."""
    print(json.dumps(_post(f"{url}/v1/models/{name}:rollback")))


def _post(url: str) -> object:
    """The service's answer. Raises UserError with its words."""
    import urllib.error
    import urllib.request

    from trainformer.core.errors import UserError

    headers = {"content-type": "application/json"}
    if os.environ.get(KEY):
        headers["authorization"] = f"Bearer {os.environ[KEY]}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, b"", headers, method="POST"), timeout=300) as found:
            return json.load(found)
    except urllib.error.HTTPError as error:
        with error:
            told = json.load(error)["error"]["message"]
        raise UserError(told, where=url) from error
    except (urllib.error.URLError, ValueError) as error:
        raise UserError(f"no service answers: {getattr(error, 'reason', error)}", where=url) from error
