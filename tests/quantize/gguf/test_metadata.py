"""Architectures in llama.cpp's words: what is told, and what is refused because llama.cpp computes something else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from quantgate.errors import ModelError
from quantgate.quantize.gguf.metadata import describe, llama3_factors
from quantgate.quantize.gguf.names import Place, places

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192, "rope_theta": 500000.0}  # fmt: skip


def config(kind: str, **settings: Any) -> Any:
    return AutoConfig.for_model(kind, **settings)


def told(kind: str, **settings: Any) -> dict[str, Any]:
    found = describe(config(kind, **settings), "m")
    return {key.removeprefix(f"{found.architecture}."): value for key, (_, value) in found.metadata.items()}


def test_a_llama_is_told_by_its_numbers() -> None:
    found = told("llama", hidden_size=4096, num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=8192)
    assert (found["embedding_length"], found["attention.head_count"], found["attention.head_count_kv"]) == (4096, 32, 8)
    assert (found["attention.key_length"], found["rope.dimension_count"], found["rope.freq_base"]) == (
        128,
        128,
        10000.0,
    )
    assert not any(key.startswith("rope.scaling") for key in found)


def test_llama_3s_frequencies_are_divided_as_transformers_divides_them() -> None:
    one = config("llama", hidden_size=4096, num_attention_heads=32, rope_parameters=LLAMA3)
    wanted, _ = ROPE_INIT_FUNCTIONS["llama3"](one, torch.device("cpu"))
    plain = 500000.0 ** -(torch.arange(0, 128, 2).double() / 128)
    torch.testing.assert_close((plain / llama3_factors(LLAMA3, 128)).float(), wanted, rtol=1e-5, atol=0)
    assert set(describe(one, "m").extra) == {"rope_freqs.weight"}


def test_scaled_rotary_embeddings() -> None:
    linear = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    assert told("llama", rope_parameters=linear)["rope.scaling.factor"] == 2.0
    yarn = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6, "original_max_position_embeddings": 32768}
    found = told("qwen2", rope_parameters=yarn)
    assert (found["rope.scaling.type"], found["rope.scaling.original_context_length"]) == ("yarn", 32768)
    with pytest.raises(ModelError, match=r"rotary embeddings of type 'dynamic' depend on the prompt's length"):
        told("llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
    with pytest.raises(ModelError, match=r"scales the attention of YaRN"):
        told("qwen2", rope_parameters={**yarn, "attention_factor": 2.0})


def test_gemmas_tell_which_layers_have_a_window() -> None:
    found = told("gemma3_text", num_hidden_layers=7, sliding_window=512)
    assert found["attention.sliding_window_pattern"] == [True] * 5 + [False, True]
    assert (found["rope.freq_base"], found["rope.freq_base_swa"]) == (1e6, 1e4)
    assert told("gemma2")["attn_logit_softcapping"] == 50.0 and told("gemma2")["final_logit_softcapping"] == 30.0


@pytest.mark.parametrize(
    ("kind", "settings", "why"),
    [
        ("gpt_neox", {}, "its architecture 'gpt_neox' is not among those written here"),
        ("mixtral", {}, "its architecture 'mixtral' is not among those written here"),
        ("mistral", {"sliding_window": 4096, "max_position_embeddings": 32768}, "to the last 4096 tokens of 32768"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 0}, "to the last 64 tokens"),
        ("llama", {"hidden_act": "gelu"}, "llama.cpp's llama has another activation than gelu"),
        ("gemma2", {"query_pre_attn_scalar": 100}, r"by 1 / sqrt\(256\), and this model by 1 / sqrt\(100\)"),
        ("phi3", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0,
                  "short_factor": [1.0] * 48, "long_factor": [1.0] * 48, "original_max_position_embeddings": 4096}},
         "rotary embeddings of type 'longrope'"),
    ],
)  # fmt: skip
def test_what_llama_cpp_would_compute_otherwise_is_refused(kind: str, settings: Any, why: str) -> None:
    with pytest.raises(ModelError, match=f"cannot be a GGUF file, because .*{why}"):
        told(kind, **settings)


def test_queries_and_keys_of_a_llama_change_their_rows_and_back() -> None:
    one = config("llama", hidden_size=64, num_attention_heads=4, num_key_value_heads=2)
    found = places(one, ["model.layers.3.self_attn.k_proj.weight", "model.layers.3.mlp.up_proj.weight"], "m")
    key = found["model.layers.3.self_attn.k_proj.weight"]
    assert key == Place("blk.3.attn_k.weight", heads=2)
    assert found["model.layers.3.mlp.up_proj.weight"] == Place("blk.3.ffn_up.weight")
    rows = torch.arange(32)
    assert key.rows_in_file(rows).tolist()[:6] == [0, 8, 1, 9, 2, 10]  # channel pairs of the first head side by side
    assert torch.equal(key.rows_in_model(key.rows_in_file(rows)), rows)


def test_a_tensor_without_a_place_is_refused() -> None:
    with pytest.raises(ModelError, match=r"no place for the tensor 'model.layers.0.mlp.gate.weight' of a llama"):
        places(config("llama"), ["model.layers.0.mlp.gate.weight"], "m")
