"""Which tensor gets which type: llama.cpp's rules, by hand and against llama.cpp itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tests.quantize.gguf.conftest import small

from quantgate.errors import UnknownName
from quantgate.quantize.gguf import FILE_TYPES, make_gguf, open_gguf, types_of
from quantgate.quantize.gguf.presets import Shape, count, narrowed

HAS_LLAMA_CPP = importlib.util.find_spec("llama_cpp") is not None
QUANTIZED = [name for name in FILE_TYPES if name not in ("F32", "F16", "BF16")]


def dense(blocks: int, *, output: bool = True, columns: int = 4096) -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama of so many blocks."""
    top = {"token_embd.weight": (100, columns), "output_norm.weight": (columns,)}
    parts = {"attn_q": (64, columns), "attn_v": (64, columns), "attn_output": (64, columns), "ffn_down": (64, columns)}
    return (
        top
        | ({"output.weight": (100, columns)} if output else {})
        | {f"blk.{at}.{part}.weight": shape for at in range(blocks) for part, shape in parts.items()}
        | {f"blk.{at}.attn_norm.weight": (columns,) for at in range(blocks)}
    )


def test_q4_k_m_of_32_blocks_gives_more_bits_to_half_of_the_values_and_ffn_down() -> None:
    found = types_of("Q4_K_M", dense(32), Shape("llama", 32, 32, 8))
    more = [at for at in range(32) if found[f"blk.{at}.attn_v.weight"].name == "Q6_K"]
    assert more == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert all((found[f"blk.{at}.ffn_down.weight"].name == "Q6_K") == (at in more) for at in range(32))
    assert found["output.weight"].name == "Q6_K" and found["token_embd.weight"].name == "Q4_K"
    assert found["blk.0.attn_norm.weight"].name == "F32" and found["blk.5.attn_q.weight"].name == "Q4_K"


def test_tied_embeddings_are_stored_as_the_output_layer() -> None:
    assert types_of("Q3_K_S", dense(2, output=False), Shape("llama", 2, 8, 8))["token_embd.weight"].name == "Q6_K"
    assert types_of("Q8_0", dense(2, output=False), Shape("llama", 2, 8, 8))["token_embd.weight"].name == "Q8_0"


def test_values_shared_by_four_heads_get_more_bits() -> None:
    for heads, wanted in ((8, "Q3_K"), (2, "Q4_K")):
        assert types_of("Q2_K", dense(2), Shape("llama", 2, 8, heads))["blk.0.attn_v.weight"].name == wanted
    large = types_of("Q4_K_S", dense(80), Shape("llama", 80, 64, 8))
    assert large["blk.40.attn_v.weight"].name == "Q5_K"


def test_rows_that_do_not_divide_fall_back_as_llama_cpp_does() -> None:
    assert [narrowed(kind, 96) for kind in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL")] == [
        "Q4_0", "Q4_0", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL",
    ]  # fmt: skip
    assert narrowed("Q8_0", 172) == narrowed("Q4_K", 172) == "F16"


def test_unknown_preset() -> None:
    with pytest.raises(UnknownName, match=r"unknown GGUF type 'Q4_K_X'; did you mean 'Q4_K_"):
        types_of("Q4_K_X", dense(1), Shape("llama", 1, 8, 8))


@pytest.mark.skipif(not HAS_LLAMA_CPP, reason="llama-cpp-python is not installed (quantgate[gguf])")
@pytest.mark.parametrize("preset", QUANTIZED)
@pytest.mark.parametrize("kind", ["llama", "phi3"])
def test_llama_cpp_itself_chooses_the_same_types(preset: str, kind: str, deep: dict[str, Any], tmp_path: Path) -> None:
    import llama_cpp

    model, plain = deep[kind]
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = FILE_TYPES[preset][0], 1
    made = tmp_path / "theirs.gguf"
    assert llama_cpp.llama_model_quantize(str(plain).encode(), str(made).encode(), settings) == 0
    theirs = {name: one.type.name for name, one in open_gguf(made).tensors.items()}
    ours = {name: one.type.name for name, one in make_gguf(model, tmp_path / "ours.gguf", preset).tensors.items()}
    assert ours == theirs and len(count(open_gguf(made).tensors[name].type for name in theirs)) > 1


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Nine blocks, rows of 256 and of 96 and 160: every rule and every fallback has a case."""
    folder = tmp_path_factory.mktemp("deep")
    found = {}
    for kind in ("llama", "phi3"):
        sizes = {"hidden": 256, "layers": 9, "feed_forward": 160, "heads": 8, "kv_heads": 2}
        model = small(folder / f"{kind[:3]}-deep", kind, **sizes)
        found[kind] = (model, make_gguf(model, folder / f"{kind}.gguf", "F32").path)
    return found
