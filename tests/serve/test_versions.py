"""Reload, rollback, shadow: the folder changes, and no request is lost or answered by something half new."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from trainformer.bundle import Bundle
from trainformer.core.errors import UserError
from trainformer.core.files import check_manifest
from trainformer.serve.copies import adopt
from trainformer.serve.models import Models
from trainformer.serve.process import Lost
from trainformer.serve.versions import opened

TEXT = "a good film"


def score(folder: Path) -> float:
    return float(Bundle.open(folder).predict(TEXT)[0]["scores"]["good"])


def replace(folder: Path, by: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(by, folder)


async def said(it: Any) -> tuple[str, float]:
    body = (await it.predict(TEXT)).json()
    return body["version"], body["predictions"][0]["scores"]["good"]


def test_reload_and_rollback(running: Any, folder: Path, bundle: Path, other: Path) -> None:
    """The new folder answers after reload, the old one after rollback, though its files are gone; and once more it is the new."""

    async def main() -> list[Any]:
        async with running({"reviews": folder}) as it:
            steps: list[Any] = [await said(it)]
            replace(folder, other)
            steps.append(await said(it))
            for verb in ("reload", "reload", "rollback", "rollback"):
                response = await it.client.post(f"/v1/models/reviews:{verb}", json={})
                steps.append((response.status_code, response.json()["changed"], *(await said(it))))
            return steps

    first, before, reloaded, unchanged, back, forth = asyncio.run(main())
    one, two = score(bundle), score(other)
    assert abs(one - two) > 1e-3
    assert first[1] == pytest.approx(one, abs=1e-5) and before == first, "nothing changes by itself"
    assert reloaded == (200, True, unchanged[2], pytest.approx(two, abs=1e-5)) and reloaded[2] != first[0]
    assert unchanged[1] is False
    assert back == (200, True, *first)
    assert forth[2:] == reloaded[2:]


def test_no_request_is_lost_while_versions_change(running: Any, folder: Path, bundle: Path, other: Path) -> None:
    """Requests all the time through a reload and a rollback: all 200, each score that of the version it names."""

    async def main() -> list[Any]:
        async with running({"reviews": folder}, batch_tokens=20) as it:
            found: list[Any] = []
            going = True

            async def ask() -> None:
                while going:
                    response = await it.predict(TEXT)
                    body = response.json()
                    found.append((response.status_code, body["version"], body["predictions"][0]["scores"]["good"]))

            async def more(count: int) -> None:
                wanted = len(found) + count
                await it.until(lambda: len(found) >= wanted)

            asking = [asyncio.create_task(ask()) for _ in range(8)]
            await more(8)
            replace(folder, other)
            for verb in ("reload", "rollback", "rollback"):
                assert (await it.client.post(f"/v1/models/reviews:{verb}", json={})).status_code == 200
                await more(16)  # eight may be of the version before
            going = False
            await asyncio.gather(*asking)
            return found

    found = asyncio.run(main())
    scores: dict[str, set[float]] = {}
    for status, version, value in found:
        assert status == 200
        scores.setdefault(version, set()).add(round(value, 4))
    assert len(scores) == 2 and all(len(values) == 1 for values in scores.values())
    assert {next(iter(v)) for v in scores.values()} == {round(score(bundle), 4), round(score(other), 4)}


@pytest.mark.parametrize("harm", ["byte", "gone", "pickle", "link", "format"])
def test_a_bad_folder_is_not_loaded_and_the_present_version_goes_on(harm: str, running: Any, folder: Path, other: Path) -> None:
    async def main() -> Any:
        async with running({"reviews": folder}) as it:
            before = await said(it)
            replace(folder, other)
            weights = folder / "model.safetensors"
            if harm == "byte":
                weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
            elif harm == "gone":
                shutil.rmtree(folder)
            elif harm == "pickle":
                (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
            elif harm == "link":
                weights.rename(folder.parent / "elsewhere")
                weights.symlink_to(folder.parent / "elsewhere")
            else:
                (folder / "manifest.json").write_text(json.dumps({}, indent=1) + "\n")
            response = await it.client.post("/v1/models/reviews:reload", json={})
            return response, before, await said(it)

    response, before, after = asyncio.run(main())
    assert (response.status_code, response.json()["error"]["code"], after) == (409, "not_loaded", before)


def test_there_is_no_version_before_the_first(running: Any) -> None:
    async def main() -> Any:
        async with running() as it:
            return [
                await it.client.post(f"/v1/models/{name}:rollback", json={}) for name in ("reviews", "else", "..", "%2e%2e%2f")
            ]

    found = asyncio.run(main())
    assert [r.status_code for r in found] == [409, 404, 404, 404]
    assert found[0].json()["error"]["code"] == "no_previous"


def test_a_shadow_is_compared_and_not_returned(running: Any, bundle: Path, other: Path) -> None:
    """Of 60 texts as many are equal as offline, and the difference of scores is that of offline."""
    texts = [
        f"{a} {b} film {c}"
        for a in ("good", "bad", "so", "very")
        for b in ("dull", "warm", "a")
        for c in ("it", "end", "so", "one", "two")
    ]

    async def main() -> Any:
        async with running({"reviews": bundle}, {"reviews": other}) as it:
            found = (await it.predict(texts)).json()
            while it.service.models._aside:
                await asyncio.sleep(0.01)
            listed = (await it.client.get("/v1/models")).json()["models"][0]
            return found, listed["shadow"]

    found, shadow = asyncio.run(main())
    ours, theirs = Bundle.open(bundle).predict(texts), Bundle.open(other).predict(texts)
    assert [p["label"] for p in found["predictions"]] == [a["label"] for a in ours]
    equal = sum(a["label"] == b["label"] for a, b in zip(ours, theirs, strict=True))
    gaps = [max(abs(a["scores"][n] - b["scores"][n]) for n in a["scores"]) for a, b in zip(ours, theirs, strict=True)]
    assert 0 < equal < 60
    assert (shadow["answers"], shadow["dropped"], shadow["agreement"]) == (60, 0, equal / 60)
    assert shadow["mean_difference"] == pytest.approx(sum(gaps) / 60, abs=1e-5)


def test_a_shadow_that_cannot_follow_holds_nobody_up(running: Any, bundle: Path, other: Path) -> None:
    async def main() -> Any:
        async with running({"reviews": bundle}, {"reviews": other}, queue_requests=3) as it:
            shadow: Any = it.service.models.find(None).shadow
            shadow.lane.worker.seconds = 0.2
            found = [(await it.predict(TEXT)).status_code for _ in range(10)]
            while it.service.models._aside:
                await asyncio.sleep(0.01)
            return found, it.service.models.find(None).compared

    found, compared = asyncio.run(main())
    assert found == [200] * 10
    assert compared.dropped > 0 and compared.answers + compared.dropped == 10


def test_a_copy_stays_when_the_folder_goes(folder: Path, tmp_path: Path) -> None:
    id_, kept = adopt(folder, tmp_path / "state")
    assert len(id_) == 12 and adopt(folder, tmp_path / "state") == (id_, kept)
    with open(folder / "config.json", "r+b") as file:
        file.write(b"no bundle any more")
    check_manifest(kept)
    shutil.rmtree(folder)
    assert Bundle.open(kept).predict(TEXT)[0]["label"] in ("bad", "good", "so-so")
    with pytest.raises(UserError, match="no such folder"):
        adopt(folder, tmp_path / "state")


def test_a_folder_that_is_replaced_while_it_is_copied(folder: Path, other: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Id and copy are of one bundle: of the one that was copied."""
    real = shutil.copytree

    def copytree(source: Path, target: Path, **how: Any) -> None:
        shutil.rmtree(source)
        real(other, source)
        real(source, target, **how)

    monkeypatch.setattr("trainformer.serve.copies.shutil.copytree", copytree)
    id_, kept = adopt(folder, tmp_path / "state")
    monkeypatch.undo()
    assert (id_, kept) == adopt(other, tmp_path / "state")
    assert [p.name for p in (tmp_path / "state" / "versions").iterdir()] == [id_]


