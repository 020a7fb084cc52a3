"""Masked language modelling: the library's loss on the same masks, draws that repeat, and the two commands of continued
pre-training and fine-tuning from it."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from trainformer import train
from trainformer.bundle import Bundle
from trainformer.core.batch import Batch, cut, join, pack
from trainformer.core.errors import UserError
from trainformer.core.roles import Decision
from trainformer.core.seeds import generator
from trainformer.data.tokens import HubTokens, quiet, write_tokenizer
from trainformer.data.vocabulary import Wanted
from trainformer.data.vocabulary import train as train_tokenizer
from trainformer.metrics.likelihood import COLUMNS
from trainformer.models.pretrained import Pretrained
from trainformer.tasks.masked_lm import MaskedLm

PEOPLE, DEEDS, THINGS = json.loads((Path(__file__).parents[1] / "phrases.json").read_text(encoding="utf-8")).values()
EVERY = [(p, d, t) for p in PEOPLE for d in DEEDS for t in THINGS]
TEXTS = [f"{p[i]} {d[i]} {t[i]}. {p[i]} {d[1 - i]} {t[i]} unreadably!" for i in (0, 1) for p, d, t in EVERY]
QUIET = {"train.precision": "float32", "train.probe": True, "model.dropout": 0}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random BERT of two layers and width 32 with a head for hidden tokens, and a tokenizer of wordpieces."""
    folder = tmp_path_factory.mktemp("models") / "bert"
    wanted = Wanted("wordpiece", 180)
    backend, _ = train_tokenizer(lambda: TEXTS, wanted)
    write_tokenizer(backend, wanted.style.roles, True, folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=backend.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=96, initializer_range=0.2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def rows(write: Any) -> str:
    return write("texts.jsonl", [{"text": text} for text in TEXTS])


def ready(folder: Path, limit: int = 96, **settings: Any) -> tuple[MaskedLm, HubTokens, list[Any]]:
    """A task that has met the tokenizer, and the texts as it encodes them, as the cache would give them back."""
    task, tokens = MaskedLm(**settings), HubTokens.load(str(folder))
    task.meet(tokens)
    examples = [task.parse((text,), ..., i, 1.0) for i, text in enumerate(TEXTS)]
    pieces = tokens.pieces(TEXTS)
    return task, tokens, [task.encode(e, [p], tokens, limit) for e, p in zip(examples, pieces, strict=True)]


def loop(folder: Path, data: str, tmp_path: Path, words: list[str]) -> Any:
    from trainformer import build
    from trainformer.build import Run
    from trainformer.core import config

    sets = [f"{k}={json.dumps(v)}" for k, v in QUIET.items()] + ["train.lr=0.001", f"data.cache={tmp_path / 'cache'}", *words]
    values = config.override({"task": {"name": "masked_lm"}, "method": ["llrd"]}, sets)
    values["model"] |= {"name": str(folder)}
    values["data"] |= {"train": data, "test_share": 0}
    run = Run(config.parse(values), tmp_path / "run", lambda line: None)
    checked, _, _, prepared = build.rows(run, labelled=True)
    return build.engine(run, checked, prepared)[0]


def test_what_is_stored_is_the_word_of_each_token_and_the_bytes(encoder: Path) -> None:
    _, tokens, items = ready(encoder)
    for text, item in zip(TEXTS, items, strict=True):
        ids, words = item.parts[0].ids.tolist(), item.target.tolist()
        assert len(words) == len(ids) + 1 and words[-1] == len(text.encode())
        assert words[0] == words[-2] == -1 and ids == tokens.wrap(tokens.pieces([text])[0])[0]
        for i in range(2, len(ids) - 1):
            follows = tokens.backend.id_to_token(ids[i]).startswith("##")
            assert (words[i] == words[i - 1]) == follows, "a piece that goes on is of the word before it"


def test_long_texts_become_sequences_and_nothing_is_cut(encoder: Path) -> None:
    _, tokens, whole = ready(encoder)
    _, _, short = ready(encoder, limit=10)
    assert any(len(item.parts[0].lengths) > 2 for item in short)
    for one, other in zip(whole, short, strict=True):
        special = tokens.special_ids
        assert [i for i in one.parts[0].ids.tolist() if i not in special] == [
            i for i in other.parts[0].ids.tolist() if i not in special
        ]
        assert max(other.parts[0].lengths) <= 10 and other.cut_tokens == 0


def test_masks_repeat_for_the_same_place_and_differ_between_epochs(encoder: Path, rows: str, tmp_path: Path) -> None:
    engine = loop(encoder, rows, tmp_path, ["train.epochs=3"])
    again = loop(encoder, rows, tmp_path, ["train.epochs=3"])
    an_epoch = engine.plan.steps_an_epoch
    seen: dict[int, set[str]] = {}
    for step in range(3 * an_epoch):
        for one, other in zip(engine.plan[step], again.plan[step], strict=True):
            assert torch.equal(one.parts[0].ids, other.parts[0].ids) and torch.equal(one.at, other.at)
            assert torch.equal(one.target, other.target) and one.units == other.units
            for item in one.examples:
                seen.setdefault(item.row, set()).add(str((item.parts[0].ids.tolist(), item.at.tolist())))
    assert sum(len(masks) for masks in seen.values()) / len(seen) > 2.5, "three epochs, three masks"
    picked = engine.plan[1][0]
    assert bool((picked.target != picked.parts[0].ids[picked.at]).any())


def test_the_loss_and_its_gradient_are_the_librarys_on_the_same_masked_batch(encoder: Path) -> None:
    task, _, items = ready(encoder)
    model, _, _ = Pretrained(name=str(encoder), dropout=0.0).load(task)
    given = pack([task.vary(item, generator(0, item.row)) for item in items[:24]])
    loss = task.loss(model(given), given).mean()
    loss.backward()
    with quiet():
        theirs = transformers.BertForMaskedLM.from_pretrained(encoder)
    part = given.parts[0]
    ids, mask = torch.zeros(24, part.longest, dtype=torch.long), torch.zeros(24, part.longest, dtype=torch.long)
    labels = torch.full((24, part.longest), -100)
    flat = torch.full((len(part.ids),), -100).index_copy(0, given.at, given.target)
    for row, (start, length) in enumerate(zip(part.starts, part.lengths, strict=False)):
        ids[row, :length], mask[row, :length], labels[row, :length] = (
            part.ids[start : start + length],
            1,
            flat[start : start + length],
        )
    expected = theirs(input_ids=ids, attention_mask=mask, labels=labels).loss
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    own, other = model.body.embed().weight.grad, theirs.bert.embeddings.word_embeddings.weight.grad
    assert own is not None and other is not None
    other[0] = own[0]  # the library's padding is read, ours is not there
    assert float((own - other).norm()) <= 1e-4 * float(other.norm())


def test_micro_batches_change_nothing(encoder: Path, rows: str, tmp_path: Path) -> None:
    """One step at once, in 3 and in 16 micro-batches of unequally many units: loss to 1e-6, gradient to 1e-5 of its length."""
    engine = loop(encoder, rows, tmp_path, ["train.micro_tokens=100000"])
    engine.model.train()
    whole, found = join(engine.plan[0]), []
    assert len({item.units for item in whole.examples}) > 1
    for pieces in (1, 3, 16):
        loss = engine.gradient(cut(whole, pieces))
        found.append((float(loss), torch.cat([p.grad.flatten() for p in engine.trained if p.grad is not None])))
        engine.optimizer.zero_grad(set_to_none=True)
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], abs=1e-6)
        assert (gradient - found[0][1]).norm() <= 1e-5 * found[0][1].norm()


