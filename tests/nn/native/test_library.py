"""The library: one set of threads, compiled once, and a reason where there is none."""

from pathlib import Path

import pytest
import torch

from trainformer.core.config import TrainSettings, parse
from trainformer.core.errors import UserError
from trainformer.engine.precision import kernels
from trainformer.nn.native import library


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and a library that is not yet loaded."""
    monkeypatch.setenv("TRAINFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "load", library.load.__wrapped__)
    return tmp_path / "cache" / "native"


def test_it_is_compiled_once(anew: Path) -> None:
    library.load()
    (path,) = anew.iterdir()
    written = path.stat().st_mtime_ns
    library.load()
    assert [p.name for p in anew.iterdir()] == [path.name] and path.stat().st_mtime_ns == written


def test_another_source_is_another_library(anew: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library.load()
    other = tmp_path / "kernels.c"
    other.write_text(library.SOURCE.read_text() + "/* changed */\n")
    monkeypatch.setattr(library, "SOURCE", other)
    library.load()
    assert len(list(anew.iterdir())) == 2


def test_there_is_one_set_of_threads() -> None:
    library.load()
    maps = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libgomp" in line}
    assert library._threads_of_torch() in map(Path, maps)
    needed = {path for path in maps if "sklearn" not in path and "scikit" not in path}
    assert len(needed) == 1, "the kernels brought in another OpenMP"


def test_no_compiler(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "COMPILERS", ("no-such-compiler",))
    with pytest.raises(library.NoLibrary, match="there is no C compiler \\(no-such-compiler\\)"):
        library.load()


def test_a_source_that_does_not_compile_is_said(anew: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "kernels.c"
    broken.write_text("int f(void) { return nothing; }\n")
    monkeypatch.setattr(library, "SOURCE", broken)
    with pytest.raises(library.NoLibrary, match=r"failed: .*nothing"):
        library.load()
    assert list(anew.iterdir()) == [], "nothing half-written is left"


def test_what_is_asked_for_and_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    with pytest.raises(UserError, match="this run is in float32 on cpu"):
        kernels("on", cpu, half=False)
    assert kernels("off", cpu, half=True) == (False, []) == kernels("auto", cpu, half=False)
    assert kernels("on", cpu, half=True)[0] and kernels("auto", cpu, half=True)[0]

    def none() -> None:
        raise library.NoLibrary("there is no C compiler (cc)")

    monkeypatch.setattr("trainformer.engine.precision.load", none)
    assert kernels("auto", cpu, half=True) == (False, ["kernels: none, there is no C compiler (cc); plain PyTorch instead"])
    with pytest.raises(UserError, match="no kernels: there is no C compiler") as refused:
        kernels("on", cpu, half=True)
    assert refused.value.fix == "Install gcc, or set it to auto."


def test_a_bare_on_in_yaml_is_a_word() -> None:
    assert [TrainSettings(native=word).native for word in (True, False, "auto")] == ["on", "off", "auto"]  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"train.native: it must be 'auto', 'on' or 'off'"):
        parse({"train": {"native": "yes please"}})
