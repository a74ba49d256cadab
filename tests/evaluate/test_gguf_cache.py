"""A rounded KV cache: what llama.cpp keeps is what is computed here, and a proof tells another cache apart."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.quantize.gguf.conftest import small

from quantgate.engines import Kept
from quantgate.evaluate.gguf_cache import CacheRounding, held, odd, turned, turns
from quantgate.evaluate.proof import Proof, prove
from quantgate.models import open_model
from quantgate.quantize.foreign.gguf import open_gguf_artifact
from quantgate.quantize.gguf import TYPES, decode, encode_at_once, layout_of, make_gguf
from quantgate.quantize.gguf.activations import round_inputs

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (quantgate[gguf])")
pytest.importorskip("gguf", reason="the package 'gguf' is not installed (quantgate[gguf])")


def pair(model: Any, path: Path, kv_cache: str) -> tuple[Any, Any]:
    """A runtime and its reference, both with that cache."""
    from quantgate.engines.llamacpp import open_engine
    from quantgate.evaluate.gguf_reference import GgufReference

    artifact = open_gguf_artifact(path, model)
    return open_engine(model, artifact, threads=1, kv_cache=kv_cache), GgufReference(model, artifact, kv_cache)


@pytest.fixture(scope="module")
def model() -> Any:
    return open_model("quantgate/reference")


@pytest.fixture(scope="module")
def path(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf(model, tmp_path_factory.mktemp("cache") / "r-Q8_0.gguf", "Q8_0").path


def of(proof: Proof, name: str) -> Any:
    return next(one for one in proof.checks if one.name == name)


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl", "bf16", "f32"])
def test_every_type_is_proven(kind: str, model: Any, path: Path) -> None:
    engine, reference = pair(model, path, kind)
    found = prove(engine, reference)
    assert found.passed, found.sentence
    assert of(found, "cache").got == f"keys and values of {model.depth} layers kept as {kind.upper()} as they should be"


@pytest.mark.parametrize(("width", "orders"), [(64, (64, 64)), (128, (128, 64)), (96, (0, 0))])
def test_heads_are_turned_by_the_matrix_that_divides_them(width: int, orders: Any, tmp_path: Path) -> None:
    wide = small(tmp_path / "m", head_dim=width, hidden=128, heads=2, kv_heads=1)
    engine, reference = pair(wide, make_gguf(wide, tmp_path / "m.gguf", "Q8_0").path, "q4_0")
    kept = {one.name: one.turned for one in engine.kept(list(range(40)))}
    assert (kept["cache_k_l0"], kept["cache_v_l1"]) == orders == turns("Q4_0", width)
    found = prove(engine, reference)
    assert found.passed, found.sentence


@pytest.mark.parametrize(("asked", "real"), [("q8_0", "q4_0"), ("q8_0", "f16"), ("f16", "bf16"), ("q4_0", "iq4_nl")])
def test_a_cache_of_another_type_is_told_apart(asked: str, real: str, model: Any, path: Path) -> None:
    engine, reference = pair(model, path, asked)
    engine.kv_cache = real
    found = of(prove(engine, reference), "cache")
    assert not found.passed and f"is kept as {real.upper()}, expected {asked.upper()}" in found.got


def test_a_cache_that_is_not_turned_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = small(tmp_path / "m", head_dim=64)
    engine, reference = pair(wide, make_gguf(wide, tmp_path / "m.gguf", "Q8_0").path, "q4_0")
    monkeypatch.setenv("LLAMA_ATTN_ROT_DISABLE", "1")
    found = of(prove(engine, reference), "cache")
    assert not found.passed and "is turned by a matrix of 0, expected 64" in found.got


def test_numbers_that_were_rounded_otherwise_are_told_apart() -> None:
    numbers = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    right = encode_at_once(numbers, TYPES["Q4_0"])
    assert odd(Kept("cache_k_l0", "Q4_0", 0, numbers.numpy(), right), "Q4_0") == 0
    swapped = right.copy().reshape(-1, 18)
    swapped[:, 2:] = swapped[:, 2:] >> 4 | swapped[:, 2:] << 4
    assert odd(Kept("cache_k_l0", "Q4_0", 0, numbers.numpy(), swapped.reshape(right.shape)), "Q4_0") > 0.5
    assert odd(Kept("cache_k_l0", "Q8_0", 0, numbers.numpy(), encode_at_once(numbers, TYPES["Q8_0"])), "Q4_0") > 0.5


def test_turning_twice_is_nothing_and_keeps_products() -> None:
    x, y = torch.randn(2, 3, 4, 192, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.allclose(turned(turned(x, 64), 64), x) and turned(x, 0) is x
    assert torch.allclose((turned(x, 64) * turned(y, 64)).sum(-1), (x * y).sum(-1))
    assert turned(torch.ones(64, dtype=torch.float64), 64).tolist() == pytest.approx([8.0, *[0.0] * 63], abs=1e-12)


def test_turning_spreads_a_channel_that_stands_out() -> None:
    keys = torch.randn(1, 2, 50, 64, generator=torch.Generator().manual_seed(2))
    keys[..., 5] *= 30
    kept, _ = CacheRounding("Q4_0", 64, paired=False)(keys, keys)
    straight = held(keys, "Q4_0")
    assert (kept - keys).square().mean() < 0.7 * (straight - keys).square().mean()


def test_iq4_nl_is_rounded_as_the_library_rounds_it() -> None:
    import llama_cpp

    library = ctypes.CDLL(str(next(iter(sorted((Path(llama_cpp.__file__).parent / "lib").glob("*ggml-base*"))))))
    numbers = torch.randn(64, 64, generator=torch.Generator().manual_seed(3))
    numbers[0] = 0
    raw = np.zeros((64, 36), dtype=np.uint8)
    library.quantize_row_iq4_nl_ref(
        ctypes.c_void_p(numbers.numpy().ctypes.data), ctypes.c_void_p(raw.ctypes.data), ctypes.c_int64(numbers.numel())
    )
    assert torch.allclose(held(numbers, "IQ4_NL"), decode(raw, TYPES["IQ4_NL"]), atol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_one_block_of_float_matrices_is_reproduced_to_the_last_code(kind: str, tmp_path: Path) -> None:
    """Nothing else is rounded in front of the cache, so a code that was rounded otherwise would show in the logits:
    a Llama's keys lie in another order than transformers has them, a Qwen's do not."""
    from quantgate.evaluate.gguf_reference import GgufReference

    wide = small(tmp_path / "m", kind, layers=1, hidden=128, heads=2, kv_heads=1, head_dim=64)
    types = {name: TYPES["F32"] for name in layout_of(wide).shapes} | {"blk.0.ffn_down.weight": TYPES["Q8_0"]}
    engine, reference = pair(wide, make_gguf(wide, tmp_path / "m.gguf", types=types).path, "q4_0")
    ids = torch.randint(3, 1500, (1, 80), generator=torch.Generator().manual_seed(4))
    found = engine.logits(ids)

    def off(one: Any) -> float:
        return float((one.logits(ids) - found).square().mean().sqrt() / found.std())

    plain, unturned = (GgufReference(wide, reference.artifact, kind) for kind in ("f16", "q4_0"))
    for one in unturned.engine.decoder.roundings:
        one.turns = (0, 0)  # type: ignore[attr-defined]
    assert off(reference) < 1e-4
    assert off(plain) > 1e-2 and off(unturned) > 1e-2


def deep(folder: Path) -> Any:
    """Twenty-four blocks that outweigh the embeddings, and logits as wide as those of a trained model."""
    small(folder, layers=24, hidden=128, heads=2, kv_heads=1, feed_forward=256, tied=False)
    state = load_file(folder / "model.safetensors")
    for name, tensor in state.items():
        state[name] = tensor * (5 if "lm_head" in name else 1.67 if "layers" in name and tensor.dim() > 1 else 1)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return open_model(folder)


def test_depth_neither_hides_a_fault_nor_makes_one(tmp_path: Path) -> None:
    from quantgate.engines._llama import LlamaModel

    model = deep(tmp_path / "m")
    path = make_gguf(model, tmp_path / "m.gguf", "Q8_0").path
    engine, reference = pair(model, path, "q8_0")
    found = prove(engine, reference)
    assert found.passed, found.sentence
    raw, key = path.read_bytes(), b"llama.rope.freq_base"
    at = raw.index(key) + len(key) + 4
    (tmp_path / "bad.gguf").write_bytes(raw[:at] + struct.pack("<f", 20000.0) + raw[at + 4 :])
    engine.context, engine.loaded = None, LlamaModel(tmp_path / "bad.gguf")
    assert [one.name for one in prove(engine, reference).checks if not one.passed] == ["logits"]


def test_inputs_on_a_coarser_grid_are_rounded_as_the_kernel_rounds_them() -> None:
    """4 of 8 steps is 63.5 of 127: the last bit of 127 / largest decides, and float32 division alone has it right."""
    largest = np.random.default_rng(0).uniform(0.1, 10, 5000).astype(np.float32)
    rows = np.zeros((5000, 32), dtype=np.float32)
    rows[:, 0], rows[:, 1] = largest, largest / 2
    codes = np.round(rows[:, 1] * (np.float32(127) / largest))
    scales = (largest / np.float32(127)).astype(np.float16).astype(np.float32)
    assert round_inputs(torch.from_numpy(rows), "Q8_0")[:, 1].tolist() == (codes * scales).tolist()
