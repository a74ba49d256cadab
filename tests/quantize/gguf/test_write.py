"""Whole files: every architecture's numbers come back, and nothing half-written stays behind."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.quantize.gguf.conftest import KINDS, small

from quantgate.errors import ArtifactError, DiskFull, FormatError, UnknownName
from quantgate.models import open_model
from quantgate.quantize.foreign.gguf import open_gguf_artifact
from quantgate.quantize.gguf import TYPES, encode, layout_of, make_gguf, write_gguf
from quantgate.quantize.load import load_dequantized

pytest.importorskip("gguf", reason="the package 'gguf' is not installed (quantgate[gguf])")


@pytest.mark.parametrize("kind", KINDS)
def test_an_architecture_comes_back_as_it_was(kind: str, tmp_path: Path) -> None:
    """Matrices within a step of Q8_0 (fitted, it may be too short for the largest) and closer on average than rounding
    without a fit, whose mean square is a twelfth; the rest bit for bit."""
    model = small(tmp_path / f"m-{kind[:3]}", kind)  # in a name, llama.cpp takes "phi3" for a word about its tokens
    artifact = open_gguf_artifact(make_gguf(model, tmp_path / f"{kind}.gguf", "Q8_0").path, model)
    for name in model.files.entries:
        made, ours = artifact.files.read(name), model.files.read(name).float()
        if ours.dim() == 1:
            torch.testing.assert_close(made, ours, rtol=0, atol=1e-7)
        else:
            step = ours.reshape(-1, 32).abs().amax(-1, keepdim=True) / 127
            off = (made - ours).reshape(-1, 32).abs() / step
            assert float(off.max()) < 1 and float(off.square().mean()) < 1 / 11, name
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        network = load_dequantized(artifact, torch.float32)
        assert network(ids).logits.isfinite().all()


def test_a_file_of_float32_is_the_model_itself(tmp_path: Path) -> None:
    """Built by hand from the baseline's own numbers, it cannot be told from them but for the type of a layer."""
    model = small(tmp_path / "m", tied=False)
    layout = layout_of(model)
    types = {name: TYPES["F32"] for name in layout.shapes} | {"blk.0.ffn_up.weight": TYPES["Q8_0"]}
    artifact = open_gguf_artifact(make_gguf(model, tmp_path / "m.gguf", types=types).path, model)
    assert artifact.quantized == ("model.layers.0.mlp.up_proj",) and artifact.label == "Q8_0"
    for name in model.files.entries:
        if name != "model.layers.0.mlp.up_proj.weight":
            assert torch.equal(artifact.files.read(name), model.files.read(name)), name


def test_a_file_is_the_same_bytes_each_time(tiny_gguf: Any, tmp_path: Path) -> None:
    one, other = (make_gguf(tiny_gguf, tmp_path / name, "Q8_0").path.read_bytes() for name in ("a.gguf", "b.gguf"))
    assert one == other


def test_a_full_disk_leaves_nothing_behind(tiny_gguf: Any, tmp_path: Path) -> None:
    made = 0

    def full(weights: Any, kind: Any, importance: Any) -> Any:
        nonlocal made
        made += 1
        if made == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return encode(weights, kind, importance)

    with pytest.raises(DiskFull, match=r"m\.gguf: the disk is full; nothing half-written was kept"):
        make_gguf(tiny_gguf, tmp_path / "out" / "m.gguf", "Q8_0", quantize=full)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_old_file_stays_until_the_new_one_is_whole(tiny_gguf: Any, tmp_path: Path) -> None:
    path = make_gguf(tiny_gguf, tmp_path / "m.gguf", "Q8_0").path
    before = path.read_bytes()

    def broken(weights: Any, kind: Any, importance: Any) -> Any:
        return np.zeros(7, dtype=np.uint8)

    with pytest.raises(FormatError, match=r"and 7 of uint8 came; the quantizer does not fit the type"):
        make_gguf(tiny_gguf, path, "Q8_0", quantize=broken)
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["m.gguf"]


def test_what_cannot_be_written(tiny_gguf: Any, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"unknown GGUF type 'Q4K'"):
        make_gguf(tiny_gguf, tmp_path / "m.gguf", "Q4K")
    with pytest.raises(ArtifactError, match=r"is a folder; name the file to write"):
        make_gguf(tiny_gguf, tmp_path, "Q8_0")
    layout = layout_of(tiny_gguf)
    types = {name: TYPES["F32"] for name in layout.shapes}
    with pytest.raises(FormatError, match=r"no type for the tensor 'blk\.0\.attn_q\.weight'"):
        write_gguf(tmp_path / "m.gguf", layout, {n: t for n, t in types.items() if "attn_q" not in n}, lambda _: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(FormatError, match=r"'blk\.0\.attn_q\.weight' has rows of 64, which do not divide into Q4_K's"):
        make_gguf(tiny_gguf, tmp_path / "m.gguf", types=types | {"blk.0.attn_q.weight": TYPES["Q4_K"]})


def test_importance_and_a_quantizer_of_ones_own_reach_every_block(tiny_gguf: Any, tmp_path: Path) -> None:
    seen: dict[tuple[int, ...], Any] = {}

    def mine(weights: Any, kind: Any, importance: Any) -> Any:
        if importance is not None:
            seen[tuple(weights.shape)] = importance
        return encode(weights, kind, None)

    columns = torch.arange(96.0)
    make_gguf(
        tiny_gguf, tmp_path / "m.gguf", "Q8_0", quantize=mine, importance={"model.layers.0.mlp.down_proj": columns}
    )
    assert list(seen) == [(64, 96)] and torch.equal(seen[64, 96], columns)


def test_a_padded_vocabulary_and_the_built_in_model(tmp_path: Path) -> None:
    model = open_model("quantgate/reference")
    artifact = open_gguf_artifact(make_gguf(model, tmp_path / "r.gguf", "Q8_0").path, model)
    assert artifact.manifest.bits_per_weight == 8.5 and artifact.manifest.quantized[0].got == "Q8_0"
