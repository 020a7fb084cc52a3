"""Tokenizers that are trained from texts: every kind, as the transformers library opens it; Chinese; what is refused."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from trainformer.core.errors import UserError
from trainformer.data.special_tokens import STYLES
from trainformer.data.tokens import HubTokens
from trainformer.data.vocabulary import Wanted, train
from trainformer.data.vocabulary_report import report, script

PEOPLE, DEEDS, THINGS = json.loads((Path(__file__).parents[1] / "phrases.json").read_text(encoding="utf-8")).values()
PAIRS = [
    {"source": f"{p[0]} {d[0]} {t[0]}, said no. {i}.", "target": f"{p[1]}{d[1]}{t[1]}，是第{i}号。"}
    for i, (p, d, t) in enumerate((p, d, t) for p in PEOPLE for d in DEEDS for t in THINGS)
]
ENGLISH, CHINESE = [r["source"] for r in PAIRS], [r["target"] for r in PAIRS]
BOTH = [*ENGLISH, *CHINESE]
NATURAL = [f"{text}, {person}{end} {person} {text}" for i, language in enumerate((ENGLISH, CHINESE)) for text in language
           for person in (PEOPLE[len(text) % 5][i],) for end in "!?,."]  # fmt: skip
"""Words that are followed by this and by that, as in texts that people write: Unigram looks for pieces that are."""
KINDS = ("wordpiece", "bpe", "byte_bpe", "unigram")
SIZES = {"wordpiece": 250, "bpe": 200, "byte_bpe": 400, "unigram": 240}


def made(kind: str, texts: list[str] = BOTH, **more: Any) -> Any:
    return train(lambda: texts, Wanted(kind, more.pop("size", SIZES.get(kind, 0)), **more))[0]


@pytest.fixture
def folder(cli: Callable[..., Any], write: Any, tmp_path: Path) -> Callable[..., Path]:
    """`folder("bpe", "--like", "t5")`: the folder of a tokenizer that the command has trained on both columns."""

    def make(kind: str, *words: str) -> Path:
        data, out = write("pairs.jsonl", PAIRS), tmp_path / f"tok-{kind}-{'-'.join(words)}"
        done = cli("tokenizer", "train", "--data", data, "--text", "source", "--text", "target", "--kind", kind,
                   "--size", SIZES[kind], "--out", out, *words)  # fmt: skip
        assert done.code == 0, done.err
        return out

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_opens_the_folder_with_equal_ids(kind: str, folder: Callable[..., Path]) -> None:
    out = folder(kind)
    theirs, ours = transformers.AutoTokenizer.from_pretrained(out), HubTokens.load(str(out))
    assert theirs.is_fast and len(theirs) == json.loads((out / "report.json").read_text())["settings"]["size"]
    for text in ("the driver buys an old book", "医生找到报纸。", "the 学生 reads, no. 77"):
        assert theirs(text)["input_ids"] == ours.wrap(ours.pieces([text])[0])[0]
    pair = theirs("the doctor", "医生")
    ids, kinds = ours.wrap(*ours.pieces(["the doctor", "医生"]))
    assert pair["input_ids"] == ids
    assert ("token_type_ids" in pair) == (kind == "wordpiece") and pair.get("token_type_ids", kinds) == kinds


def test_special_tokens_stand_where_each_model_wants_them(folder: Callable[..., Path]) -> None:
    bert = transformers.AutoTokenizer.from_pretrained(folder("wordpiece"))
    assert [bert.pad_token_id, bert.unk_token_id, bert.cls_token_id, bert.sep_token_id, bert.mask_token_id] == [0, 1, 2, 3, 4]
    assert bert("医生", "买")["input_ids"][0] == 2 and bert("医生", "买")["input_ids"].count(3) == 2
    assert bert("医生", "买")["token_type_ids"] == [0, 0, 0, 0, 1, 1]
    roberta = transformers.AutoTokenizer.from_pretrained(folder("byte_bpe", "--like", "roberta"))
    assert [roberta.bos_token_id, roberta.pad_token_id, roberta.eos_token_id, roberta.unk_token_id] == [0, 1, 2, 3]
    assert roberta.mask_token_id == 399 and roberta("the", "the")["input_ids"].count(2) == 3
    gpt2 = transformers.AutoTokenizer.from_pretrained(folder("byte_bpe"))
    assert gpt2.eos_token_id == gpt2.bos_token_id == 399 and 399 not in gpt2("the doctor")["input_ids"]
    t5 = transformers.AutoTokenizer.from_pretrained(folder("unigram"))
    assert [t5.pad_token_id, t5.eos_token_id, t5.unk_token_id] == [0, 1, 2]
    assert [t5.convert_tokens_to_ids(f"<extra_id_{i}>") for i in (0, 1, 99)] == [239, 238, 140]
    ids = t5("the doctor")["input_ids"]
    assert ids[-1] == 1 and t5.decode(ids, skip_special_tokens=True) == "the doctor"
    marian = transformers.AutoTokenizer.from_pretrained(folder("bpe"))
    assert [marian.eos_token_id, marian.unk_token_id, marian.pad_token_id] == [0, 1, 199]


@pytest.mark.parametrize("kind", KINDS)
def test_words_of_both_languages_are_learnt_and_never_run_into_each_other(kind: str) -> None:
    backend = made(kind, NATURAL, size=SIZES[kind] + (200 if kind == "unigram" else 100), like="bert")
    mixed = "the teacher买newspaper老师"
    covered = [mixed[a:b] for a, b in backend.encode(mixed, add_special_tokens=False).offsets]
    assert all(len({script(c) for c in piece if c.isalpha()}) <= 1 for piece in covered)
    assert len(backend.encode("the teacher", add_special_tokens=False).ids) <= 3
    if kind in ("bpe", "unigram"):
        assert len(backend.encode("我的朋友", add_special_tokens=False).ids) < 4, "words are found inside a run"
    if kind == "wordpiece":
        assert backend.encode("我的朋友", add_special_tokens=False).tokens == list("我的朋友"), "character by character, as BERT"


@pytest.mark.parametrize("kind", ["bpe", "byte_bpe", "unigram"])
def test_what_is_encoded_comes_back(kind: str) -> None:
    backend = made(kind)
    for text in (*BOTH[::7], "my friend，reads 报纸。"):
        assert backend.decode(backend.encode(text).ids) == text
    if kind == "byte_bpe":
        odd = "Ünïcødé\n  two  spaces\t😀 龘"
        assert backend.decode(backend.encode(odd).ids) == odd


@pytest.mark.parametrize("kind", KINDS)
def test_equal_texts_give_equal_bytes_in_another_process(kind: str) -> None:
    code = ("import sys, json, hashlib; from trainformer.data.vocabulary import Wanted, train\n"
            "texts, kind, size = json.load(sys.stdin)\n"
            "print(hashlib.sha256(train(lambda: texts, Wanted(kind, size))[0].to_str().encode()).hexdigest())")  # fmt: skip
    size = SIZES[kind] + 10
    found = {
        subprocess.run([sys.executable, "-c", code], input=json.dumps([BOTH, kind, size]), text=True, check=True,
                       capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(found) == 1


def test_the_joint_vocabulary_knows_both_columns_and_the_report_tells_them_apart() -> None:
    joint, alone = made("unigram", size=350), made("unigram", ENGLISH, size=250)
    unknown = joint.token_to_id("<unk>")
    lines = report(joint, unknown, {"source": ENGLISH, "target": CHINESE})
    assert [(x["column"], x["script"], x["texts"]) for x in lines] == [
        ("source", "other", 100), ("target", "Han", 100), ("all columns", "all", 200)]  # fmt: skip
    assert [x["unknown_share"] for x in lines] == [0, 0, 0] and [x["decoded_share"] for x in lines] == [1, 1, 1]
    lost = report(alone, alone.token_to_id("<unk>"), {"target": CHINESE})[0]
    assert lost["unknown_characters_share"] > 0.5 and lost["decoded_share"] == 0


def test_a_report_by_hand() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "film": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    (line,) = report(backend, 0, {"text": ["a film", "a fine film"]})
    expected = {"column": "text", "script": "other", "texts": 2, "characters": 17, "tokens": 5,
                "tokens_a_character": 5 / 17, "bytes_a_token": 17 / 5, "unknown_share": 1 / 5,
                "unknown_characters_share": 4 / 17, "decoded_share": 0.5}  # fmt: skip
    assert line == expected
    mixed = report(backend, 0, {"text": ["a film", "电影好看"]})
    assert [x["script"] for x in mixed] == ["all", "Han", "other"] and mixed[1]["bytes_a_token"] == 12


def test_rare_characters_are_left_out_where_the_alphabet_is_large_and_that_is_said() -> None:
    common = [chr(0x4E00 + i) for i in range(100)]
    texts = ["".join(common)] * 100 + [chr(0x5000 + i) for i in range(4)]
    backend, said = train(lambda: texts, Wanted("bpe", 150))
    assert said[0] == "left out: 4 of 104 characters, 0.040% of what is written; they are unknown"
    assert "<unk>" in backend.encode(chr(0x5000)).tokens and backend.get_vocab_size() <= 150


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(UserError, match=r"no text in it to train"):
        train(lambda: ["", "  "], Wanted("bpe", 100))
    with pytest.raises(UserError, match=r"--size: 40 is too small: characters and special tokens alone are .* At least"):
        made("bpe", size=40)
    with pytest.raises(UserError, match=r"100 is too small.* 257. At least 257"):
        made("byte_bpe", size=100)
    with pytest.raises(UserError, match=r"no kind 'unigrm' of tokenizer. Did you mean 'unigram'"):
        made("unigrm", size=100)
    with pytest.raises(UserError, match=r"Did you mean 'bert'"):
        made("wordpiece", like="brt")
    with pytest.raises(UserError, match=r"gpt2 has no token for what is unknown"):
        made("unigram", like="gpt2")
    assert set(STYLES) == {"bert", "roberta", "gpt2", "t5", "marian"}


def test_the_command_refuses_and_reports(
    cli: Callable[..., Any], write: Any, tmp_path: Path, folder: Callable[..., Path]
) -> None:
    data, out = write("rows.jsonl", [*PAIRS, {"source": None, "target": "x"}]), tmp_path / "tok"
    words = ("tokenizer", "train", "--data", data, "--out", out, "--size", "300", "--kind", "bpe")
    missing = cli(*words, "--text", "sorce")
    assert (missing.code, missing.err.splitlines()[-1]) == (
        2, f"error: {data}: no column 'sorce' (--text). Did you mean 'source'?")  # fmt: skip
    null = cli(*words, "--text", "source")
    assert null.code == 2 and f"{data} line 101: the text 'source' is null" in null.err
    assert (
        cli(*words, "--text", "target", "--text", "target").err.splitlines()[-1].startswith("error: --text: the column 'target'")
    )
    assert not out.exists()
    empty = write("empty.csv", 'text\n" "\n""\n')
    assert "there is no text in it to train a tokenizer on" in cli(*words[:3], empty, *words[4:]).err
    there = folder("bpe")
    again = cli(*words[:4], "--text", "target", "--out", there)
    assert again.code == 2 and "it exists; nothing is written over" in again.err
    shown = cli("tokenizer", "check", there, "--data", write("pairs.jsonl", PAIRS), "--text", "target", "--json")
    (line,) = json.loads(shown.out)
    assert (line["column"], line["script"], line["unknown_share"]) == ("target", "Han", 0)


def test_csv_and_parquet_are_read_and_a_lone_column_is_found(cli: Callable[..., Any], write: Any, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = write("rows.csv", "text,label\n" + "".join(f'"{t}",1\n' for t in ENGLISH))
    columns = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ENGLISH}), columns)
    files = []
    for name, data in (("csv", table), ("parquet", str(columns))):
        done = cli(
            "tokenizer", "train", "--data", data, "--kind", "wordpiece", "--size", 200, "--lowercase", "--out", tmp_path / name
        )
        assert done.code == 0 and "text: column 'text'" in done.err, done.err
        files.append((tmp_path / name / "tokenizer.json").read_bytes())
    assert files[0] == files[1] and b"Lowercase" not in files[0]
    assert HubTokens.load(str(tmp_path / "csv")).pieces(["THE DOCTOR"]) == HubTokens.load(str(tmp_path / "csv")).pieces(
        ["the doctor"]
    )
