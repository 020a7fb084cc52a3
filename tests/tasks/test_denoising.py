"""Filling gaps: what is asked and told, by hand; the library's loss on the same gaps; draws that repeat; runs that end in the
same bits; and the way from plain texts to a translator."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from trainformer.bundle import Bundle
from trainformer.core.batch import Encoded, pack
from trainformer.core.errors import UserError
from trainformer.core.seeds import generator
from trainformer.data.gaps import sizes
from trainformer.data.tokens import HubTokens, write_tokenizer
from trainformer.data.vocabulary import Wanted
from trainformer.data.vocabulary import train as train_tokenizer
from trainformer.models.own import Own
from trainformer.tasks.denoising import Denoising

BEGIN, END, FIRST = 1, 2, 127
WORDS = ["good", "fine", "lovely", "warm", "bright", "funny", "bad", "dull"]
TEXTS = [" ".join(WORDS[(i + k * (1 + i % 2)) % 8] for k in range(4 + i % 9)) for i in range(160)]
"""Words in the order of the list, or every other one: what stands in a gap follows from what is around it."""
SMALL = {"model.width": 32, "model.heads": 2, "model.feed_forward": 64, "train.precision": "float32", "train.step_rows": 16}


class Letters:
    """Each letter is a token; a text ends with END; 127, 126, 125 mark gaps."""

    begin, end, vocabulary = BEGIN, END, 128
    sentinels: tuple[int, ...] = (FIRST, FIRST - 1, FIRST - 2)
    specials: dict[int, int] = {1: 1, 2: 2}  # noqa: RUF012 (never changed; the protocol asks for an attribute)

    def wrap(self, *texts: list[int]) -> tuple[list[int], list[int]]:
        ids = [i for text in texts for i in [*text, END]]
        return ids, [0] * len(ids)

    def text(self, ids: Any) -> str:
        return "".join(chr(i) for i in ids if 2 < i < FIRST - 2)


LETTERS: Any = Letters()


def encoded(text: str, limit: int = 64, **settings: Any) -> tuple[Denoising, Encoded]:
    task = Denoising(**settings)
    task.meet(LETTERS)
    return task, task.encode(task.parse((text,), ..., 3, 2.0), [[ord(c) for c in text]], LETTERS, limit)


def filled(item: Encoded) -> str:
    """The text that stands in an example's sources when each mark gives way to what its target tells, letter by letter."""
    found = ""
    source, told = item.parts[0], item.target.split(item.parts[1].lengths)
    for given, wanted in zip(source.ids.split(source.lengths), told, strict=True):
        rest = wanted.tolist()
        assert given[-1] == END and rest.pop() == END
        for token in given[:-1].tolist():
            if token <= FIRST - 3:
                found += chr(token)
                continue
            assert rest.pop(0) == token, "marks come in the same order"
            while rest and rest[0] <= FIRST - 3:
                found += chr(rest.pop(0))
        assert not rest
    return found


def test_a_text_of_two_tokens_by_hand() -> None:
    """One of two goes: there are two ways to do that, and both come."""
    task, item = encoded("ab")
    seen = set()
    for one in (item, *(task.vary(item, generator(seed)) for seed in range(20))):
        source, target = one.parts
        given, gone = ([97, FIRST, END], 98) if source.ids[0] == 97 else ([FIRST, 98, END], 97)
        seen.add(gone)
        assert source.ids.tolist() == given and target.ids.tolist() == [BEGIN, FIRST, gone]
        assert one.target.tolist() == [FIRST, gone, END]
        assert (one.units, one.row, one.weight, one.cut_tokens, one.kind) == (3, 3, 2.0, 0, "")
    assert seen == {97, 98}


def test_a_text_without_room_for_a_gap_stays_whole() -> None:
    for text in ("", "a"):
        task, item = encoded(text)
        for one in (item, task.vary(item, generator(0))):
            assert one.parts[0].ids.tolist() == [*map(ord, text), END] and one.parts[1].ids.tolist() == [BEGIN]
            assert one.target.tolist() == [END]


def test_gaps_differ_between_draws_and_lengths_do_not() -> None:
    """20 letters, half of them in gaps of 2: 10 letters in 3 gaps, as many as there are marks."""
    task, item = encoded("abcdefghijklmnopqrst", gap_share=0.5, gap_tokens=2.0)
    draws = [task.vary(item, generator(seed)) for seed in range(20)]
    for one in (item, *draws):
        assert filled(one) == "abcdefghijklmnopqrst"
        assert one.parts[0].lengths == [10 + 3 + 1] and one.parts[1].lengths == [10 + 3 + 1] and one.units == 14
    assert len({str(one.target.tolist()) for one in draws}) > 15
    again = task.vary(draws[3], generator(7))
    assert again.target.tolist() == draws[7].target.tolist(), "a draw follows from the text alone, not from gaps before"


