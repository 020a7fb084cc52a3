"""What may go wrong around a run besides kills: signals, numbers that are none, data and machines that change, little memory."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainformer.core.files import sha256
from trainformer.data import lines
from trainformer.engine import checkpoint, room
from trainformer.studies.verify import differences

Cli = Callable[..., Any]
SETS = {"epochs": 3, "precision": "float32", "lr": 0.001, "baselines": "false", "probe": "false"}


@pytest.fixture
def files(write: Any, rows: Any) -> tuple[str, str]:
    """60 training rows, of which only the one in line 21 has the word "grim"; 12 validation rows without it."""
    tamed = [row | {"text": row["text"].replace("grim", "dull")} for row in rows(72)]
    tamed[20]["text"] += " grim"
    return write("train.jsonl", tamed[:60]), write("validation.jsonl", tamed[60:])


@pytest.fixture
def train(cli: Cli, files: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """`train("run", "--resume", skip_nonfinite=1)`: 3 epochs of 4 steps; callbacks may be written to the module `watching`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "watching").mkdir()

    def run(name: str, *words: Any, model: Any = tiny_model, **sets: Any) -> Any:
        given = [w for k, v in (SETS | sets).items() for w in ("--set", f"train.{k}={v}")]
        data = ("--data", files[0], "--validation", files[1], "--set", "data.test_share=0")
        return cli("train", *data, "--model", model, "--out", tmp_path / name, *given, *words)

    yield run
    for module in [m for m in sys.modules if m.partition(".")[0] == "watching"]:
        del sys.modules[module]


@pytest.fixture
def watching(tmp_path: Path) -> Callable[[str, str], tuple[str, str]]:
    """`watching("name", body)`: the words for a callback that does something after each step."""

    def write(name: str, body: str) -> tuple[str, str]:
        head = "import os, signal\nfrom trainformer.core.roles import Callback\n"
        text = f'{head}class {name.title()}(Callback):\n    """Watch."""\n    def on_step(self, report):\n        {body}\n'
        (tmp_path / "watching" / f"{name}.py").write_text(text)
        return "--callback", f"watching.{name}"

    return write


def log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def steps(run: Path) -> list[str]:
    return sorted(p.name for p in (run / "checkpoints").glob("step-*"))


# Signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_a_signal(train: Cli, cli: Cli, watching: Any, tmp_path: Path, monkeypatch: Any, number: int, code: int) -> None:
    """Within the step, and again while its checkpoint is written: it is saved once, and the run goes on from there."""
    assert train("whole").code == 0
    off = watching("off", f"report.step == 6 and os.kill(os.getpid(), {int(number)})")
    real, again = checkpoint.write_tensors, []

    def interrupted(path: Path, tensors: Any) -> None:
        if "step-00000006" in str(path):
            again.append(os.kill(os.getpid(), number))
        real(path, tensors)

    monkeypatch.setattr(checkpoint, "write_tensors", interrupted)
    assert train("run", *off).code == code
    assert steps(tmp_path / "run") == ["step-00000004", "step-00000006"] and again == [None]
    monkeypatch.setattr(checkpoint, "write_tensors", real)
    on = train("run", "--resume")
    assert on.code == 0 and "going on from step 6 of 12" in on.err
    assert differences(tmp_path / "whole", tmp_path / "run") == []


# A disk that fills up, and copies


def test_a_disk_that_fills_up_while_training(train: Cli, tmp_path: Path, monkeypatch: Any) -> None:
    """Said by the thread in the loop: one message, exit code 2, and the checkpoint before is whole and gone on from."""
    assert train("whole", checkpoint_steps=2).code == 0
    real = checkpoint.write_tensors

    def full(path: Path, tensors: Any) -> None:
        if "step-00000006" in str(path):
            raise OSError(28, "No space left on device")
        real(path, tensors)

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    broken = train("run", checkpoint_steps=2)
    assert (broken.code, broken.err.splitlines()[-1]) == (
        2,
        f"error: {tmp_path}/run/checkpoints/step-00000006: no space left on the disk. Nothing half-written is left. "
        "step-00000004 is whole: once there is room, --resume goes on from it.",
    )
    assert steps(tmp_path / "run") == ["step-00000002", "step-00000004"]
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))
    monkeypatch.setattr(checkpoint, "write_tensors", real)
    assert train("run", "--resume", checkpoint_steps=2).code == 0
    assert differences(tmp_path / "whole", tmp_path / "run") == []


def test_checkpoints_by_steps_and_by_the_clock(train: Cli, tmp_path: Path, monkeypatch: Any) -> None:
    saved: list[int] = []
    real = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda folder, step, *rest: (saved.append(step), real(folder, step, *rest))[1])
    assert train("none").code == 0
    assert saved == [4, 8, 12]
    saved.clear()
    assert train("steps", checkpoint_steps=3).code == 0
    assert saved == [3, 4, 6, 8, 9, 12]
    saved.clear()
    assert train("clock", checkpoint_minutes=1e-9).code == 0
    assert set(saved) > {4, 8, 12}, "and others, whenever the one before was on the disk"
    assert differences(tmp_path / "none", tmp_path / "clock") == []


