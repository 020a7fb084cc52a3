"""Likelihoods of texts: perplexity and multiple choice are what the library's logits say, summed by hand."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from trainformer import Bundle, train
from trainformer.bundle.choices import likelihoods
from trainformer.core.errors import UserError
from trainformer.data.tokens import write_tokenizer
from trainformer.data.vocabulary import Wanted
from trainformer.data.vocabulary import train as train_tokenizer

THINGS = ["film", "story", "plot", "actor", "scene", "音乐", "Ende ü"]
TEXTS = [f"the {a} was {'warm' if i % 2 else 'cold'} and the {b} was {'bright' if i % 2 else 'grim'}"
         for i in range(6) for a in THINGS for b in THINGS]  # fmt: skip
QUESTIONS: list[dict[str, Any]] = [
    {"prompt": "the film was warm and the plot was", "choices": [" bright", " grim"], "answer": 0},
    {
        "prompt": "the plot was cold and the film",
        "choices": [" was grim", " was bright and warm", " scene"],
        "answer": " was grim",
    },
    {"prompt": "the 音", "choices": ["乐 was warm", "乐 音乐 音乐"], "answer": 0},
    {"prompt": "the Ende ü was cold and ", "choices": ["the actor was warm", "the actor was grim"], "answer": 1},
    {"prompt": "", "choices": ["the film", "film the was was"], "answer": 1},
    {"prompt": "the", "choices": [" film", " film was warm and the plot was bright"], "answer": 0},
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GPT-2 with a tokenizer of bytes, trained for an epoch."""
    folder = tmp_path_factory.mktemp("likely")
    wanted = Wanted("byte_bpe", 300)
    backend, _ = train_tokenizer(lambda: TEXTS, wanted)
    write_tokenizer(backend, wanted.style.roles, False, folder / "tokenizer")
    data = folder / "texts.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    settings = {"data.cache": str(folder / "cache"), "train.epochs": 2, "train.lr": 3e-3, "train.precision": "float32",
                "model.width": 32, "model.heads": 2, "model.feed_forward": 64}  # fmt: skip
    run = train(data, out=folder / "run", task="causal_lm", model="gpt2-tiny", tokenizer=str(folder / "tokenizer"), set=settings)
    return run.folder / "bundle"