def test_a_reload_that_fails_leaves_the_copy_that_another_starts_from(
    running: Any, folder: Path, other: Path, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two names are given the same new bundle at once, and one of the two processes does not start."""
    second = make()
    swap = Models._swap

    async def failing(self: Models, served: Any, *new: Any) -> None:
        if served.name == "broken":
            await asyncio.sleep(0.2)
            raise Lost("it does not start")
        await asyncio.sleep(0.5)
        await swap(self, served, *new)

    monkeypatch.setattr(Models, "_swap", failing)

    async def main() -> Any:
        async with running({"reviews": folder, "broken": second}) as it:
            for old in (folder, second):
                replace(old, other)
            asked = [it.client.post(f"/v1/models/{name}:reload", json={}) for name in ("reviews", "broken")]
            found = await asyncio.gather(*asked)
            current = it.service.models.find("reviews").current
            check_manifest(current.folder)
            return [response.status_code for response in found], (await said(it))[0] == current.id

    assert asyncio.run(main()) == ([200, 409], True)


def test_copies_that_nothing_can_come_back_to_are_removed(running: Any, folder: Path, other: Path, make: Any) -> None:
    """After two reloads the present version and the one before are kept, and rollback still finds it."""
    third = make()

    async def main() -> Any:
        async with running({"reviews": folder}) as it:
            for new in (other, third):
                replace(folder, new)
                assert (await it.client.post("/v1/models/reviews:reload", json={})).status_code == 200
            kept = {p.name for p in (it.service.models.state / "versions").iterdir()}
            told = (await it.client.get("/v1/models")).json()["models"][0]
            back = await it.client.post("/v1/models/reviews:rollback", json={})
            return kept, {told["version"], told["previous"]}, back.status_code

    kept, expected, back = asyncio.run(main())
    assert kept == expected and len(kept) == 2 and back == 200


def test_a_bundle_that_writes_texts_is_not_served(folder: Path) -> None:
    """What it writes would stand in the store of answers, which holds no texts."""
    facts = json.loads((folder / "trainformer.json").read_text())
    facts["task"] = {"name": "causal_lm"}
    lane: Any = None
    (folder / "trainformer.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="its task is causal_lm, and the service answers with labels and numbers"):
        opened("a", folder, lane)