def test_scoring_asks_the_same_each_time() -> None:
    one, other = (encoded("abcdefghijklmnopqrst", gap_share=0.4)[1] for _ in range(2))
    assert torch.equal(one.target, other.target) and torch.equal(one.parts[0].ids, other.parts[0].ids)


@pytest.mark.parametrize("share", [0.15, 0.5, 0.9])
def test_long_texts_become_pieces_and_nothing_is_cut(share: float) -> None:
    text = "".join(chr(97 + i % 26) for i in range(50))
    task, item = encoded(text, limit=12, gap_share=share, gap_tokens=1.0)
    assert len(item.parts[0].lengths) == len(item.parts[1].lengths) == 5 and item.cut_tokens == 0
    for one in (item, task.vary(item, generator(5))):
        assert filled(one) == text and max(*one.parts[0].lengths, *one.parts[1].lengths) <= 12
        gone, spans = sizes(10, share, 1.0, 3)
        assert one.parts[0].lengths == [10 - gone + spans + 1] * 5 and one.parts[1].lengths == [gone + spans + 1] * 5
        assert one.units == len(one.target) == 5 * (gone + spans + 1)


def test_what_was_written_is_shown_with_its_marks() -> None:
    task, _ = encoded("ab")
    assert task.text([BEGIN, FIRST, 97, 98, FIRST - 1, 99, END]) == "<extra_id_0> ab <extra_id_1> c"
    assert task.text([97, 98, END]) == "ab" and task.text([END]) == ""
    asked = task.prompt(task.parse(("ab",), ..., 0, 1.0), [[97, FIRST, 98]], LETTERS, 64)
    assert [part.ids.tolist() for part in asked.parts] == [[97, FIRST, 98, END], [BEGIN]]
    assert task.prompt(task.parse(("ab",), ..., 0, 1.0), [[97] * 9], LETTERS, 8).cut_tokens == 2


def test_bad_input() -> None:
    with pytest.raises(UserError, match=r"the text has <extra_id_1>, which marks a gap"):
        encoded("ab" + chr(FIRST - 1))
    none: Any = type("None", (Letters,), {"sentinels": ()})()
    with pytest.raises(UserError, match=r"no tokens that mark gaps .* Train one: trainformer tokenizer train --like t5"):
        Denoising().meet(none)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of the texts with T5's special tokens."""
    folder = tmp_path_factory.mktemp("tokenizers") / "t5"
    wanted = Wanted("bpe", 150, "t5")
    write_tokenizer(train_tokenizer(lambda: TEXTS, wanted)[0], wanted.style.roles, False, folder)
    return folder


@pytest.fixture
def rows(write: Any) -> str:
    found: str = write("texts.jsonl", [{"text": text} for text in TEXTS])
    return found


def test_the_loss_is_the_librarys_t5_on_the_same_gaps(tokenizer: Path, tmp_path: Path) -> None:
    """With labels that the library shifts itself, one text at a time."""
    tokens, task = HubTokens.load(str(tokenizer)), Denoising()
    assert tokens.backend.id_to_token(tokens.sentinels[0]) == "<extra_id_0>" and len(tokens.sentinels) == 100
    task.meet(tokens)
    chosen, _ = Own(name="t5-tiny", tokenizer=str(tokenizer), width=32, heads=2, feed_forward=64, dropout=0.0).resolve()
    torch.manual_seed(0)
    model, backbone, _ = chosen.load(task)
    with torch.no_grad():
        for parameter in model.parameters():  # new weights tell every token alike: move them, so that each counts
            parameter.add_(0.1 * torch.randn_like(parameter))
    backbone.save(model, tmp_path, task)
    peer = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    pieces = tokens.pieces(TEXTS[:12])
    examples = [task.parse((text,), ..., i, 1.0) for i, text in enumerate(TEXTS[:12])]
    items = [task.encode(example, [ids], tokens, 64) for example, ids in zip(examples, pieces, strict=True)]
    batch = pack([task.vary(item, generator(0, item.row)) for item in items])
    with torch.no_grad():
        own = task.loss(model.eval()(batch), batch).split([e.units for e in batch.examples])
        for item, ours in zip(batch.examples, own, strict=True):
            theirs = peer(input_ids=item.parts[0].ids[None].long(), labels=item.target[None]).loss
            assert float(ours.mean()) == pytest.approx(float(theirs), abs=1e-5)
    metric = task.metric()
    with torch.no_grad():
        metric.add(model(batch), batch)
    scores = metric.value()
    assert scores["loss"] == pytest.approx(float(torch.cat(list(own)).mean()), abs=1e-5)
    assert scores["perplexity"] == pytest.approx(math.exp(scores["loss"])) and "bits_per_byte" not in scores


