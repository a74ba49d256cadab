"""The header of a GGUF file, whole and damaged: every damage is one sentence, and no file makes the reader stumble."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.errors import ArtifactError
from quantgate.quantize.gguf import TYPES, make_gguf, open_gguf

gguf = pytest.importorskip("gguf", reason="the package 'gguf' is not installed (quantgate[gguf])")


@pytest.fixture(scope="module")
def whole(tiny_gguf: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_gguf(tiny_gguf, tmp_path_factory.mktemp("whole") / "m.gguf", "Q8_0").path.read_bytes()


def refused(folder: Path, raw: bytes) -> str:
    file = folder / "bad.gguf"
    file.write_bytes(raw)
    with pytest.raises(ArtifactError) as caught:
        open_gguf(file)
    sentence = str(caught.value)
    assert sentence.startswith(str(file)) and "\n" not in sentence
    return sentence.removeprefix(f"{file}: ")


def test_types_have_the_sizes_of_the_gguf_package() -> None:
    for kind in TYPES.values():
        assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind.id)] == (kind.block, kind.bytes), kind.name


def test_it_reads_what_the_gguf_package_reads(tiny_gguf: Any, tmp_path: Path) -> None:
    file = make_gguf(tiny_gguf, tmp_path / "m.gguf", "Q8_0")
    theirs = gguf.GGUFReader(file.path)
    assert [one.name for one in theirs.tensors] == list(file.tensors)
    for one in theirs.tensors:
        ours = file.tensors[one.name]
        assert (ours.start, ours.size, ours.type.id) == (one.data_offset, one.n_bytes, int(one.tensor_type))
        assert list(ours.shape) == [int(side) for side in reversed(one.shape)]
        np.testing.assert_array_equal(file.rows(one.name).reshape(-1), np.asarray(one.data).reshape(-1).view(np.uint8))
    for key, value in file.metadata.items():
        told = theirs.fields[key].contents()
        assert told == (pytest.approx(value) if isinstance(value, float) else value), key


def test_a_file_that_is_no_gguf(tmp_path: Path, whole: bytes) -> None:
    assert refused(tmp_path, b"PK\x03\x04" + whole[4:]).startswith(
        "begins with b'PK\\x03\\x04', a GGUF file with b'GGUF'"
    )
    assert refused(tmp_path, whole[:20]) == "20 bytes are no GGUF file; download it again"
    with pytest.raises(ArtifactError, match=r"none\.gguf: no such file"):
        open_gguf(tmp_path / "none.gguf")


def test_a_version_that_is_not_read(tmp_path: Path, whole: bytes) -> None:
    assert refused(tmp_path, whole[:4] + struct.pack("<I", 9) + whole[8:]).startswith("is GGUF version 9, and 2 and 3")
    assert "big-endian" in refused(tmp_path, whole[:4] + struct.pack(">I", 3) + whole[8:])


def test_a_file_cut_in_its_tensors_tells_what_was_promised(tmp_path: Path, whole: bytes) -> None:
    said = refused(tmp_path, whole[:-4096])
    assert said.startswith("truncated at 'blk.1.") and f"it has {len(whole) - 4096}; download it again" in said


@pytest.mark.parametrize("at", [24, 60, 500, 20_000])
def test_a_file_cut_in_its_header(tmp_path: Path, whole: bytes, at: int) -> None:
    assert refused(tmp_path, whole[:at]).startswith("truncated inside its header, at ")


def place_of(raw: bytes, name: str) -> int:
    """Where the type of a tensor stands: behind its name, its dimension count and its two dimensions."""
    text = name.encode()
    at = raw.index(struct.pack("<Q", len(text)) + text) + 8 + len(text)
    return at + 4 + 8 * int(struct.unpack("<I", raw[at : at + 4])[0])


def test_an_unknown_tensor_type(tmp_path: Path, whole: bytes) -> None:
    at = place_of(whole, "blk.0.attn_q.weight")
    said = refused(tmp_path, whole[:at] + struct.pack("<I", 99) + whole[at + 4 :])
    assert said.startswith("'blk.0.attn_q.weight' has the tensor type 99, which is none of those read here")


def test_rows_that_do_not_divide_into_blocks(tmp_path: Path, whole: bytes) -> None:
    at = place_of(whole, "blk.0.attn_q.weight")
    said = refused(tmp_path, whole[:at] + struct.pack("<I", TYPES["Q4_K"].id) + whole[at + 4 :])
    assert said.startswith("'blk.0.attn_q.weight' has rows of 64, and Q4_K stores blocks of 256")


def test_counts_beyond_the_file_cost_nothing(tmp_path: Path, whole: bytes) -> None:
    assert "truncated" in refused(tmp_path, whole[:8] + struct.pack("<QQ", 2**60, 2**60) + whole[24:])
    assert "truncated" in refused(tmp_path, whole[:24] + struct.pack("<Q", 2**63) + whole[32:])


@given(st.data())
def test_any_damaged_byte_of_the_header_is_read_or_refused(whole: bytes, tmp_path_factory: Any, data: Any) -> None:
    at = data.draw(st.integers(0, 4000))
    file = tmp_path_factory.mktemp("damaged") / "m.gguf"
    file.write_bytes(whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :])
    try:
        open_gguf(file)
    except ArtifactError as told:
        assert "\n" not in str(told)
