"""Safetensors files read by NumPy alone: the same arrays as the library's, and no word of a file believed that is not true."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from trainformer.core.stored import arrays

KINDS = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]


def file(folder: Path, header: object, data: bytes = bytes(8), length: int | None = None) -> Path:
    told = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "x.safetensors"
    path.write_bytes((len(told) if length is None else length).to_bytes(8, "little") + told + data)
    return path


def test_arrays_are_those_that_the_library_wrote(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    wrote = {kind: (9 * draw.standard_normal((3, 0 if kind == "int8" else 5))).astype(kind) for kind in KINDS}
    wrote["alone"] = np.array(2.5)
    safetensors.numpy.save_file(wrote, tmp_path / "x.safetensors", {"what": "said"})
    found, metadata = arrays(tmp_path / "x.safetensors")
    assert metadata == {"what": "said"} and set(found) == set(wrote)
    for name, array in wrote.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header",
    [
        b"[]", b"{", b"\xff\xff", {"a": 1}, {"a": {}}, {"a": GOOD | {"dtype": "F33"}}, {"a": GOOD | {"shape": [3]}},
        {"a": GOOD | {"shape": [-1, -2]}}, {"a": GOOD | {"data_offsets": [0, 4], "shape": [1]}}, {"a": GOOD, "b": GOOD},
        {"a": GOOD | {"data_offsets": [8, 16]}}, {"a": GOOD | {"shape": "2"}},
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_refused(header: object, tmp_path: Path) -> None:
    assert arrays(file(tmp_path, {"a": GOOD}))[0]["a"].tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"header|tensor"):
        arrays(file(tmp_path, header))


@pytest.mark.parametrize("length", [0, 1, 10**6, 2**63])
def test_a_header_that_does_not_fit_is_refused(length: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        arrays(file(tmp_path, {"a": GOOD}, length=length))
