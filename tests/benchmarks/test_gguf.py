"""Files of ours beside llama.cpp's: its quantizer gets what it is told, and the table says what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from benchmarks.gguf.importance import importance_of
from benchmarks.peers.inputs import Shape, Subject
from quantgate.errors import EngineError
from quantgate.formats.ggml import FORMATS
from quantgate.quantize.gguf import TYPES, GgufFile, layout_of, make_gguf, types_of

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (quantgate[gguf])")

from benchmarks._ggml import Ggml  # noqa: E402
from benchmarks.gguf import quality  # noqa: E402
from benchmarks.gguf.judge import Distances  # noqa: E402
from benchmarks.gguf.quality import FEW, LOWER, Row, compare, types_for  # noqa: E402
from benchmarks.gguf.quantizer import quantize  # noqa: E402

WIDE = Shape(hidden=256, layers=1, feed_forward=512, heads=4, kv_heads=2, vocabulary=300)
NARROW = Shape(hidden=64, layers=1, feed_forward=172, heads=4, kv_heads=2, vocabulary=300)
IMPORTANT = [name for name in quality.BLOCKS_OF_256 if name != "Q8_0"]  # Q8_0 asks for none


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


def subject_of(shape: Shape, folder: Path) -> Subject:
    ids = torch.randint(0, 256, (6, 24), generator=torch.Generator().manual_seed(1))
    judged = torch.ones_like(ids, dtype=torch.bool)
    judged[:, -1] = False
    rows = json.loads(shape.ids(folder, 8, 32).read_bytes())
    return Subject("random", shape.saved(folder), rows, lambda _engine: [(ids, judged)], "random ids")


@pytest.fixture(scope="module")
def wide(folder: Path) -> Subject:
    return subject_of(WIDE, folder)


@pytest.fixture(scope="module")
def importance(wide: Subject) -> dict[str, Tensor]:
    return importance_of(wide.model, wide.rows)


@pytest.fixture(scope="module")
def plain(wide: Subject, folder: Path) -> GgufFile:
    return make_gguf(wide.model, folder / "F32.gguf", "F32")


def numbers(plain: GgufFile, name: str) -> Tensor:
    return torch.from_numpy(plain.rows(name).view("float32").copy()).reshape(plain.tensors[name].shape)


def test_importance_is_the_mean_square_of_what_transformers_gives_to_each_matrix(
    wide: Subject, importance: dict[str, Tensor]
) -> None:
    network = AutoModelForCausalLM.from_pretrained(wide.model.path, dtype=torch.float32)
    seen: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(
                lambda _module, args, name=name: seen.__setitem__(name, args[0].flatten(0, -2).square().mean(dim=0))
            )
    with torch.no_grad():
        network(torch.tensor(wide.rows))
    assert len(importance) == len(seen) == 8
    pairs = {
        "blk.0.attn_q.weight": "model.layers.0.self_attn.q_proj",
        "blk.0.attn_output.weight": "model.layers.0.self_attn.o_proj",
        "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj",
        "token_embd.weight": "lm_head",
    }
    for name, layer in pairs.items():
        torch.testing.assert_close(importance[name], seen[layer], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", IMPORTANT)
def test_llama_cpp_quantizes_every_tensor_with_the_importance_that_it_is_given(
    name: str, wide: Subject, plain: GgufFile, importance: dict[str, Tensor], tmp_path: Path
) -> None:
    layout, ggml = layout_of(wide.model), Ggml()
    usual = name if name in FORMATS else ""
    types = types_of(name, layout.shapes, replace(layout.shape, importance=True), usual=usual)
    weighted = quantize(plain.path, tmp_path / "importance.gguf", types, importance)
    alone = quantize(plain.path, tmp_path / "plain.gguf", types)
    assert {tensor: one.type for tensor, one in weighted.tensors.items()} == types
    for tensor in importance:
        weight, blocks = numbers(plain, tensor), FORMATS[types[tensor].name]  # type: ignore[index]
        with_importance, without = ggml.quantize(weight, blocks, importance[tensor]), ggml.quantize(weight, blocks)
        assert (weighted.rows(tensor) == with_importance.numpy()).all()
        assert (alone.rows(tensor) == without.numpy()).all()
        assert not torch.equal(with_importance, without)


def test_two_threads_write_what_one_writes(plain: GgufFile, importance: dict[str, Tensor], tmp_path: Path) -> None:
    types = {name: TYPES["Q4_K" if len(one.shape) == 2 else "F32"] for name, one in plain.tensors.items()}
    made = [quantize(plain.path, tmp_path / f"{n}.gguf", types, importance, threads=n) for n in (1, 2)]
    assert made[0].path.read_bytes() == made[1].path.read_bytes()


def test_importance_that_does_not_fit_stops_llama_cpp(
    plain: GgufFile, importance: dict[str, Tensor], tmp_path: Path
) -> None:
    types = {name: TYPES["Q4_K" if len(one.shape) == 2 else "F32"] for name, one in plain.tensors.items()}
    cut = importance | {"blk.0.attn_q.weight": torch.ones(255)}
    with pytest.raises(EngineError, match=r"F32.gguf: llama.cpp's quantizer stopped \(.*attn_q"):
        quantize(plain.path, tmp_path / "no.gguf", types, cut)


def test_every_type_is_a_row_whose_ratio_is_of_its_figures(wide: Subject, tmp_path: Path) -> None:
    said: list[str] = []
    table, cross = compare(wide, tmp_path, quick=True, threads=1, say=said.append)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["type"] for row in rows] == ["Q4_K_M", "Q2_K", "Q4_0"]
    for row in rows:
        mine, theirs = float(row["ours"].split()[0]), float(row["llama.cpp, importance"].split()[0])
        assert float(row["ours over importance"].split("x")[0]) == pytest.approx(mine / theirs, rel=0.02, abs=0.01)
    assert [row["goal"] for row in rows] == ["at most 0.7x", "at most 0.5x", ""]
    assert all(row[""] in ("met", "missed") for row in rows[:2]) and rows[2][""] == ""
    assert float(rows[0]["ours"].split()[0]) < float(rows[1]["ours"].split()[0])
    assert [row[0] for row in cross.rows] == ["Q4_K_M"]
    assert "6 documents, 138 positions" in table.notes[0] and len(table.notes) == 1


def test_rows_without_blocks_of_256_get_types_of_32_and_those_without_any_stay_plain(
    folder: Path, tmp_path: Path
) -> None:
    narrow = subject_of(NARROW, folder)
    assert list(types_for(narrow.model)) == ["Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL"]
    (table,) = compare(narrow, tmp_path, quick=True, threads=1, say=lambda _line: None)
    assert [row[0] for row in table.rows] == ["Q4_0"]
    assert table.notes[1].startswith("Rows of down_proj divide into no blocks")


def test_goals_are_judged_between_files_of_one_size_alone() -> None:
    def kl(nats: float) -> Distances:
        return Distances(np.array([nats, nats]), np.array([1.0, 1.0]))

    row = Row("Q3_K", FEW, kl(1.0), kl(2.0), kl(2.0), kl(4.0), 1_000_000, 1_000_900)
    assert row.verdict == "met" and row.cells()[6] == "0.50x (0.50 to 0.50)"
    assert replace(row, ours=kl(1.01)).verdict == "missed"
    assert replace(row, their_bytes=1_002_000).verdict == "no peer: 1.002 MB"
    assert replace(row, goal=LOWER, ours=kl(2.0)).verdict == "missed"
    assert replace(row, goal=LOWER, ours=kl(1.99)).verdict == "met"
    assert replace(row, goal=None).verdict == ""