def brute(folder: Path, tokens: HubTokens, ids: list[int], masks: list[list[int]]) -> tuple[float, int]:
    """Summed loss of the library's model at the masked places, one pass a mask, and how many there are."""
    with quiet():
        model = transformers.BertForMaskedLM.from_pretrained(folder).eval()
    total, count = 0.0, 0
    for places in masks:
        given = torch.tensor([[tokens.mask if i in places else t for i, t in enumerate(ids)]])
        with torch.no_grad():
            scores = model(input_ids=given).logits[0].log_softmax(-1)
        total -= sum(float(scores[i, ids[i]]) for i in places)
        count += len(places)
    return total, count


@pytest.mark.parametrize("score_all", [False, True])
def test_scores_are_the_librarys_and_the_same_each_time(encoder: Path, score_all: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    task, tokens, items = ready(encoder, score_all=score_all)
    model, _, _ = Pretrained(name=str(encoder)).load(task)
    model.eval()
    asked: list[Batch] = []
    forward = type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda self, batch: asked.append(batch) or forward(self, batch))
    with torch.no_grad():
        found = task.predict(model, pack(items[:3]))
    masks: list[list[list[int]]] = [[], [], []]
    for batch in asked:
        for item in batch.examples:
            assert bool((item.parts[0].ids[item.at] == tokens.mask).all()), "all are behind the mask"
            masks[item.row].append(item.at.tolist())
    for row in range(3):
        loss, count = brute(encoder, tokens, items[row].parts[0].ids.tolist(), masks[row])
        assert float(found[row, 0]) == pytest.approx(loss, abs=1e-4) and int(found[row, 1]) == count
        real = len(items[row].parts[0].ids) - 2
        assert (count == real) == score_all and len(told := [i for way in masks[row] for i in way]) == len(set(told))
        assert float(found[row, COLUMNS.index("bytes")]) == (len(TEXTS[row].encode()) if score_all else 0)
    with torch.no_grad():
        apart = torch.cat([task.predict(model, pack([item])) for item in items[:3]])
    assert torch.allclose(found, apart, atol=1e-4), "whatever stands beside it"
    metric = task.metric()
    metric.add(found, asked[0])
    scores = metric.value()
    assert scores["perplexity"] == pytest.approx(math.exp(float(found[:, 0].sum() / found[:, 1].sum())), rel=1e-5)
    if score_all:
        size = sum(len(t.encode()) for t in TEXTS[:3])
        assert scores["bits_per_byte"] == pytest.approx(float(found[:, 0].sum()) / size / math.log(2), rel=1e-5)
    answer = task.answer(found, Decision())[0]
    assert answer["score"] == pytest.approx(math.exp(float(found[0, 0] / found[0, 1])), rel=1e-5)