@pytest.fixture(scope="module")
def peer(bundle: Path) -> Callable[[str], tuple[list[float], list[int]]]:
    """The library's log-likelihood of each token of a text, where each token ends in the text, by the text alone."""
    model = transformers.AutoModelForCausalLM.from_pretrained(bundle).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(bundle)

    def told(text: str) -> tuple[list[float], list[int]]:
        made = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        ids = [tokenizer.bos_token_id, *made["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            log_p = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        return [float(log_p[k, ids[k + 1]]) for k in range(len(ids) - 1)], [end for _, end in made["offset_mapping"]]

    return told


def test_likelihoods_are_the_librarys(bundle: Path, peer: Any) -> None:
    opened = Bundle.open(bundle)
    asked = [(q["prompt"], choice, "here") for q in QUESTIONS for choice in q["choices"]]
    found = likelihoods(opened, asked)
    for (prompt, choice, _), own in zip(asked, found.tolist(), strict=True):
        each, ends = peer(prompt + choice)
        wanted = [p for p, end in zip(each, ends, strict=False) if end > len(prompt)]
        assert own == pytest.approx([sum(wanted), len(wanted), len(choice.encode())], abs=1e-5)
        assert len(wanted) >= 1


def test_accuracy_is_that_of_the_librarys_likelihoods(
    bundle: Path, peer: Any, write: Callable[..., str], cli: Callable[..., Any]
) -> None:
    """By the sum, over tokens and over bytes: of the last question a short choice has the greater sum, a long one mean."""
    right = [0, 0, 0]
    for q in QUESTIONS:
        answer = q["answer"] if isinstance(q["answer"], int) else q["choices"].index(q["answer"])
        sums = []
        for choice in q["choices"]:
            each, ends = peer(q["prompt"] + choice)
            own = [p for p, end in zip(each, ends, strict=False) if end > len(q["prompt"])]
            sums.append((sum(own), sum(own) / len(own), sum(own) / len(choice.encode())))
        for way in range(3):
            right[way] += max(range(len(sums)), key=lambda i: sums[i][way]) == answer
    data = write("choices.jsonl", QUESTIONS)
    ask = ("evaluate", bundle, "--data", data, "--text", "prompt", "--choices", "choices", "--label", "answer")
    found = json.loads(cli(*ask, "--json").out)
    names = ("accuracy", "accuracy_per_token", "accuracy_per_byte")
    assert [found[name] for name in names] == pytest.approx([n / 6 for n in right])
    assert found["examples"] == 6 and found["chance"] == pytest.approx((5 / 2 + 1 / 3) / 6)
    assert f"    accuracy  {right[0] / 6:.4f}" in cli(*ask).out
    assert len(set(right)) > 1, "sums and means choose differently here"


def test_the_perplexity_of_a_file_is_the_librarys(bundle: Path, peer: Any, write: Callable[..., str]) -> None:
    texts = TEXTS[:20]
    scores = Bundle.open(bundle).evaluate(write("texts.jsonl", [{"text": t} for t in texts]))
    told = [p for text in texts for p in peer(text)[0]]
    size = sum(len(text.encode()) for text in texts)
    assert scores["tokens"] == len(told) and scores["loss"] == pytest.approx(-sum(told) / len(told), abs=1e-5)
    assert scores["perplexity"] == pytest.approx(math.exp(-sum(told) / len(told)), rel=1e-5)
    assert scores["bits_per_byte"] == pytest.approx(-sum(told) / size / math.log(2), rel=1e-5)
    assert scores["perplexity_per_byte"] == pytest.approx(math.exp(-sum(told) / size), rel=1e-5)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "x", "choices": [" a"], "answer": 0}, r"c.jsonl line 2: 'choices' is \[' a'\], not two texts or more"),
    ({"prompt": "x", "choices": "a;b", "answer": 0}, r"line 2: 'choices' is 'a;b', not two texts or more. Write it as a list"),
    ({"prompt": "x", "choices": [" a", " b"], "answer": 2}, r"line 2: the label 'answer' is 2, none of the choices. .* 0 to 1"),
    ({"prompt": "x", "choices": [" a", " b"], "answer": True}, r"line 2: the label 'answer' is True, none of the choices"),
    ({"prompt": "x", "choices": [" \ud800", " b"], "answer": 0}, r"line 2: 'choices' holds half of a character"),
    ({"prompt": "x", "choices": [" a", ""], "answer": 0}, r"line 2: a choice has no token"),
    (
        {"prompt": "film " * 1200, "choices": [" a", " b"], "answer": 0},
        r"line 2: prompt and choice have \d+ tokens, and 512 are",
    ),
    ({"prompt": None, "choices": [" a", " b"], "answer": 0}, r"line 2: the text 'prompt' is null"),
]


@pytest.mark.parametrize(("row", "words"), BAD, ids=lambda x: str(x)[:40])
def test_what_is_no_question(row: dict[str, Any], words: str, bundle: Path, write: Callable[..., str]) -> None:
    from trainformer.core.config import DataSettings

    data = write("c.jsonl", [QUESTIONS[0], row])
    with pytest.raises(UserError, match=words):
        Bundle.open(bundle).evaluate(data, DataSettings(text="prompt", label="answer"), "choices")


def test_another_column_and_another_task(bundle: Path, trained: Path, write: Callable[..., str], cli: Callable[..., Any]) -> None:
    data = write("c.jsonl", QUESTIONS)
    done = cli("evaluate", bundle, "--data", data, "--text", "prompt", "--choices", "choice", "--label", "answer")
    assert done.code == 2 and "no column 'choice' (--choices). Did you mean 'choices'?" in done.err
    done = cli("evaluate", trained / "bundle", "--data", data, "--choices", "choices")
    assert done.code == 2 and "its task is text_classification, and choices are judged by a model" in done.err
