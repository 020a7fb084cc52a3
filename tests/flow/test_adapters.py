"""From the command line: what each parameter-efficient method trains is what its bundle answers with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from trainformer.bundle import Bundle
from trainformer.bundle.adapters import names

Cli = Callable[..., Any]
TEXTS = ["a good film", "grim and slow plot two", "funny"]
SETTINGS: dict[str, list[str]] = {
    "lora": ["rank=4"], "adalora": ["rank=2", "every=1"], "ia3": [], "prefix": ["length=4"], "prompt": ["length=4"],
    "adapter": ["width=4"], "bitfit": [], "freeze": ["layers=1"], "head_only": [], "gradual_unfreeze": [],
}  # fmt: skip
ADAPTERS = [n for n in SETTINGS if n not in ("freeze", "gradual_unfreeze")]


@pytest.fixture
def train(cli: Cli, write: Cli, rows: Cli, tiny_model: Path, tmp_path: Path) -> Cli:
    """`train("run", "lora")`: the folder of a run on 60 reviews, whose bundle is in `bundle`."""
    data = write("train.jsonl", rows(60))
    write("validation.jsonl", rows(40, seed=5))

    def make(folder: str, *methods: str, model: Any = tiny_model, more: list[str] | None = None, settle: bool = True) -> Path:
        pytest.importorskip("peft")
        words = [w for m in methods for w in ("--method", m)]
        sets = [f"method.{m}.{s}" for m in methods if settle for s in SETTINGS[m]]
        sets += ["train.epochs=3", "train.lr=0.02", "train.baselines=false", "train.precision=float32", "data.test_share=0"]
        words += [w for s in [*sets, *(more or [])] for w in ("--set", s)]
        done = cli("train", "--data", data, "--validation", tmp_path / "validation.jsonl", "--model", model,
                   "--out", tmp_path / folder, *words)  # fmt: skip
        assert done.code == 0, done.err
        (tmp_path / folder / "said").write_text(done.err)
        return tmp_path / folder

    return make


@pytest.mark.parametrize("method", SETTINGS)
def test_a_bundle_gives_what_the_engine_scored(method: str, train: Cli, cli: Cli, tmp_path: Path) -> None:
    run = train("run", method)
    scored = json.loads((run / "scores.json").read_text())["validation"]
    again = Bundle.open(run / "bundle").evaluate(tmp_path / "validation.jsonl")
    assert again["loss"] == pytest.approx(scored["loss"], abs=1e-5) and again["accuracy"] == scored["accuracy"]
    said = (run / "said").read_text()
    assert (" parameters (" in said) == (method != "gradual_unfreeze"), "the trained share is told before training"
    done = cli("predict", run / "bundle", *TEXTS)
    assert done.code == 0 and [set(a) for a in done.answers] == [{"label", "score", "scores", "cut_tokens"}] * 3
    assert len({a["scores"]["good"] for a in done.answers}) == 3
    facts = json.loads((run / "bundle" / "trainformer.json").read_text())
    stays = method in ("prefix", "prompt", "adapter")
    assert list(facts["methods"]) == [method] * stays and facts["opens_in_transformers"] is not stays
    assert names(run / "bundle") == [method] * (method in ADAPTERS)


@pytest.mark.parametrize("method", ["prompt", "adalora"])
def test_a_resumed_run_ends_in_the_same_bundle(method: str, train: Cli, cli: Cli, tmp_path: Path) -> None:
    run = train("run", method, more=["train.evals_per_epoch=2"])
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    for gone in ("bundle", "scores.json", "report.html"):
        path = cut / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(max((cut / "checkpoints").glob("step-*")))
    assert cli("train", "--out", cut, "--resume").code == 0
    assert torch.equal(Bundle.open(cut / "bundle").logits(TEXTS), Bundle.open(run / "bundle").logits(TEXTS))
    ends = [json.loads((r / "log.jsonl").read_text().splitlines()[-1]) for r in (run, cut)]
    assert ends[0] == ends[1] and (method != "adalora" or ends[0]["methods"]["adalora"]["ranks"])


def test_ranks_are_in_the_report(train: Cli) -> None:
    page = (train("run", "adalora") / "report.html").read_text()
    assert "Rank of 12 layers over time" in page


def test_several_adapters_on_one_base(train: Cli, cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    runs = {name: train(name, name) for name in ("lora", "prefix", "bitfit")}
    alone = {name: Bundle.open(run / "bundle").logits(TEXTS) for name, run in runs.items()}
    out = tmp_path / "all"
    words = [f"{name}={run / 'bundle'}" for name, run in runs.items()]
    done = cli("gather", *words, "--base", tiny_model, "--out", out)
    assert done.code == 0, done.err
    assert names(out) == ["bitfit", "lora", "prefix"]
    for name, expected in alone.items():
        given = torch.tensor([a["logits"] for a in cli("predict", out, *TEXTS, "--adapter", name, "--logits").answers])
        assert torch.allclose(given, expected, atol=1e-5)
    first = torch.tensor([a["logits"] for a in cli("predict", out, *TEXTS, "--logits").answers])
    assert torch.equal(first, alone["lora"]), "the first answers by default"
    wrong = cli("predict", out, "a", "--adapter", "lorra")
    assert wrong.code == 2 and "no adapter 'lorra' in it. Did you mean 'lora'?" in wrong.err


@pytest.fixture
def other_base(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with one number changed."""
    folder = tmp_path / "other"
    shutil.copytree(tiny_model, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layer.0.attention.self.query.weight"][0, 0] += 1e-3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_an_adapter_of_another_base_is_refused(train: Cli, cli: Cli, other_base: Path, tmp_path: Path) -> None:
    run = train("run", "lora")
    for words in (["gather", f"a={run / 'bundle'}"], ["export", run / "bundle"]):
        done = cli(*words, "--base", other_base, "--out", tmp_path / "new")
        assert done.code == 2 and "trained on another base: the SHA-256 of the base's weights differs" in done.err
        assert not (tmp_path / "new").exists()


CHANGES = [
    ("lora", []),
    ("lora", ["method.lora.dora=true", "method.lora.targets=[query, value]"]),
    ("lora", ["method.lora.rslora=true"]),
    ("adalora", []),
    ("ia3", []),
]


@pytest.mark.parametrize(("method", "more"), CHANGES)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # the library calls itself so
def test_peft_reads_an_exported_adapter_with_equal_logits(
    method: str, more: list[str], pooling: str, train: Cli, cli: Cli, tiny_model: Path, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    run = train("run", method, more=[*more, f"model.pooling={pooling}"])
    done = cli("export", run / "bundle", "--to", "peft", "--base", tiny_model, "--out", tmp_path / "peft")
    assert done.code == 0, done.err
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {p.name for p in (tmp_path / "peft").iterdir()}
    base = tmp_path / "peft" / "base" if pooling == "mean" else tiny_model
    bundle = Bundle.open(run / "bundle")
    library = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    model = peft.PeftModel.from_pretrained(library, tmp_path / "peft").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "bundle")
    given = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits
    assert torch.allclose(logits, bundle.logits(TEXTS), atol=1e-5)


@pytest.mark.parametrize("method", ["prefix", "adapter"])
def test_what_peft_cannot_say_is_refused(method: str, train: Cli, cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    run = train("run", method)
    done = cli("export", run / "bundle", "--to", "peft", "--base", tiny_model, "--out", tmp_path / "peft")
    assert done.code == 2 and f"'{method}' has no peft file that says the same" in done.err
    assert not (tmp_path / "peft").exists()


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_a_run_starts_from_an_adapter_of_peft(dora: bool, train: Cli, tiny_model: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(5)
    library = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
    config = peft.LoraConfig(r=3, lora_alpha=7, target_modules=["query", "value"], task_type="SEQ_CLS", use_dora=dora,
                             modules_to_save=["pooler", "classifier"])  # fmt: skip
    model = peft.get_peft_model(library, config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.normal_(0, 0.3)
    model.save_pretrained(tmp_path / "foreign")
    # A rate so small that nothing is learnt: what ships is what it started from.
    more = [f"method.lora.start={tmp_path / 'foreign'}", "train.probe=false", "train.lr=1e-12", "model.pooling=cls"]
    run = train("run", "lora", more=more, settle=False)
    given = transformers.AutoTokenizer.from_pretrained(tiny_model)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits
    assert torch.allclose(Bundle.open(run / "bundle").logits(TEXTS), logits, atol=1e-4)
    assert "rank: 3" in (run / "config.yaml").read_text()


def test_a_bundle_goes_to_peft_and_back(train: Cli, cli: Cli, tiny_model: Path, other_base: Path, tmp_path: Path) -> None:
    bundle = train("run", "lora") / "bundle"
    shutil.copytree(bundle, tmp_path / "away")
    unknown = cli("export", tmp_path / "away", "--to", "peft", "--out", tmp_path / "peft")
    assert unknown.code == 2 and "Say where the base is: --base" in unknown.err, "a folder's place is not kept, only its name"
    assert cli("export", tmp_path / "away", "--to", "peft", "--base", tiny_model, "--out", tmp_path / "peft").code == 0
    beside = cli("export", bundle, "--to", "peft", "--out", tmp_path / "beside")
    assert beside.code == 0, "its run says where the base is"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "beside" / name).read_bytes() == (tmp_path / "peft" / name).read_bytes()
    more = [f"method.lora.start={tmp_path / 'peft'}", "train.probe=false", "train.lr=1e-12"]
    again = train("again", "lora", more=more, settle=False) / "bundle"
    assert torch.allclose(Bundle.open(again).logits(TEXTS), Bundle.open(bundle).logits(TEXTS), atol=1e-5)
    words = ["--data", tmp_path / "train.jsonl", "--model", other_base, "--method", "lora", "--set", more[0]]
    refused = cli("train", *words, "--out", tmp_path / "no")
    assert refused.code == 2 and "lora.start: it was trained on another base" in refused.err and not (tmp_path / "no").exists()


def test_trained_adapters_are_fused(train: Cli, cli: Cli, other_base: Path, tiny_model: Path, tmp_path: Path) -> None:
    runs = [train(f"run{i}", "adapter", more=[f"train.seed={i}", "method.adapter.style=pfeiffer"]) for i in (1, 2)]
    fuse = f"method.adapter.fuse=[{', '.join(str(r / 'bundle') for r in runs)}]"
    fused = train("fused", "adapter", more=[fuse], settle=False)
    bundle = Bundle.open(fused / "bundle")
    before = [load_file(r / "bundle/adapters/adapter/weights.safetensors") for r in runs]
    now = dict(bundle.model.named_parameters())
    for number, weights in enumerate(before):  # they stay as they were trained, to the bit
        assert torch.equal(now[f"body.added.adapter.1.each.{number}.up.weight"], weights["body.added.adapter.1.up.weight"])
    scored = json.loads((fused / "scores.json").read_text())["validation"]
    assert bundle.evaluate(tmp_path / "validation.jsonl")["loss"] == pytest.approx(scored["loss"], abs=1e-5)
    assert json.loads((fused / "bundle/trainformer.json").read_text())["methods"]["adapter"]["fuse"] == 2
    words = ["--data", tmp_path / "train.jsonl", "--model", other_base, "--method", "adapter", "--set", fuse]
    refused = cli("train", *words, "--out", tmp_path / "no")
    assert refused.code == 2 and "trained on another base" in refused.err and not (tmp_path / "no").exists()
