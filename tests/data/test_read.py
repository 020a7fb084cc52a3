"""Every format gives the same rows with their lines; every broken file is refused with its place and a way out."""

import hashlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from trainformer.core.errors import MissingExtra, UserError
from trainformer.data import formats, lines
from trainformer.data.lines import guess
from trainformer.data.read import open_source

ROWS = [{"text": "a, b", "label": "x"}, {"text": "好\nzwei", "label": "y"}, {"text": "", "label": "z"}]
CSV = 'text,label\n"a, b",x\n"好\nzwei",y\n"",z\n'


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(given: Any) -> list[tuple[int, dict[str, Any]]]:
    return [(row.line, row.values) for row in open_source(given)]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv"])
def test_text_files_give_rows_and_lines(tmp_path: Path, ending: str, bom: bytes) -> None:
    content = {".csv": CSV, ".tsv": 'text\tlabel\na, b\tx\n"好\nzwei"\ty\n""\tz\n'}
    text = content.get(ending) or "".join(json.dumps(r) + "\n" for r in ROWS)
    path = write(tmp_path / f"rows{ending}", bom + text.encode())
    lines_of_rows = [1, 2, 3] if ending.startswith(".json") else [2, 3, 5]
    assert read(path) == list(zip(lines_of_rows, ROWS, strict=True))
    assert open_source(path).columns == ["text", "label"]


def test_blank_lines_are_no_rows_and_windows_ends_are_understood(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'\r\n{"text": "a"}\r\n\r\n{"text": "b"}')
    assert read(path) == [(2, {"text": "a"}), (4, {"text": "b"})]
    assert read(write(tmp_path / "a.csv", b"text,label\r\n\r\na,x\r\n")) == [(3, {"text": "a", "label": "x"})]


def test_parquet_frames_and_datasets(tmp_path: Path) -> None:
    import datasets

    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    expected = list(zip([1, 2, 3], ROWS, strict=True))
    assert read(path) == read(pandas.DataFrame(ROWS)) == read(datasets.Dataset.from_list(ROWS)) == expected
    assert [row.where for row in open_source(str(path))][2] == f"{path} line 3"


def test_parquet_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": [str(i) for i in range(1000)]}), path)
    assert [row.values["text"] for row in open_source(path)] == [str(i) for i in range(1000)]


def test_nulls_of_a_frame_are_null_and_numbers_are_plain() -> None:
    frame = pandas.DataFrame({"text": ["a", None], "label": [1, 2], "score": [float("nan"), 0.5], 7: [[1], [2]]})
    (_, one), (_, two) = read(frame)
    assert one == {"text": "a", "label": 1, "score": None, "7": [1]} and two == {"text": None, "label": 2, "score": 0.5, "7": [2]}
    assert type(one["label"]) is int


def test_classes_of_a_dataset_are_given_by_name() -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    table = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    assert [row.values["label"] for row in open_source(datasets.DatasetDict({"test": table}), "test")] == ["pos", "neg", None]
    with pytest.raises(UserError, match=r"no split 'tst'. Did you mean 'test'\?"):
        open_source(datasets.DatasetDict({"test": table}), "tst")


