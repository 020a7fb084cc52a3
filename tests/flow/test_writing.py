"""Our Transformer from nothing, by the command line: a classifier, a language model, a translator; and what is refused first."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WORDS = ["good", "fine", "lovely", "warm", "bright", "funny", "bad", "dull"]
Cli = Callable[..., Any]
Write = Callable[..., str]
FAST = ["--set", "train.precision=float32", "--set", "model.width=32", "--set", "model.heads=2", "--set", "train.step_rows=8"]


NO_DROPOUT = ["--set", "model.dropout=0", "--set", "model.embedding_dropout=0"]


def pairs(count: int) -> list[dict[str, str]]:
    """Sources of one to five words, drawn; in the target each word's neighbour in the list stands for it."""
    rows, draw = [], random.Random(count)
    for i in range(count):
        source = draw.choices(WORDS, k=1 + i % 5)
        rows.append({"source": " ".join(source), "target": " ".join(WORDS[(WORDS.index(w) + 1) % 8] for w in source)})
    return rows


def test_a_classifier_from_nothing(cli: Cli, write: Write, rows: Callable[..., Any], tiny_model: Path, tmp_path: Path) -> None:
    data, out = write("rows.jsonl", rows(120)), tmp_path / "run"
    done = cli("train", "--data", data, "--model", "transformer-tiny", "--tokenizer", tiny_model, "--out", out, *FAST,
               "--set", "train.epochs=8")  # fmt: skip
    assert done.code == 0, done.err
    assert "a new encoder of 0.0" in done.err
    assert json.loads((out / "scores.json").read_text())["test_accuracy"] > 0.9
    answers = cli("predict", out / "bundle", "a lovely warm film", "a dull bad film").answers
    assert [a["label"] for a in answers] == ["good", "bad"]
    again = cli("train", "--data", data, "--model", out / "bundle", "--out", tmp_path / "more", *FAST[:2], "--set",
                "train.epochs=1")  # fmt: skip
    assert again.code == 0, again.err
    assert "from bundle" in again.err


