"""The library: one set of threads, compiled once, and a reason where there is none."""

from pathlib import Path

import pytest

from trainformer.core.config import TrainSettings, parse
from trainformer.core.errors import UserError
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
    needed = {path for path in maps if not Path(path).parent.name.endswith(".libs") or "/torch.libs/" in path}  # of other wheels
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


def test_a_library_that_was_cut_short_is_made_anew(anew: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library.load()
    (whole,) = anew.iterdir()
    cut = tmp_path / "other" / "native" / whole.name  # elsewhere: a library that is loaded is known by its path
    cut.parent.mkdir(parents=True)
    cut.write_bytes(whole.read_bytes()[:100])
    monkeypatch.setenv("TRAINFORMER_CACHE", str(tmp_path / "other"))
    library.load()
    assert list(cut.parent.iterdir()) == [cut] and cut.stat().st_size == whole.stat().st_size


def test_a_folder_that_cannot_be_written_is_said(anew: Path) -> None:
    anew.parent.parent.mkdir(exist_ok=True)
    anew.parent.write_text("no folder")
    with pytest.raises(library.NoLibrary, match="cache"):
        library.load()


@pytest.mark.parametrize(("place", "mode"), [("folder", 0o770), ("folder", 0o703), ("above", 0o777)])
def test_where_others_can_write_nothing_is_loaded(anew: Path, place: str, mode: int) -> None:
    library.load()
    (made,) = anew.iterdir()
    assert made.stat().st_mode & 0o777 == anew.stat().st_mode & 0o777 == 0o700
    weak = anew if place == "folder" else anew.parent
    weak.chmod(mode)
    with pytest.raises(library.NoLibrary, match=rf"^other users can write to {weak},"):
        library.load()
    weak.chmod(0o1777 if place == "above" else 0o755)  # in a folder as /tmp is nobody can replace what is another's
    library.load()


def test_a_folder_of_another_user_is_none(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library.load()
    owner = anew.stat().st_uid
    found = {0: None}.get(owner, anew)  # the administrator's is trusted
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    assert library._open_to_others(anew) == found


@pytest.mark.parametrize("how", ["written", "linked"])
def test_a_library_of_others_is_made_anew(anew: Path, tmp_path: Path, how: str) -> None:
    """A file that others can write to, and a link to one of theirs: neither is loaded."""
    library.load()
    (path,) = anew.iterdir()
    theirs, whole = tmp_path / "theirs.so", path.stat().st_size
    theirs.write_text("no library")
    path.unlink()
    if how == "linked":
        path.symlink_to(theirs)
    else:
        path.write_bytes(theirs.read_bytes())
        path.chmod(0o722)
    library.load()
    assert not path.is_symlink() and path.stat().st_size == whole and path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("told", ["", "flags\t: avx avx2", "flags\t: no_avx512f"])
def test_another_processor(anew: Path, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    monkeypatch.setattr(library, "_processor", lambda: told)
    with pytest.raises(library.NoLibrary, match="this processor has no AVX-512"):
        library.load()
    assert not anew.exists()


def test_the_source_is_where_the_package_is() -> None:
    """A file of the package beside this module, which every way to install it brings along."""
    assert library.SOURCE.parent == Path(library.__file__).parent and library.SOURCE.is_file()
    assert len(library.SOURCE.read_text().splitlines()) < 800


def test_a_bare_on_in_yaml_is_a_word() -> None:
    assert [TrainSettings(native=word).native for word in (True, False, "auto")] == ["on", "off", "auto"]  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"train.native: it must be 'auto', 'on' or 'off'"):
        parse({"train": {"native": "yes please"}})
