"""Several processes give what one gives, stop as one, and lose nothing when one of them is lost."""

import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the processes find the module by its name
from processes import Ended, together

BREAKING = '''
"""A method that ends the process of rank AT[0] in step AT[1], by the signal AT[2] or by an error."""
import os, signal
from trainformer.core.errors import UserError
from trainformer.core.roles import Method

RANK, STEP, HOW = (os.environ.get("AT") or "-1,-1,0").split(",")

def end():
    if HOW == "error":
        raise UserError("the disk is sick.", where="here")
    os.kill(os.getpid(), int(HOW))

class Off(Method):
    """Break off."""
    shards = True
    _step = -1
    def after_step(self, model, step):
        self._step = step - 1
        if os.environ.get("RANK") == RANK and STEP == str(step - 1):
            end()
    def swap(self, model):
        if os.environ.get("RANK") == RANK and STEP == f"eval{self._step}":
            end()
'''
SETTINGS = {"train.epochs": 3, "train.precision": "float32", "train.device": "cpu", "train.step_rows": 14, "train.lr": 1e-3,
            "train.baselines": "false", "data.test_share": 0, "data.weight": "weight", "model.dropout": 0}  # fmt: skip


@dataclass
class Place:
    """A folder with rows, where runs are started: 3 epochs of 5 steps of 14 rows, the last of 8; weights 1 to 3; no dropout."""

    folder: Path
    model: Path
    done: dict[str, Ended] = field(default_factory=dict)

    def run(self, name: str, *words: object, world: int = 2, method: str = "llrd ema", at: str = "", **sets: object) -> Ended:
        out = ("--out", self.folder / name)
        environment = {"TRAINFORMER_CACHE": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1", "AT": at}
        if "--resume" in words:
            return together(self.folder, ["train", *out, *words], world, **environment)
        data = ("--data", self.folder / "rows.jsonl", "--validation", self.folder / "held.jsonl", "--model", self.model)
        sets |= {"method.lora.dropout": 0} if method == "lora" else {}
        methods = [word for m in [*method.split(), "breaking.off"] for word in ("--method", m)]
        chosen = SETTINGS | {k.replace("__", "."): v for k, v in sets.items()}
        given = [word for k, v in chosen.items() for word in ("--set", f"{k}={v}")]
        return together(self.folder, ["train", *data, *out, *methods, *given, *words], world, **environment)

    def whole(self, name: str, **words: Any) -> str:
        """The name of a run that nothing disturbs; tests share it."""
        if name not in self.done:
            self.done[name] = self.run(name, **words)
        assert set(self.done[name].codes) == {0}, self.done[name].told
        return name

    def log(self, name: str) -> list[dict[str, Any]]:
        """The log of a run without its times."""
        lines = [json.loads(line) for line in (self.folder / name / "log.jsonl").read_text().splitlines()]
        return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]

    def losses(self, name: str) -> list[float]:
        """Of steps and evaluations."""
        return [line["loss"] if "loss" in line else line["validation"]["loss"] for line in self.log(name)]

    def bits(self, name: str) -> tuple[Any, bytes]:
        return self.log(name), (self.folder / name / "bundle" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def place(tiny_model: Path, rows: Any, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "breaking").mkdir()
    (folder / "breaking" / "off.py").write_text(BREAKING)
    weighed = [row | {"weight": 1 + i % 3} for i, row in enumerate(rows(64))]
    held = [row | {"weight": 1} for row in rows(20, seed=1)]
    for name, listed in (("rows", weighed), ("held", held)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    return Place(folder, tiny_model)


FEW = {"train__micro_tokens": 26}
"""Several micro-batches a step, and in 3 of the 15 steps not equally many in both processes."""


@pytest.mark.parametrize("method", ["llrd ema", *(pytest.param(m, marks=pytest.mark.slow) for m in ("rdrop fgm", "lora"))])
def test_the_losses_are_those_of_one_process(place: Place, method: str) -> None:
    one = place.whole(f"one {method}", world=1, method=method, **FEW)
    two = place.whole(f"two {method}", method=method, **FEW)
    assert place.losses(two) == pytest.approx(place.losses(one), abs=1e-5)
    for key in ("step", "tokens", "lr"):
        assert [line.get(key) for line in place.log(two)] == [line.get(key) for line in place.log(one)]
    assert place.log(two)[0] == place.log(one)[0], "the start is scored with the same weights: the same bits"
    assert place.done[two].told[1] == "", "only the first process talks"
    assert "2 processes share the rows of each step" in place.done[two].told[0]


@pytest.mark.slow
def test_the_kernels_in_two_processes(place: Place) -> None:
    """bfloat16 rounds each process's part of a gradient: the losses stay near those of one. Spread weights have none."""
    words = {"train__precision": "bfloat16", "train__native": "on"}
    one, two = (place.whole(f"native {world}", world=world, **words) for world in (1, 2))
    assert place.losses(two) == pytest.approx(place.losses(one), abs=0.03)
    assert all("kernels: compiled" in place.done[name].told[0] for name in (one, two))
    spread = place.run("native spread", train__shard="true", **words)
    assert spread.codes == [2, 2] and "no kernels: train.shard puts weights together" in " ".join(spread.messages)


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["false", "true"])
def test_more_processes_than_rows(place: Place, shard: str) -> None:
    """64 = 7 * 9 + 1: the last step of three processes has one row."""
    words = {"train__step_rows": 9, "train__epochs": 2, "train__lr": 1e-4}
    one = place.whole("one of 9", world=1, **words)
    three = place.whole(f"three {shard}", world=3, train__shard=shard, **words)
    assert place.losses(three) == pytest.approx(place.losses(one), abs=1e-5)


@pytest.mark.slow
def test_all_stop_where_the_first_one_wants_to(place: Place) -> None:
    """Only the first process has callbacks; of 50 epochs three without a better score are run."""
    assert place.log(place.whole("stopped early", train__epochs=50, train__lr=1e-9))[-1]["step"] == 15


@pytest.mark.parametrize(
    ("at", "step"), [("1,6,9", 7), pytest.param("1,eval4,9", 5, marks=pytest.mark.slow)], ids=["in a step", "in an evaluation"]
)
def test_a_killed_process_stops_all_with_a_checkpoint(place: Place, at: str, step: int) -> None:
    """The first process keeps the last whole step: 7, or 5 at the end of the first epoch. Dropout goes on, too."""
    whole = place.whole("whole", model__dropout=0.1)
    broken = f"killed {step}"
    done = place.run(broken, model__dropout=0.1, at=at)
    assert (done.codes, done.seconds < 30) == ([1, -9], True)
    assert done.messages == [
        f"another process of this run has ended: stopped at step {step}; its checkpoint is kept."
        f" Go on with: trainformer train --out '{place.folder / broken}' --resume"
    ]
    rest = place.run(broken, "--resume")
    assert rest.codes == [0, 0] and f"going on from step {step} of 15" in rest.told[0], rest.told
    assert place.bits(broken) == place.bits(whole)


@pytest.mark.slow
def test_without_the_first_process_its_last_checkpoint_counts(place: Place) -> None:
    whole = place.whole("whole", model__dropout=0.1)
    done = place.run("first", model__dropout=0.1, at="0,6,9")
    assert (done.codes, done.seconds < 30) == ([-9, 1], True)
    (message,) = done.messages
    assert message.startswith("another process of this run has ended: stopped at step 7; its last checkpoint counts.")
    rest = place.run("first", "--resume")
    assert rest.codes == [0, 0] and "going on from step 5 of 15" in rest.told[0], rest.told
    assert place.bits("first") == place.bits(whole)


@pytest.mark.slow
def test_a_signal_to_one_stops_all_at_the_same_step(place: Place) -> None:
    whole = place.whole("whole", model__dropout=0.1)
    done = place.run("signal", model__dropout=0.1, at="1,6,15")
    assert done.codes == [143, 143]
    (message,) = done.messages
    assert message.startswith("stopped by SIGTERM at step 7; its checkpoint is kept.")
    rest = place.run("signal", "--resume")
    assert rest.codes == [0, 0] and "going on from step 7 of 15" in rest.told[0], rest.told
    assert place.bits("signal") == place.bits(whole)


def test_an_error_in_one_process_is_one_message(place: Place) -> None:
    done = place.run("sick", at="1,6,error")
    assert done.messages == ["error: here: the disk is sick."] and done.codes == [1, 2]
    assert (place.folder / "sick" / "checkpoints" / "step-00000007").is_dir()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--label", "lable"), "no column 'lable'"),
        (("--set", "train.epoch=3"), "no setting 'train.epoch'"),
        (("--set", "train.shard=true", "--method", "fgm"), "error: train.shard: the method 'fgm' needs the whole model"),
    ],
)
def test_an_error_of_all_is_one_message_too(place: Place, words: tuple[str, ...], message: str) -> None:
    (said,) = place.run("wrong", *words).messages
    assert message in said
    assert not (place.folder / "wrong").exists()