def test_a_language_model_from_nothing(cli: Cli, write: Write, tiny_model: Path, tmp_path: Path) -> None:
    """After each word comes its neighbour three times in four, else the one after that: no loss is below 0.56 nats a word."""
    draw, texts = random.Random(0), []
    for _ in range(400):
        places = [draw.randrange(8)]
        for _ in range(draw.randint(4, 10)):
            places.append((places[-1] + (1 if draw.random() < 0.75 else 2)) % 8)
        texts.append({"text": " ".join(WORDS[place] for place in places)})
    data, test, out = write("texts.jsonl", texts[:340]), write("test.jsonl", texts[340:]), tmp_path / "run"
    done = cli("train", "--task", "causal_lm", "--data", data, "--test", test, "--model", "modern-tiny",
               "--tokenizer", tiny_model, "--out", out,
               *FAST, "--set", "model.feed_forward=64", "--set", "train.epochs=10", *NO_DROPOUT)  # fmt: skip
    assert done.code == 0, done.err
    scores = json.loads((out / "scores.json").read_text())["test"]
    assert 0.56 < scores["loss"] < 1.2 < math.log(8)
    assert scores["perplexity"] == pytest.approx(math.exp(scores["loss"]))
    assert 0 < scores["bits_per_byte"] < scores["loss"] / math.log(2)
    written = cli("generate", out / "bundle", "good fine lovely warm", "--max-tokens", 3)
    assert written.out == "good fine lovely warm bright funny bad\n"
    ask = ("generate", out / "bundle", "good", "bad", "--top-p", 0.9, "--max-tokens", 8, "--seed")
    drawn = [cli(*ask, seed).out for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and json.loads(drawn[0].splitlines()[0])["prompt"] == "good"
    stopped = cli("generate", out / "bundle", "good fine", "--max-tokens", 9, "--stop", "bright")
    assert stopped.out == "good fine lovely warm \n"
    evaluated = cli("evaluate", out / "bundle", "--data", test, "--json")
    assert json.loads(evaluated.out)["loss"] == pytest.approx(scores["loss"], rel=1e-5)


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A finished run on pairs of words."""
    from trainformer import train

    folder = tmp_path_factory.mktemp("translator")
    data = folder / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in pairs(1000)))
    settings = {"data.cache": str(folder / "cache"), "train.epochs": 12, "train.lr": 0.003, "train.precision": "float32",
                "model.width": 64, "model.dropout": 0.0, "model.embedding_dropout": 0.0, "task.beam": 2,
                "task.label_smoothing": 0.0}  # fmt: skip
    return train(data, out=folder / "run", task="seq2seq", model="transformer-tiny", tokenizer=str(tiny_model), text="source",
                 text_b="target", set=settings).folder  # fmt: skip


def test_a_translator_from_nothing(translator: Path, cli: Cli, write: Write, tmp_path: Path) -> None:
    scores = json.loads((translator / "scores.json").read_text())["test"]
    assert scores["exact_match"] > 0.9 and scores["bleu"] > 90 and scores["chrf"] > 90
    bundle = translator / "bundle"
    answers = cli("translate", bundle, "good warm", "dull", "--beam", 3).answers
    assert answers == [{"source": "good warm", "translation": "fine bright"}, {"source": "dull", "translation": "good"}]
    data = write("more.jsonl", [{"id": i, **row} for i, row in enumerate(pairs(40))])
    done = cli("translate", bundle, "--data", data, "--out", tmp_path / "out.jsonl")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == list(range(40)) and set(lines[0]) == {"id", "source", "target", "translation"}
    assert sum(line["translation"] == line["target"] for line in lines) >= 36
    evaluated = json.loads(cli("evaluate", bundle, "--data", data, "--json").out)
    assert evaluated["exact_match"] == sum(line["translation"] == line["target"] for line in lines) / 40
    predicted = cli("predict", bundle, "good warm").answers[0]
    assert predicted["label"] == "fine bright" and predicted["ended"]


def test_its_bundle_opens_in_the_library(translator: Path) -> None:
    """The first Transformer is what the library calls Marian: it writes the same."""
    import transformers

    from trainformer import Bundle

    bundle = translator / "bundle"
    assert json.loads((bundle / "trainformer.json").read_text())["opens_in_transformers"]
    peer = transformers.AutoModelForSeq2SeqLM.from_pretrained(bundle)
    tokenizer = transformers.AutoTokenizer.from_pretrained(bundle)
    inputs = tokenizer("good warm", return_tensors="pt")
    inputs.pop("token_type_ids", None)
    found = peer.generate(**inputs, num_beams=1, do_sample=False, max_new_tokens=20, forced_eos_token_id=None)
    assert tokenizer.decode(found[0], skip_special_tokens=True) == "fine bright"
    assert Bundle.open(bundle).author.write(["good warm"])[0].text == "fine bright"


REFUSED: list[tuple[list[str], str]] = [
    (["--set", "model.heads=5"], "model.heads: 5 heads do not divide a width of 128."),
    (["--set", "model.vocabulary=7"], "model.vocabulary: the tokenizer has 33 tokens, the table of embeddings 7 rows."),
    (["--set", "task.min_new_tokens=9", "--set", "task.max_new_tokens=5"], "at least 9 and at most 5 tokens cannot be written"),
    (["--set", "data.max_tokens=8"], "rows.jsonl line 3: the source has 22 tokens, and 8 are read."),
]


@pytest.mark.parametrize(("settings", "words"), REFUSED, ids=lambda x: str(x)[-30:])
def test_what_is_refused_before_training(
    settings: list[str], words: str, cli: Cli, write: Write, tiny_model: Path, tmp_path: Path
) -> None:
    rows = pairs(40)
    rows[2] = {"source": " ".join(["good"] * 20), "target": "fine"}
    data, out = write("rows.jsonl", rows), tmp_path / "run"
    done = cli("train", "--task", "seq2seq", "--data", data, "--text", "source", "--target", "target", "--model",
               "transformer-tiny", "--tokenizer", tiny_model, "--out", out, *settings)  # fmt: skip
    assert done.code == 2 and words in done.err, done.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("row", "words"),
    [({"source": "good"}, "rows.jsonl line 2: this row has no 'target'."),
     ({"source": "good", "target": ""}, "rows.jsonl line 2: the source has no target: it is empty."),
     ({"source": "good", "target": None}, "rows.jsonl line 2: the text 'target' is null")],
)  # fmt: skip
def test_a_source_without_a_target(row: Any, words: str, cli: Cli, write: Write, tiny_model: Path, tmp_path: Path) -> None:
    data = write("rows.jsonl", [pairs(1)[0], row, *pairs(30)])
    done = cli("train", "--task", "seq2seq", "--data", data, "--text", "source", "--target", "target", "--model",
               "transformer-tiny", "--tokenizer", tiny_model, "--out", tmp_path / "run")  # fmt: skip
    assert done.code == 2 and words in done.err, done.err


def test_a_new_model_needs_a_tokenizer(cli: Cli, write: Write, rows: Any, tmp_path: Path) -> None:
    done = cli("train", "--data", write("rows.jsonl", rows(40)), "--model", "transformer-tiny", "--out", tmp_path / "run")
    assert done.code == 2 and "'transformer-tiny' is trained from nothing and needs a tokenizer" in done.err


def test_an_encoder_does_not_write(cli: Cli, write: Write, tiny_model: Path, tmp_path: Path) -> None:
    done = cli("train", "--task", "seq2seq", "--data", write("rows.jsonl", pairs(40)), "--text", "source", "--target", "target",
               "--model", tiny_model, "--out", tmp_path / "run")  # fmt: skip
    assert done.code == 2 and "it is an encoder, and seq2seq needs a model that writes." in done.err
    assert not (tmp_path / "run").exists()


def test_a_slip_in_the_name_of_a_new_model(cli: Cli, write: Write, tiny_model: Path, tmp_path: Path) -> None:
    done = cli("train", "--task", "seq2seq", "--data", write("rows.jsonl", pairs(40)), "--text", "source", "--target", "target",
               "--model", "transformer-tinny", "--tokenizer", tiny_model, "--out", tmp_path / "run")  # fmt: skip
    assert done.code == 2 and "Did you mean 'transformer-tiny'?" in done.err


def test_inspect(cli: Cli, translator: Path) -> None:
    """GPT-2 has the 124,439,808 parameters of the paper's smallest; a token costs twice the weights that it meets."""
    rows = json.loads(cli("inspect", "gpt2", "--vocabulary", 50257, "--tokens", 1, "--json").out)
    total = rows[-1]
    assert total["parameters"] == 124_439_808 and total["weight_bytes"] == 4 * total["parameters"]
    met = 12 * 12 * 768**2 + 50257 * 768  # the matrices of twelve layers, and the table as the output layer
    assert total["flops"] == 2 * met + 12 * 4 * 768  # and one key, one value of each layer
    assert total["cache_bytes"] == 12 * 2 * 768 * 4
    shown = cli("inspect", translator / "bundle")
    assert shown.code == 0 and "decoder 2 cross-attention" in shown.out
    assert "Did you mean 'gpt2'?" in cli("inspect", "gpt3").err


def test_a_bundle_is_asked_with_its_own_verb(translator: Path, trained: Path, cli: Cli) -> None:
    assert "its task is seq2seq. Ask it with: trainformer translate." in cli("generate", translator / "bundle", "x").err
    assert "its task is text_classification. Ask it with: trainformer predict." in cli("translate", trained / "bundle", "x").err
