"""The methods that the registry finds, those that `trainformer list methods` shows and those of docs/methods.md are the same;
what the page says was measured is what the lines of the benchmark say."""

import json
import re
import runpy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from trainformer.core import registry
from trainformer.core.config import override, parse
from trainformer.core.roles import Method

ROOT = Path(__file__).resolve().parents[2]
EVERY: dict[str, Any] = dict(registry.classes(Method))  # type: ignore[type-abstract]


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """The sections of docs/methods.md by their titles."""
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    _, *parts = re.split(r"^## (\w+)\n", page, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """The functions of benchmarks/methods_table.py."""
    return runpy.run_path(str(ROOT / "benchmarks" / "methods_table.py"))


def test_registry_list_and_page_have_the_same_methods(cli: Any, sections: dict[str, str]) -> None:
    listed = [line.split()[0] for line in cli("list", "methods").out.splitlines() if not line.startswith(" ")]
    assert listed == list(EVERY) == [title for title in sections if title != "Measured"]
    assert listed == sorted(p.stem for p in (ROOT / "src/trainformer/methods").glob("*.py") if p.stem != "__init__")


def test_registry_list_and_page_have_the_same_settings(cli: Any, sections: dict[str, str]) -> None:
    shown: dict[str, list[str]] = {}
    name = ""
    for line in cli("list", "methods").out.splitlines():
        if line.startswith(" "):
            shown[name].append(line.split()[0])
        else:
            name = line.split()[0]
            shown[name] = []
    assert shown == {name: list(found.model_fields) for name, found in EVERY.items()}
    for name, settings in shown.items():
        line = next(line for line in sections[name].splitlines() if line.startswith("- **Settings**"))
        assert re.findall(r"`(\w+)`", line) == settings


def test_the_page_names_every_clash_from_both_sides(sections: dict[str, str]) -> None:
    for name, found in EVERY.items():
        for other in found.clashes:
            for one, refused in ((name, other), (other, name)):
                line = next(line for line in sections[one].splitlines() if line.startswith("- **Refuses**"))
                assert f"`{refused}` (" in line, f"{one} and {refused}"


@pytest.mark.parametrize("name", EVERY)
def test_its_command_names_it(name: str, sections: dict[str, str]) -> None:
    [command] = re.findall(r"^trainformer train .*", sections[name], re.MULTILINE)
    named = re.findall(r"--method (\w+)", command)
    assert name in named
    parse(override({"method": named}, re.findall(r"--set (\S+)", command)))


# What was measured


def test_every_way_of_the_benchmark_is_a_valid_configuration(told: dict[str, Any]) -> None:
    for words in told["WAYS"].values():
        methods = [b for a, b in pairwise(words) if a == "--method"]
        settings = [b for a, b in pairwise(words) if a == "--set"]
        assert len(words) == 2 * (len(methods) + len(settings))
        parse(override({"method": methods} if methods else {}, settings))
    targets = {name for t in told["TARGETS"] for name in (t.way, t.than)} | {name for pair in told["HELP"] for name in pair}
    assert targets <= set(told["WAYS"])


def run(score: float, trained: int = 10, seconds: float = 2.0, others: float = 0.0) -> dict[str, Any]:
    return dict(score=score, trained=trained, parameters=1000, seconds=seconds, steps=100, peak_mib=512.0,
                shipped_bytes=2_500_000, others=others, validation=score, wall=1.0)  # fmt: skip


def found(**ways: list[dict[str, Any]]) -> dict[tuple[str, str, int], dict[str, Any]]:
    return {("few", way, seed): result for way, results in ways.items() for seed, result in enumerate(results)}


LORA = ("lora", "full", 0.5, 0.03)


@pytest.mark.parametrize(
    ("target", "ways", "verdict"),
    [
        (LORA, {}, "not measured yet"),
        (LORA, {"lora": [run(0.8)]}, "not measured yet"),
        (LORA, {"lora": [run(0.795)], "full": [run(0.8)]}, "**met**: 0.5 points below, 1.00% trained (1 of 3 seeds)"),
        (LORA, {"lora": [run(0.794)], "full": [run(0.8)]}, "**missed**: 0.6 points below, 1.00% trained (1 of 3 seeds)"),
        (LORA, {"lora": [run(0.9, 31)], "full": [run(0.8)]}, "**missed**: 10.0 points above, 3.10% trained (1 of 3 seeds)"),
        # Seeds that only one of the two has are left out: (80 - 79 + 70 - 71) / 2 = 0.
        (LORA, {"lora": [run(0.79), run(0.71), run(0.1)], "full": [run(0.8), run(0.7)]},
         "**met**: 0.0 points above, 1.00% trained (2 of 3 seeds)"),
        (("freeze", "full", 1.0, 1.0, 1.6), {"freeze": [run(0.8, seconds=1.0)], "full": [run(0.8, seconds=1.7)]},
         "**met**: 0.0 points above, 1.70 times as fast (1 of 3 seeds)"),
        (("freeze", "full", 1.0, 1.0, 1.6), {"freeze": [run(0.8, seconds=1.0)], "full": [run(0.8, seconds=1.5)]},
         "**missed**: 0.0 points above, 1.50 times as fast (1 of 3 seeds)"),
        (("freeze", "full", 1.0, 1.0, 1.6), {"freeze": [run(0.8, others=0.5)], "full": [run(0.8)]},
         "0.0 points above; times not measured yet (others used the machine)"),
    ],
)  # fmt: skip
def test_a_target_is_met_or_missed_by_the_numbers(target: Any, ways: Any, verdict: str, told: dict[str, Any]) -> None:
    assert told["verdict"](told["Target"](*target), found(**ways), "few") == verdict


def test_a_method_helps_where_the_difference_is_more_than_its_noise(told: dict[str, Any]) -> None:
    """Differences of 1, 2 and 3 points: mean 2, deviation 1, twice the standard error 2 / sqrt(3) = 1.15."""
    ways = {"swa": [run(0.81), run(0.82), run(0.83)], "no_ema": [run(0.8)] * 3}
    help_ = "**helps**: +2.0, twice the standard error 1.2 (3 of 3 seeds)"
    assert told["helps"](found(**ways), "few", "swa", "no_ema") == help_
    assert told["helps"](found(**ways), "few", "no_ema", "swa").startswith("**hurts**: -2.0")
    ways["swa"] = [run(0.79), run(0.82), run(0.80)]  # -1, 2, 0: mean 0.3, twice the standard error 1.8
    assert told["helps"](found(**ways), "few", "swa", "no_ema").startswith("**no difference beyond the noise**: +0.3")
    assert told["helps"](found(swa=[run(0.9)], no_ema=[run(0.8)]), "few", "swa", "no_ema") == "+10.0, one seed: too few to tell"


def test_lines_become_cells_and_what_is_missing_is_said(told: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "methods.jsonl"
    facts = dict(code="abc", processor="A chip", cores=2, threads=1, torch="2")
    records = [dict(key=key, facts=facts, result=r) for key, r in found(lora=[run(0.8, others=0.5)], full=[run(0.81)]).items()]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    page = told["page"](path)
    assert "| `lora` | **80.0** (80.0, 1 of 3 seeds) | 1.00% | disturbed | 100 | 512 | 2.50 |" in page
    assert "| `full` | **81.0** (81.0, 1 of 3 seeds) | 1.00% | 20 | 100 | 512 | 2.50 |" in page
    assert "| `prefix` | not measured yet | - | - | - | - | - |" in page
    assert "A chip, 2 cores, 1 threads, torch 2; runs of one version of the code (abc)." in page
    line = told["measured"](told["read"](path)[0], "lora")
    assert line == "accuracy x 100 on test `few` 80.0 (`full` 81.0); 1.00% trained, 2.50 MB shipped"
    assert told["measured"](told["read"](path)[0], "vat") == "not measured yet"


def test_an_interrupted_benchmark_has_done_the_most_telling_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way with seed 0 where rows are few, its other seeds, then seed after seed of the larger settings."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    order = runpy.run_path(str(ROOT / "benchmarks" / "methods.py"))["order"]
    few = [("few", way, seed) for seed in (0, 1) for way in ("full", "lora")]
    large = [(s, way, seed) for seed in (0, 1) for s in ("zh_topic_thucnews", "en_sentiment") for way in ("full", "lora")]
    assert order(["few", "zh_topic_thucnews", "en_sentiment"], ["full", "lora"], 2) == few + large
