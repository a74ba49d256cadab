"""The textbook lines: bytes of a 70B model, the speed-up that bandwidth allows, what bounds what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.formats import scheme
from quantgate.hardware import CachePart, Estimate, Load, Served, cache_parts, profile, roofline, runtime, support
from quantgate.hardware.geometry import Geometry

NOTHING = Geometry((), 1, 1)
ONE = Served(  # a dense model of 1e9 parameters in 16 bits, one layer, 1000 cached numbers a token
    parameters=10**9, resident_bytes=2 * 10**9, plain_bytes=2 * 10**9, read_bytes=2 * 10**9, active=10**9,
    parts=(CachePart(layers=1, numbers=1000, ops=0),), layers=1, hidden=1, widest=1, vocabulary=1,
)  # fmt: skip


def estimate(served: Served = ONE, device: str = "h100-sxm", label: str = "BF16", **load: Any) -> Estimate:
    found = support("vllm", scheme(label), "compressed_tensors", profile(device), NOTHING)
    return roofline(
        served, profile(device), found, runtime("vllm"), Load(**{"prompt": 100, "answer": 10, "context": 110} | load)
    )


def test_a_token_takes_its_bytes_over_the_bandwidth() -> None:
    found = estimate()
    cached = 1000 * 105 * 2  # numbers, tokens in the middle of the answer, bytes of 16 bits
    assert found.tpot_s == pytest.approx((2e9 + cached) / 3.35e12) and found.tpot_bound == "bytes"
    assert found.tokens_per_s == pytest.approx(1 / found.tpot_s)


def test_a_long_prompt_takes_its_operations_over_the_rate() -> None:
    found = estimate(prompt=8192)
    assert found.ttft_s == pytest.approx(8192 * 2e9 / 989.5e12) and found.ttft_bound == "operations"


def test_many_sequences_turn_bytes_into_operations() -> None:
    crossing = 989.5e12 / 3.35e12  # operations a byte; a weight is 2 bytes and 2 operations a sequence
    few, many = estimate(concurrency=int(crossing * 0.8)), estimate(concurrency=int(crossing * 1.5))
    assert (few.tpot_bound, many.tpot_bound) == ("bytes", "operations")


def test_memory_is_weights_cache_and_activations_within_what_the_runtime_takes() -> None:
    found = estimate(concurrency=4, context=1000)
    assert (found.memory.weights, found.memory.cache) == (2 * 10**9, 4 * 1000 * 1000 * 2)
    assert found.memory.available == 72_000_000_000 and found.fits
    assert estimate(memory_bytes=10**9).fits is False


def test_the_largest_batch_fits_and_one_more_does_not() -> None:
    load: dict[str, Any] = {"context": 2_000_000, "memory_bytes": 40 * 10**9}
    most = estimate(**load).largest_batch
    assert most and estimate(**load, concurrency=most).fits and not estimate(**load, concurrency=most + 1).fits


def test_a_cache_of_fewer_bits_is_smaller_by_their_ratio() -> None:
    assert estimate(kv_cache="fp8").memory.cache * 2 == estimate(kv_cache="bf16").memory.cache


def test_a_second_copy_of_a_file_fits_where_its_pages_can_be_taken_back() -> None:
    """llama.cpp copies Q4_K weights into its kernel's order and leaves the file mapped: what it holds is both, what it
    needs is one of them."""
    twice = ONE.model_copy(update={"resident_bytes": 4 * 10**9, "mapped_bytes": 2 * 10**9})
    found = estimate(twice, memory_bytes=3 * 10**9)
    assert found.memory.weights == 4 * 10**9 and found.memory.needed < 2.1e9 and found.fits
    assert found.largest_batch == estimate(memory_bytes=3 * 10**9).largest_batch


def test_what_does_not_fit_costs_nothing_that_could_be_told() -> None:
    assert estimate(price=3.6, memory_bytes=10**9).cost_per_million is None


def test_cost_is_the_price_over_the_answers_tokens() -> None:
    found = estimate(price=3.6)
    assert found.requests_per_s and found.cost_per_million == pytest.approx(
        3.6 / 3600 / (found.requests_per_s * 10) * 1e6
    )
    assert estimate().cost_per_million is None


def test_what_an_unpublished_rate_decides_is_unknown() -> None:
    found = support("llama.cpp", scheme("Q4_K_M"), "gguf", profile("m4-max"), NOTHING)
    told = roofline(ONE, profile("m4-max"), found, runtime("llama.cpp"), Load(prompt=9, answer=9, context=18))
    assert (told.ttft_s, told.requests_per_s, told.ttft_bound) == (None, None, "unknown")
    assert told.tpot_s > 0 and any("no fp16 rate" in note for note in told.notes)


def test_memory_that_nobody_says_is_unknown_and_not_enough() -> None:
    found = support("torch", scheme("BF16"), "compressed_tensors", profile("cpu-avx512"), NOTHING)
    told = roofline(ONE, profile("cpu-avx512"), found, runtime("torch"), Load(prompt=9, answer=9, context=18))
    assert told.fits is None and told.largest_batch is None and any("says no memory" in note for note in told.notes)


@given(
    concurrency=st.integers(1, 512), prompt=st.integers(1, 10**5), answer=st.integers(1, 10**4),
    bandwidth=st.floats(1e9, 1e13), smaller=st.integers(1, 2 * 10**9),
)  # fmt: skip
def test_fewer_bytes_and_more_bandwidth_never_slow_anything(
    concurrency: int, prompt: int, answer: int, bandwidth: float, smaller: int
) -> None:
    load: dict[str, Any] = {"concurrency": concurrency, "prompt": prompt, "answer": answer, "context": prompt + answer}
    plain, less = estimate(**load), estimate(ONE.model_copy(update={"read_bytes": smaller}), **load)
    assert less.tpot_s <= plain.tpot_s and plain.memory.needed >= plain.memory.weights
    device = profile("h100-sxm").model_copy(update={"bandwidth": bandwidth})
    found = support("vllm", scheme("BF16"), "compressed_tensors", device, NOTHING)
    told = roofline(ONE, device, found, runtime("vllm"), Load(**load))
    assert (told.tpot_s <= plain.tpot_s) or bandwidth <= 3.35e12


def test_experts_are_read_as_more_tokens_choose_them() -> None:
    mixture = ONE.model_copy(update={"read_bytes": 0, "expert_bytes": 8000, "experts": 8, "chosen": 2})
    assert mixture.step_bytes(1) == pytest.approx(2000)
    assert 2000 < mixture.step_bytes(4) < mixture.step_bytes(64) <= 8000


def config(**told: Any) -> Any:
    plain = {"num_hidden_layers": 4, "num_attention_heads": 8, "hidden_size": 512, "num_key_value_heads": 2}
    return SimpleNamespace(**plain | told)


def test_grouped_heads_cache_their_keys_and_values_alone() -> None:
    assert cache_parts(config(), "vllm") == (CachePart(layers=4, numbers=2 * 2 * 64, ops=4 * 8 * 64),)
    llama_3_70b = config(num_hidden_layers=80, num_attention_heads=64, hidden_size=8192, num_key_value_heads=8)
    served = ONE.model_copy(update={"parts": cache_parts(llama_3_70b, "vllm")})
    assert served.cache_bytes(1, 16) == 327_680  # a token of Llama 3 70B: 320 KiB


def test_a_window_bounds_what_is_cached() -> None:
    found = cache_parts(config(sliding_window=100, layer_types=["sliding_attention", "full_attention"] * 2), "vllm")
    assert [(part.layers, part.window) for part in found] == [(2, 100), (2, None)]
    served = ONE.model_copy(update={"parts": found})
    assert served.cache_bytes(1000, 16) == (2 * 100 + 2 * 1000) * 2 * 2 * 64 * 2


def test_a_latent_vector_is_cached_where_the_runtime_can() -> None:
    """DeepSeek-V2 caches 512 + 64 numbers a token and layer (arXiv 2405.04434, section 2.1.2)."""
    deepseek = config(kv_lora_rank=512, qk_rope_head_dim=64, qk_nope_head_dim=128, v_head_dim=128)
    assert cache_parts(deepseek, "vllm")[0].numbers == 576
    assert cache_parts(deepseek, "transformers")[0].numbers == 8 * (128 + 64 + 128)