# The log


def test_a_log_that_was_cut_in_a_line(train: Cli, watching: Any, tmp_path: Path) -> None:
    """Lines after the checkpoint are written again; the last was cut where what is left looks like an end."""
    assert train("whole").code == 0
    off = watching("off", "report.step == 6 and os.kill(os.getpid(), signal.SIGTERM)")
    assert train("run", *off).code == 143
    path = tmp_path / "run" / "log.jsonl"
    with path.open("a") as f:
        f.write(
            '{"step": 7, "epoch": 1.75, "loss": 0.5}\n{"step": 6, "epoch": 1.5, "loss": 9}\n{"step": 8, "validation": {"a": 1}'
        )
    assert train("run", "--resume").code == 0
    assert differences(tmp_path / "whole", tmp_path / "run") == []


# Numbers that are none


@pytest.fixture
def huge(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model, in which one word is so large that the sequences with it overflow."""
    return poked(tiny_model, tmp_path / "huge", "grim", 3e38)


def poked(model: Path, folder: Path, word: str, value: float) -> Path:
    shutil.copytree(model, folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][vocabulary[word]] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_loss_that_is_no_number_names_the_row(train: Cli, huge: Path, files: Any, tmp_path: Path) -> None:
    stopped = train("run", model=huge)
    assert stopped.code == 2
    last = stopped.err.splitlines()[-1]
    assert f", {files[0]} line 21: loss nan, gradient norm nan: not finite. The weights were not changed." in last
    step = int(last.split("step ")[1].split(",")[0])
    found = log(tmp_path / "run")[-1]
    assert (found["step"], found["loss"], found["skipped"]) == (step + 1, "nan", 1)
    assert train("run", "--resume", model=huge).err.splitlines()[-1] == last, "and so it ends again"


def test_some_such_steps_may_be_skipped(train: Cli, huge: Path, tmp_path: Path) -> None:
    """The row comes once an epoch: three steps are passed over, and no weight of the model is changed by them."""
    assert train("two", model=huge, skip_nonfinite=2).code == 2
    assert train("three", model=huge, skip_nonfinite=3).code == 0
    skipped = [line for line in log(tmp_path / "three") if line.get("skipped")]
    assert [(line["loss"], line["skipped"]) for line in skipped] == [("nan", 1), ("nan", 2), ("nan", 3)]
    assert len([line for line in log(tmp_path / "three") if "loss" in line]) == 12
    weights = load_file(tmp_path / "three" / "bundle" / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_a_weight_that_is_no_number_is_named_before_the_first_step(train: Cli, tiny_model: Path, tmp_path: Path) -> None:
    outcome = train("run", model=poked(tiny_model, tmp_path / "nan", "film", float("nan")))
    assert outcome.code == 2
    assert (
        "before step 0: the weight body.encoder.embeddings.word_embeddings.weight has values that are not finite" in outcome.err
    )
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("factor", ["float('inf')", "1e30"])
def test_a_gradient_that_is_no_number(train: Cli, tmp_path: Path, factor: str) -> None:
    """Infinite, or so long that its square is: the loss is one, and all rows of the step are named."""
    (tmp_path / "watching" / "long.py").write_text(
        "from trainformer.core.roles import Method\n"
        'class Long(Method):\n    """Lengthen."""\n'
        "    def wrap_grad(self, grad, model):\n"
        "        def longer(batches):\n            loss = grad(batches)\n"
        f"            [p.grad.mul_({factor}) for p in model.parameters() if p.grad is not None]\n            return loss\n"
        "        return longer\n"
    )
    outcome = train("run", "--method", "watching.long")
    assert outcome.code == 2 and "not finite. The weights were not changed." in outcome.err
    assert len(outcome.err.splitlines()[-1].split(" line ")[1].split(": loss")[0].split(", ")) == 16, "rows of the step"


# Determinism


def test_ten_runs_give_the_same_bits(train: Cli, tmp_path: Path) -> None:
    for i in range(10):
        assert train(f"run-{i}", "--method", "ema", epochs=1).code == 0
        assert differences(tmp_path / "run-0", tmp_path / f"run-{i}") == []


# Data and machines that change


def test_data_that_changed_since(train: Cli, watching: Any, files: Any, tmp_path: Path) -> None:
    off = watching("off", "report.step == 6 and os.kill(os.getpid(), signal.SIGTERM)")
    assert train("run", *off).code == 143
    content = Path(files[1]).read_text()
    Path(files[1]).write_text(content + content.splitlines()[0] + "\n")
    refused = train("run", "--resume")
    assert (refused.code, refused.err.splitlines()[-1]) == (
        2,
        f"error: {files[1]}: the validation rows are not those that the run began with (SHA-256 differs). "
        "Put the old file back to go on, or start another run.",
    )
    Path(files[1]).write_text(content)
    assert train("run", "--resume").code == 0


def test_data_that_changes_during_a_run(train: Cli, watching: Any, files: Any, tmp_path: Path) -> None:
    """Found before anything more is scored; the training is not lost. A file that is only touched is no other."""
    assert train("whole").code == 0
    same = watching("same", f"report.step == 5 and os.utime({files[0]!r})")
    assert train("touched", *same).code == 0
    before = Path(files[0]).read_text()
    more = watching("more", f"report.step == 5 and os.truncate({files[0]!r}, 3000)")
    broken = train("run", *more)
    assert broken.code == 2
    assert broken.err.splitlines()[-1].startswith(f"error: {files[0]}: it has changed since this run opened it. Put it back")
    assert not (tmp_path / "run" / "bundle").exists() and not (tmp_path / "run" / "scores.json").exists()
    Path(files[0]).write_text(before)
    assert train("run", "--resume").code == 0
    assert differences(tmp_path / "whole", tmp_path / "run") == []


def test_data_that_changes_while_it_is_read(train: Cli, files: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Between the first reading and the tokens: nothing is trained, and the cache holds no rows under a wrong name."""
    from trainformer.data import prepare

    real, before = prepare.learn, Path(files[0]).read_text()
    monkeypatch.setattr(
        prepare, "learn", lambda *given: (real(*given), Path(files[0]).write_text(before.replace('"text": "', '"text": "the ')))
    )
    assert train("run").err.splitlines()[-1].startswith(f"error: {files[0]}: it has changed since this run opened it.")
    assert not (tmp_path / "run").exists()
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and sha256(p)] == []