def test_fingerprints_follow_the_content(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", CSV)
    assert open_source(path).fingerprint == hashlib.sha256(CSV.encode()).hexdigest()
    one, two = pandas.DataFrame(ROWS), pandas.DataFrame([*ROWS[:2], {"text": " ", "label": "z"}])
    assert open_source(one).fingerprint == open_source(one.copy()).fingerprint != open_source(two).fingerprint


BROKEN: list[tuple[str, bytes, str]] = [
    ("a.csv", b"", r"a\.csv: the file is empty"),
    ("a.jsonl", b"\n \n", r"a\.jsonl: it has no rows"),
    ("a.csv", b"text,label\n", r"a\.csv: it has no rows, only the header \(text, label\)"),
    ("a.jsonl", b'{"text": "a"}\n{"text" "b"}\n', r"a\.jsonl line 2: broken JSON at column 9: Expecting ':' delimiter"),
    ("a.jsonl", b'{"text": "a"}\n["b"]\n', r"a\.jsonl line 2: a JSON object is expected, and this is an array: \[\"b\"\]"),
    ("a.jsonl", b'{"text": "a", "text": "b"}\n', r"a\.jsonl line 1: .*the key 'text' stands twice"),
    ("a.jsonl", b'{"text": ' + b"[" * 100_000 + b"\n", r"a\.jsonl line 1: JSON that cannot be read: it is nested too deeply"),
    ("a.json", b'\n [\n{"text": "a"}]', r"a\.json: it is one JSON array.*python -c .* a\.json|> a-rows\.jsonl"),
    ("a.json", b'{\n "text": "a"\n}\n', r"a\.json line 1: broken JSON .* Each line must be a whole JSON object"),
    ("a.csv", b'text,label\na,x\n"b\nc",y\nd\n', r"a\.csv line 5: 1 fields, where the header names 2 \(text, label\)"),
    ("a.csv", b"text,label\na,b,c\n", r"a\.csv line 2: 3 fields, .*holds a comma"),
    ("a.csv", b"text,,label\n1,2,3\n", r"a\.csv line 1: column 2 of 3 has no name"),
    ("a.csv", b"text,text\n1,2\n", r"a\.csv line 1: the column 'text' stands twice"),
    ("a.csv", b"text;label\na;b\n", r"a\.csv line 1: the header has no comma, but ';'"),
    ("a.csv", b'text,label\n"a,b\nc,d\n', r"a\.csv line 2: a quote is opened here and never closed"),
    ("a.csv", b'text,label\n"a" b,c\n', r"a\.csv line 2: broken quoting"),
    ("a.csv", b"text,label\ra,b\r", r"a\.csv line 1: a carriage return alone ends a line"),
    ("a.jsonl", b'{"text": "a\0"}\n', r"a\.jsonl line 1: byte 12 is NUL"),
    ("a.csv", "text,label\na,b\n".encode("utf-16"), r"line 1: the file is UTF-16 .*iconv -f UTF-16 -t UTF-8 .*a\.csv"),
    ("a.csv", "text,label\na,b\n".encode("utf-16-le"), r"a\.csv line 1: byte 2 is NUL: .*probably UTF-16LE"),
    ("a.csv", "text,label\n酒店很好,b\n".encode("gb18030"), r"line 2: byte 1 \(0xbe\) is not UTF-8; .*iconv -f GB18030"),
    ("a.csv", "text,label\ncafé au lait,b\n".encode("latin-1"), r"line 2: byte 4 \(0xe9\) is not UTF-8; .*probably WINDOWS-1252"),
    ("a.csv", "text,label\n很好很好,b\n".encode() + b"\xff,c\n", r"line 3: byte 1 \(0xff\) is not UTF-8, though the rest is"),
    ("a.xlsx", b"PK", r"a\.xlsx: files that end in '\.xlsx' cannot be read\. Save the sheet as CSV"),
    ("a.jsn", b"{}", r"files that end in '\.jsn' cannot be read\. Did you mean '\.json'\?"),
    ("a.parquet", b"PAR1 no", r"a\.parquet: it is no whole Parquet file"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN, ids=[f"{i}-{n}" for i, (n, _, _) in enumerate(BROKEN)])
def test_broken_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=message):
        read(path)


def test_missing_files_folders_and_other_things(tmp_path: Path) -> None:
    write(tmp_path / "reviews.csv", CSV)
    with pytest.raises(UserError, match=r"reviws\.csv: no such file\. Did you mean 'reviews\.csv'\?"):
        open_source(tmp_path / "reviws.csv")
    with pytest.raises(UserError, match=r"it is a folder; a file is expected\. Name one of its files: reviews\.csv"):
        open_source(tmp_path)
    with pytest.raises(UserError, match="rows cannot be read from a int"):
        open_source(3)


@pytest.mark.parametrize("size", [9 * 2**20, 30 * 2**20])
def test_long_rows_are_refused_with_their_size(tmp_path: Path, size: int) -> None:
    text = "a" * size
    for name, content, line in (("a.jsonl", f'{{"text": "b"}}\n{{"text": "{text}"}}\n', 2), ("a.csv", f'text\nb\n"{text}"\n', 3)):
        with pytest.raises(UserError, match=rf"line {line}: this row has {size / 2**20:.1f} MB; the most is 8 MB"):
            read(write(tmp_path / name, content))
    with pytest.raises(UserError, match=rf"line 1: this row has {size / 2**20:.1f} MB"):
        read(pandas.DataFrame({"text": [text]}))


def test_a_quote_that_is_never_closed_in_a_long_file_is_found_at_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (lines, formats):
        monkeypatch.setattr(module, "MAX_ROW_BYTES", 1000)
    path = write(tmp_path / "a.csv", 'text,label\na,x\n"b,y\n' + "c,z\n" * 1000)
    with pytest.raises(UserError, match=r"a\.csv line 3: this row has"):
        read(path)


def test_long_fields_within_the_limit_are_read(tmp_path: Path) -> None:
    text = "ab" * 2**21
    assert read(write(tmp_path / "a.csv", f"text\n{text}\n")) == [(2, {"text": text})]


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("这家酒店的服务很好，房间干净", "gb18030", "GB18030"),
        ("這家酒店的服務很好，房間乾淨", "big5", "BIG5"),
        ("このホテルはとてもよかったです", "shift_jis", "SHIFT_JIS"),
        ("Очень хороший отель, чистые номера", "cp1251", "WINDOWS-1251"),
        ("Un hôtel très agréable à côté de la gare", "cp1252", "WINDOWS-1252"),
    ],
)
def test_guessed_encodings(text: str, encoding: str, expected: str) -> None:
    assert guess(text.encode(encoding)) == expected


def test_hub_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "imdb.csv", CSV)
    asked: list[tuple[str, str]] = []

    def load(name: str, split: str) -> Any:
        asked.append((name, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert open_source("imdb", "test").name == "imdb" and asked == [("imdb", "test")]

    def offline(name: str, split: str) -> Any:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(UserError, match=r"imdb: there is no such file, and no connection .* Did you mean 'imdb\.csv'\?"):
        open_source("imdb")
    monkeypatch.setitem(sys.modules, "datasets", None)  # type: ignore[arg-type]
    with pytest.raises(MissingExtra, match=r"trainformer\[hub\]"):
        open_source("imdb")


def test_a_source_is_taken_as_it_is() -> None:
    source = open_source(pandas.DataFrame(ROWS))
    assert open_source(source) is source
    assert isinstance(iter(source), types.GeneratorType)