def test_from_texts_to_a_bundle_and_on_to_a_translator(
    tokenizer: Path, rows: str, write: Any, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    """The two commands; the second begins with what the first has learnt, the head too."""
    sets = [word for k, v in (SMALL | {"train.epochs": 12, "train.lr": 3e-3}).items() for word in ("--set", f"{k}={v}")]
    done = cli("train", "--task", "denoising", "--data", rows, "--text", "text", "--model", "t5-tiny", "--tokenizer", tokenizer,
               "--out", tmp_path / "run", *sets)  # fmt: skip
    assert done.code == 0, done.err
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    untrained = scores["baselines"][0]["validation"]
    assert scores["validation"]["loss"] < 0.5 * untrained["loss"], scores
    bundle = Bundle.open(tmp_path / "run" / "bundle")
    again = json.loads(cli("evaluate", tmp_path / "run" / "bundle", "--data", rows, "--json").out)
    assert again == bundle.evaluate(rows) == bundle.evaluate(rows), "gaps follow from the texts alone"
    answer = cli("predict", tmp_path / "run" / "bundle", "good <extra_id_0> warm bright").answers[0]
    assert answer["label"].startswith("<extra_id_0> ")
    card = (tmp_path / "run" / "bundle" / "README.md").read_text()
    assert "AutoModelForSeq2SeqLM.from_pretrained" in card and "each marked `<extra_id_0>`" in card
    pairs = write("pairs.jsonl", [{"source": t, "target": " ".join(reversed(t.split()))} for t in TEXTS])
    then = cli("train", "--task", "seq2seq", "--data", pairs, "--text", "source", "--target", "target", "--model",
               tmp_path / "run" / "bundle", "--set", "train.epochs=1", "--set", "train.precision=float32", "--out",
               tmp_path / "then")  # fmt: skip
    assert then.code == 0 and "from bundle; its head is kept" in then.err, then.err


def test_epochs_differ_and_runs_do_not(tokenizer: Path, rows: str, tmp_path: Path) -> None:
    from trainformer import build
    from trainformer.api import configured
    from trainformer.build import Run

    def plan() -> Any:
        words = {"task": "denoising", "text": "text", "model": "t5-tiny", "tokenizer": str(tokenizer),
                 "set": SMALL | {"data.cache": str(tmp_path / "cache"), "train.epochs": 3}}  # fmt: skip
        run = Run(configured(None, {"train": rows}, words), tmp_path / "run", lambda line: None)
        checked, _, _, prepared = build.rows(run, labelled=True)
        return build.engine(run, checked, prepared)[0].plan

    one, other = plan(), plan()
    seen: dict[int, set[str]] = {}
    for step in range(3 * one.steps_an_epoch):
        for mine, theirs in zip(one[step], other[step], strict=True):
            assert torch.equal(mine.target, theirs.target) and torch.equal(mine.parts[0].ids, theirs.parts[0].ids)
            for item in mine.examples:
                seen.setdefault(item.row, set()).add(str((item.parts[0].ids.tolist(), item.target.tolist())))
                stored = one.rows[item.row]
                assert item.tokens == stored.tokens and item.units == stored.units, "as long as was foretold"
    assert max(map(len, seen.values())) == 3


def test_a_run_that_was_broken_off_ends_in_the_same_bits(
    tokenizer: Path, rows: str, tmp_path: Path, broken_off: Callable[..., None]
) -> None:
    settings = {**SMALL, "data.cache": str(tmp_path / "cache"), "train.epochs": 2}
    broken_off(rows, 9, task="denoising", model="t5-tiny", tokenizer=str(tokenizer), set=settings)


def test_what_is_refused_before_training(
    tokenizer: Path, tiny_model: Path, rows: str, write: Any, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    """An encoder, which cannot write; a tokenizer without marks; a text with marks of its own, by its line."""
    ask = ("train", "--task", "denoising", "--text", "text", "--out", tmp_path / "run", "--data")
    done = cli(*ask, rows, "--model", tiny_model)
    assert done.code == 2 and "it is an encoder, and denoising needs a model that writes." in done.err
    done = cli(*ask, rows, "--model", "t5-tiny", "--tokenizer", tiny_model)
    assert done.code == 2 and "its tokenizer has no tokens that mark gaps" in done.err
    marked = write("marked.jsonl", [*({"text": t} for t in TEXTS[:30]), {"text": "good <extra_id_5> warm"}])
    done = cli(*ask, marked, "--model", "t5-tiny", "--tokenizer", tokenizer)
    assert done.code == 2 and "marked.jsonl line 31: the text has <extra_id_5>, which marks a gap." in done.err
    assert not (tmp_path / "run").exists()