def test_an_empty_text_has_one_unit_that_weighs_nothing(encoder: Path) -> None:
    task, tokens, _ = ready(encoder)
    item = task.encode(task.parse(("",), ..., 0, 1.0), [[]], tokens, 96)
    varied = task.vary(item, generator(0))
    assert (varied.units, varied.weight, varied.at.tolist()) == (1, 0.0, [0])
    model, _, _ = Pretrained(name=str(encoder)).load(task)
    with torch.no_grad():
        assert task.predict(model.eval(), pack([item])).tolist() == [[0.0] * 6]


@pytest.mark.parametrize("sentences", ["next", "order"])
def test_pairs_of_sentences(encoder: Path, sentences: str) -> None:
    task, tokens, items = ready(encoder, sentences=sentences)
    first, second = items[5].parts[0].lengths
    ids = items[5].parts[0].ids.tolist()
    whole = tokens.wrap(*tokens.pieces([TEXTS[5].split(". ")[0] + ". ", TEXTS[5].split(". ")[1]]))
    assert (ids[:first], items[5].parts[0].kinds.tolist()[:first]) == whole
    if sentences == "order":
        half = whole[0][1:-1]
        middle = half.index(tokens.wrap([])[0][-1])
        assert ids[first:] == tokens.wrap(half[middle + 1 :], half[:middle])[0]
    seen = [task.vary(items[5], generator(seed)) for seed in range(200)]
    labels = torch.tensor([int(e.target[0]) for e in seen])
    assert abs(float(labels.double().mean()) - 0.5) < 4 * 0.5 / math.sqrt(200)
    assert all(e.at[0] == 0 and e.parts[0].lengths == [(first, second)[int(e.target[0])]] for e in seen)
    assert all(e.units == len(e.at) == len(e.target) for e in seen)


def test_from_a_file_to_a_bundle_that_the_library_opens_and_on_to_a_classifier(
    encoder: Path, rows: str, tmp_path: Path, cli: Callable[..., Any], write: Any
) -> None:
    """The two commands."""
    sets = [
        word for k, v in (QUIET | {"train.lr": 2e-3, "train.epochs": 4}).items() for word in ("--set", f"{k}={json.dumps(v)}")
    ]
    done = cli(
        "train", "--task", "masked_lm", "--data", rows, "--text", "text", "--model", encoder, "--out", tmp_path / "run", *sets
    )
    assert done.code == 0, done.err
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    before = scores["baselines"][0]
    assert before["name"] == "not fine-tuned" and scores["validation"]["perplexity"] < 0.7 * before["validation"]["perplexity"]
    bundle, folder = Bundle.open(tmp_path / "run" / "bundle"), tmp_path / "run" / "bundle"
    assert bundle.facts["opens_in_transformers"] and bundle.evaluate(rows)["examples"] == len(TEXTS)
    assert bundle.predict(TEXTS[0])[0]["score"] == pytest.approx(bundle.predict([TEXTS[3], TEXTS[0]])[1]["score"], rel=1e-5)
    with quiet():
        theirs = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    task, _, items = ready(folder)
    given = pack([task.vary(item, generator(1, item.row)) for item in items[:8]])
    with torch.no_grad():
        ours = bundle.model(given)
        part = given.parts[0]
        alone = [theirs(input_ids=part.ids[None, a : a + n]).logits[0] for a, n in zip(part.starts, part.lengths, strict=False)]
    assert torch.allclose(ours, torch.cat(alone)[given.at], atol=1e-5)
    card = (folder / "README.md").read_text()
    assert "AutoModelForMaskedLM.from_pretrained" in card and "pipeline_tag: fill-mask" in card
    labelled = write("labelled.jsonl", [{"text": t, "label": "zh" if i >= 100 else "en"} for i, t in enumerate(TEXTS)])
    words = ("--text", "text", "--label", "label", "--model", folder, "--out", tmp_path / "then", *sets)
    words += ("--set", "train.probe=false")  # a probe can be right about all 20 validation rows, and would then be what is kept
    then = cli("train", "--task", "text_classification", "--data", labelled, *words)
    assert then.code == 0, then.err
    assert json.loads((tmp_path / "then" / "scores.json").read_text())["test_accuracy"] > 0.9


