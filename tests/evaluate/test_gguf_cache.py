"""A rounded KV cache: what llama.cpp keeps is what is computed here, and a proof tells another cache apart."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.quantize.gguf.conftest import small

from quantgate.engines import Kept
from quantgate.evaluate.gguf_cache import CacheRounding, held, odd, turned, turns
from quantgate.evaluate.proof import Proof, prove
from quantgate.models import open_model
from quantgate.quantize.foreign.gguf import open_gguf_artifact
from quantgate.quantize.gguf import TYPES, decode, encode, make_gguf

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
    assert of(found, "cache").got == f"8 layers' keys or values kept as {kind.upper()} as it should be"


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


def test_a_cache_that_is_not_turned_is_told_apart(model: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, reference = pair(model, path, "q4_0")
    monkeypatch.setenv("LLAMA_ATTN_ROT_DISABLE", "1")
    found = of(prove(engine, reference), "cache")
    assert not found.passed and "is turned by a matrix of 0, expected 64" in found.got


def test_numbers_that_were_rounded_otherwise_are_told_apart() -> None:
    numbers = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    right = encode(numbers, TYPES["Q4_0"])
    assert odd(Kept("cache_k_l0", "Q4_0", 0, numbers.numpy(), right), "Q4_0") == 0
    swapped = right.copy().reshape(-1, 18)
    swapped[:, 2:] = swapped[:, 2:] >> 4 | swapped[:, 2:] << 4
    assert odd(Kept("cache_k_l0", "Q4_0", 0, numbers.numpy(), swapped.reshape(right.shape)), "Q4_0") > 0.5
    assert odd(Kept("cache_k_l0", "Q8_0", 0, numbers.numpy(), encode(numbers, TYPES["Q8_0"])), "Q4_0") > 0.5


def test_turning_twice_is_nothing_and_keeps_products() -> None:
    x, y = torch.randn(2, 3, 4, 192, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.allclose(turned(turned(x, 64), 64), x) and turned(x, 0) is x
    assert torch.allclose((turned(x, 64) * turned(y, 64)).sum(-1), (x * y).sum(-1))
    assert turned(torch.ones(64, dtype=torch.float64), 64).tolist() == pytest.approx([8.0, *[0.0] * 63], abs=1e-12)


def test_turning_spreads_a_channel_that_stands_out() -> None:
    keys = torch.randn(1, 2, 50, 64, generator=torch.Generator().manual_seed(2))
    keys[..., 5] *= 30
    kept, _ = CacheRounding("Q4_0", 64)(keys, keys)
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