def test_variables_of_torchrun_that_are_missing(tmp_path: Path) -> None:
    (said,) = together(tmp_path, ["train", "--out", tmp_path / "run", "--data", "rows.jsonl"], 1, WORLD_SIZE="2").messages
    assert said == "error: WORLD_SIZE: it is set, and RANK is not. Start the processes by torchrun, or unset WORLD_SIZE."


@pytest.mark.parametrize("method", ["llrd ema", *(pytest.param(m, marks=pytest.mark.slow) for m in ("rdrop", "lora"))])
def test_a_spread_model_has_the_losses_of_one_process(place: Place, method: str) -> None:
    one = place.whole(f"one {method}", world=1, method=method, **FEW)
    spread = place.whole(f"spread {method}", method=method, train__shard="true", **FEW)
    assert "train.shard: each holds a part of the model" in place.done[spread].told[0]
    assert place.losses(spread) == pytest.approx(place.losses(one), abs=1e-5)


@pytest.mark.slow
def test_a_checkpoint_of_parts_goes_on_in_any_number_of_processes(place: Place) -> None:
    spread = place.whole("spread llrd ema", train__shard="true", **FEW)
    done = place.run("parts", train__shard="true", **FEW, at="1,6,15")
    assert done.codes == [143, 143], done.told
    for world in (1, 3):
        shutil.copytree(place.folder / "parts", place.folder / f"parts {world}")
        rest = place.run(f"parts {world}", "--resume", world=world)
        assert set(rest.codes) == {0} and "going on from step 7 of 15" in rest.told[0], rest.told
        assert place.losses(f"parts {world}") == pytest.approx(place.losses(spread), abs=1e-5)
    assert place.run("parts", "--resume").codes == [0, 0]
    assert place.bits("parts") == place.bits(spread), "in as many processes the same bits"


@pytest.mark.slow
def test_a_killed_part(place: Place) -> None:
    """Its part of the last step is lost: the checkpoint before it counts."""
    spread = place.whole("spread llrd ema", train__shard="true", **FEW)
    done = place.run("lost part", train__shard="true", **FEW, at="1,6,9")
    assert (done.codes, done.seconds < 30) == ([1, -9], True)
    (message,) = done.messages
    assert message.startswith("another process of this run has ended: stopped at step 7; its last checkpoint counts.")
    rest = place.run("lost part", "--resume")
    assert rest.codes == [0, 0] and "going on from step 5 of 15" in rest.told[0], rest.told
    assert place.bits("lost part") == place.bits(spread)