def test_a_model_without_a_mask_gets_one_which_its_bundle_knows(encoder: Path, rows: str, tmp_path: Path) -> None:
    """The new one is a token more than there were, and begins as the mean of the table."""
    folder = tmp_path / "maskless"
    shutil.copytree(encoder, folder)
    whole = json.loads((folder / "tokenizer.json").read_text())
    whole["added_tokens"] = [token for token in whole["added_tokens"] if token["content"] != "[MASK]"]
    whole["model"]["vocab"]["[GONE]"] = whole["model"]["vocab"].pop("[MASK]")
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    told = json.loads((folder / "tokenizer_config.json").read_text())
    del told["mask_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    task, tokens = MaskedLm(), HubTokens.load(str(folder))
    before, size = tokens.fingerprint, tokens.vocabulary
    task.meet(tokens)
    assert (task.mask_id, tokens.vocabulary, size in tokens.special_ids) == (
        size,
        size + 1,
        True,
    ) and tokens.fingerprint != before
    model, _, said = Pretrained(name=str(folder)).load(task)
    assert said[1] == f"mask: token {size}, new to this model; its embedding starts as the mean of the {size} others"
    with quiet():
        theirs = transformers.BertForMaskedLM.from_pretrained(encoder)
    old, new = theirs.bert.embeddings.word_embeddings.weight, model.body.embed().weight
    assert torch.equal(new[:size], old) and torch.allclose(new[size], old.mean(0), atol=1e-7)
    found = train(rows, out=tmp_path / "run", task="masked_lm", model=str(folder), set=QUIET | {"train.epochs": 1})
    bundle = Bundle.open(found.folder / "bundle")
    again = HubTokens.load(str(found.folder / "bundle"))
    assert again.mask == size and bundle.model.body.embed().num_embeddings == size + 1
    assert bundle.predict(TEXTS[0])[0]["score"] > 1


def test_a_new_model_has_a_row_for_a_mask_that_its_tokenizer_does_not_know(rows: str, tmp_path: Path) -> None:
    wanted = Wanted("unigram", 180)
    backend, _ = train_tokenizer(lambda: TEXTS, wanted)
    write_tokenizer(backend, wanted.style.roles, True, tmp_path / "tok")
    tokens = HubTokens.load(str(tmp_path / "tok"))
    size = tokens.vocabulary
    assert tokens.mask is None
    settings = QUIET | {"model.tokenizer": str(tmp_path / "tok"), "train.epochs": 1}
    found = train(rows, out=tmp_path / "run", task="masked_lm", model="bert-tiny", set=settings)
    bundle = Bundle.open(found.folder / "bundle")
    again = HubTokens.load(str(found.folder / "bundle"))
    assert again.mask == size and bundle.model.body.embed().num_embeddings == size + 1
    assert bundle.predict(TEXTS[0])[0]["score"] > 1


@pytest.mark.parametrize("words", [{}, {"task.sentences": "next", "task.score_all": True}])
def test_a_run_that_was_broken_off_ends_in_the_same_bits(
    encoder: Path, rows: str, tmp_path: Path, words: dict[str, Any], broken_off: Callable[..., None]
) -> None:
    settings = {**QUIET, "model.dropout": 0.1, "data.cache": str(tmp_path / "cache"), "train.epochs": 2, **words}
    broken_off(rows, 13, task="masked_lm", model=str(encoder), set=settings)


def test_bad_input(encoder: Path, rows: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(encoder, other)
    wanted = Wanted("byte_bpe", 300, "bert")
    backend, _ = train_tokenizer(lambda: TEXTS, wanted)
    write_tokenizer(backend, wanted.style.roles, True, other)
    with pytest.raises(UserError, match=r"its tokenizer's tokens go up to 299, and its table of embeddings has \d+ rows"):
        train(rows, out=tmp_path / "a", task="masked_lm", model=str(other))
    with pytest.raises(UserError, match=r"mask_share"):
        train(rows, out=tmp_path / "b", task="masked_lm", model=str(encoder), set={"task.mask_share": 0.95})
    with pytest.raises(UserError, match=r"no column 'txt' \(--text\). Did you mean 'text'"):
        train(rows, out=tmp_path / "c", task="masked_lm", model=str(encoder), text="txt")
    assert not any((tmp_path / name).exists() for name in "bc") and not (tmp_path / "a" / "bundle").exists()