def test_a_reader_that_fails_in_the_middle(train: Cli, files: Any, tmp_path: Path, monkeypatch: Any) -> None:
    class Sick:
        def __init__(self, file: Any):
            self.file, self.read_lines = file, 0

        def __enter__(self) -> "Sick":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def read(self, size: int) -> bytes:
            return self.file.read(size)

        def readline(self, most: int) -> bytes:
            self.read_lines += 1
            if self.read_lines == 30:
                raise OSError(5, "Input/output error")
            return self.file.readline(most)

    real = lines.opened
    monkeypatch.setattr(lines, "opened", lambda path, name: Sick(real(path, name)))
    broken = train("run")
    assert (broken.code, broken.err.splitlines()[-1]) == (
        2, f"error: {files[0]} line 30: it cannot be read from here on: Input/output error."
    )  # fmt: skip
    assert not (tmp_path / "run").exists() and not list((tmp_path / "cache").rglob("*.bin"))


def test_another_machine_is_said(train: Cli, watching: Any, tmp_path: Path) -> None:
    off = watching("off", "report.step == 6 and os.kill(os.getpid(), signal.SIGTERM)")
    assert train("run", *off, precision="auto").code == 143
    path = tmp_path / "run" / "begun.json"
    recorded = json.loads(path.read_text())
    assert recorded["threads"] == 1 and recorded["chosen"]["precision"] in ("float32", "bfloat16")
    assert recorded["machine"]["processor"] and recorded["versions"].keys() == {"python", "trainformer", "torch", "transformers"}
    other = "bfloat16" if recorded["chosen"]["precision"] == "float32" else "float32"
    recorded |= {"threads": 7, "chosen": recorded["chosen"] | {"precision": other}}
    recorded["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(recorded))
    on = train("run", "--resume", precision="auto")
    assert on.code == 0, "it goes on"
    said = next(line for line in on.err.splitlines() if line.startswith("going on, but not exactly"))
    assert f"versions.torch was 1.0, is {torch.__version__}; threads was 7, is 1" in said
    assert "precision" not in said, "what was measured when the run began is kept, and not measured again"


# Memory


def test_little_memory(train: Cli, files: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Micro-batches are cut until they fit, which changes the result by rounding alone; the longest rows are named at last."""
    assert train("whole", epochs=1).code == 0
    needed: list[int] = []
    real = room.Memory.predict
    monkeypatch.setattr(room.Memory, "predict", lambda self, size: (needed.append(real(self, size) - self.resident), 0)[1])
    assert train("seen", epochs=1).code == 0
    monkeypatch.setattr(room.Memory, "predict", real)
    monkeypatch.setattr(room, "available", lambda: int(0.9 * needed[0]))
    cut = train("cut", epochs=1)
    assert cut.code == 0 and "instead of 8192, which would not fit into" in cut.err, cut.err
    losses = [[line["loss"] for line in log(tmp_path / name) if "loss" in line] for name in ("whole", "cut")]
    assert losses[1] == pytest.approx(losses[0], abs=0.2) and len(losses[0]) == 4
    monkeypatch.setattr(room, "available", lambda: 1000)
    refused = train("refused")
    assert refused.code == 2 and "MB are free; the longest row has " in refused.err and f"({files[0]} line " in refused.err
    assert not (tmp_path / "refused").exists()
