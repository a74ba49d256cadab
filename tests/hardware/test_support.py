"""The preflight: every known-bad combination is refused with its rule, and every fallback is named as one.

Cases that name an issue are rebuilt from what its thread says, with its shapes; others are a rule alone.
"""

from __future__ import annotations

from typing import Any

import pytest

from quantgate.errors import UnknownName, Unsupported
from quantgate.formats import scheme, scheme_names
from quantgate.hardware import Geometry, Layer, Support, names, profile, require, runtime, runtimes, support
from quantgate.quantize import checkpoints


def llama(columns: int = 28672, hidden: int = 8192, stored: str = "W4A16", **changes: str) -> Geometry:
    """One block; ``changes`` are layers that are stored as something else, "" for one that is not there."""
    shapes = {
        "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (1024, hidden), "self_attn.v_proj": (1024, hidden),
        "self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (columns, hidden), "mlp.up_proj": (columns, hidden),
        "mlp.down_proj": (hidden, columns),
    }  # fmt: skip
    layers = tuple(
        Layer(f"model.layers.0.{name}", *shape, changes.get(name.rpartition(".")[2], stored))
        for name, shape in shapes.items()
        if changes.get(name.rpartition(".")[2]) != ""
    )
    return Geometry(layers, heads=64, key_heads=8)


def ask(
    runtime_: str, label: str, device: str, *, container: str = "compressed_tensors", shapes: Geometry | None = None,
    tp: int = 1, **more: Any,
) -> Support:  # fmt: skip
    return support(runtime_, scheme(label), container, profile(device), shapes or llama(stored=label), tp, **more)


REFUSED: dict[str, tuple[Support, str]] = {
    "llm-compressor 1427: three bits have no kernel": (ask("vllm", "W3A16", "a100"), "kernels for 4 and 8 bits"),
    "a layout that is not listed": (
        ask("vllm", "W4A16", "a100", container="gptq_v2"), "does not read W4A16 from gptq_v2",
    ),
    "llm-compressor 1489: inputs of 8256 in Marlin": (
        ask("vllm", "W4A16-g64", "h100", shapes=llama(8256)), "8256 inputs do not divide into tiles of 128",
    ),
    "fp8 blocks that do not divide": (
        ask("vllm", "FP8_BLOCK", "h100", shapes=llama(11000, stored="FP8_BLOCK")),
        "do not divide into blocks of 128",
    ),
    "vllm 9913: inputs of 10944 on one device": (
        ask("vllm", "W4A16", "a100", container="awq", shapes=llama(10944)), "10944 inputs do not divide into tiles",
    ),
    "vllm 13640: Qwen2.5-VL-72B on two devices": (
        ask("vllm", "W4A16", "a100", container="awq", shapes=llama(29568), tp=2),
        "on each of 2 devices 14784 inputs do not divide into tiles of 128",
    ),
    "vllm 1258: 11008 inputs on four devices": (
        ask("vllm", "W4A16", "a100", container="awq", shapes=llama(11008, 4096), tp=4),
        "2752 inputs do not divide into tiles of 128",
    ),
    "vllm 17604: groups across devices": (
        ask("tensorrt-llm", "W4A16", "a100", container="gptq", shapes=llama(11008, 4096), tp=4),
        "2752 inputs do not divide into groups of 128",
    ),
    "heads across devices": (ask("vllm", "W4A16", "a100", tp=3), "64 attention heads do not divide"),
    "vllm 47473: q and k beside a v of another scheme": (
        ask("vllm", "W4A16", "h100", shapes=llama(v_proj="W8A16")), "k_proj W4A16, v_proj W8A16 run as one",
    ),
    "vllm 47473: no v at all, among several schemes": (
        ask("vllm", "W4A16", "h100", shapes=llama(v_proj="", down_proj="W8A16")), "has no v_proj",
    ),
    "vllm PR 47445, auto-round 2174: a fused sibling that was kept": (
        ask("vllm", "W4A16", "h100", shapes=llama(up_proj="BF16")), "gate_proj W4A16, up_proj BF16 run as one matrix",
    ),
    "sglang 33245: fused layers of two schemes load and answer garbage": (
        ask("sglang", "W4A16", "h100", shapes=llama(k_proj="BF16")), "answers garbage",
    ),
    "vllm PR 45312: a KV cache that is not fp8": (
        ask("vllm", "W4A16", "h100", kv_cache="int4"), "another KV cache than fp8 are refused",
    ),
    "vllm 39980: experts with zero points": (
        ask("vllm", "W4A16-g128-asym", "h100", shapes=Geometry(llama().layers, 64, 8, experts=True)),
        "layers of experts with zero points do not load",
    ),
    "asymmetric GPTQ has no Marlin": (
        ask("sglang", "W4A16-g128-asym", "a100", container="gptq"), "no Marlin kernel",
    ),
    "groups that no kernel has": (ask("vllm", "W4A16-g16", "a100"), "not of 16"),
    "weight-only below compute capability 7.5": (
        support("vllm", scheme("W4A16"), "compressed_tensors",
                profile("t4").model_copy(update={"compute_capability": 7.0, "title": "V100"}), llama()),
        "from compute capability 7.5 on, and V100 has 7.0",
    ),
    "vllm 19853: NVFP4 where not even the fallback runs": (
        ask("tensorrt-llm", "NVFP4", "h100", shapes=llama(stored="NVFP4")), "10.0, 10.3 and 12.0",
    ),
    "AWQ in llama.cpp": (ask("llama.cpp", "W4A16", "cpu-avx2", container="awq"), "AWQ files do not load in llama.cpp"),
    "compressed-tensors in llama.cpp": (ask("llama.cpp", "W8A8", "cpu-avx2"), "reads GGUF alone"),
    "int8 on Blackwell in vLLM": (ask("vllm", "W8A8", "b200"), "choose FP8_DYNAMIC"),
    "W4A16 on Blackwell in TensorRT-LLM": (
        ask("tensorrt-llm", "W4A16", "b200", container="awq"), "Ampere to Hopper, not for Blackwell",
    ),
    "MXFP4 off Blackwell": (ask("vllm", "MXFP4", "h100", shapes=llama(stored="MXFP4")), "10.0 and above alone"),
    "GGUF in vLLM away from CUDA": (ask("vllm", "Q4_K_M", "m4-max", container="gguf"), "choose llama.cpp"),
    "W4A8 on a GPU": (ask("vllm", "W4A8", "h100"), "on Arm CPUs alone"),
    "vLLM on a phone of another vendor's NPU": (ask("vllm", "W8A8", "edge-npu"), "not on a laptop's NPU"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_known_bad_combination_is_refused_with_its_rule(case: str) -> None:
    found, rule = REFUSED[case]
    assert any(rule in problem for problem in found.problems), found.problems
    with pytest.raises(Unsupported) as told:
        require(found, "target 'fleet'")
    assert str(told.value).startswith("target 'fleet': ") and found.date in str(told.value)
    assert told.value.exit_code == 1


FALLBACKS = {
    "FP8 below 8.9": (ask("vllm", "FP8_DYNAMIC", "a100"), "weight-only (W8A16), inputs are not rounded"),
    "NVFP4 on Hopper": (ask("vllm", "NVFP4", "h100"), "says nothing of Blackwell"),
    "NVFP4 on Hopper in SGLang": (ask("sglang", "NVFP4", "h100"), "weight-only"),
    "GGUF in vLLM": (ask("vllm", "Q4_K_M", "h100", container="gguf"), "out of tree"),
    "compressed-tensors in transformers": (ask("transformers", "W4A16", "cpu-avx512"), "loads compressed-tensors"),
    "bfloat16 on Turing": (ask("vllm", "BF16", "t4"), "run in float16"),
    "fp8 in the torch engine": (ask("torch", "FP8_DYNAMIC", "cpu-avx512"), "weights are decoded on load"),
    "odd groups in the torch engine": (
        ask("torch", "W4A16-g16", "cpu-avx512"), "groups of 16 are no multiple of 32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FALLBACKS)
def test_a_fallback_runs_and_is_named_as_one(case: str) -> None:
    found, lost = FALLBACKS[case]
    assert found.runs and lost in found.fallback
    assert require(found, "here") is found


@pytest.mark.parametrize(
    ("found", "kernel", "computes"),
    [
        (ask("vllm", "W4A16", "h100", tp=8), "Marlin", "bf16"),
        (ask("vllm", "W8A8", "a100"), "CUTLASS int8", "int8"),
        (ask("vllm", "FP8_DYNAMIC", "h100"), "fp8", "fp8"),
        (ask("vllm", "NVFP4", "b200"), "nvfp4", "fp4"),
        (ask("llama.cpp", "Q4_K_M", "cpu-avx512", container="gguf"), "ggml", "int8"),
        (ask("torch", "W8A8", "cpu-avx512"), "_int_mm", "int8"),
    ],
)
def test_what_runs_natively_has_no_fallback(found: Support, kernel: str, computes: str) -> None:
    assert found.runs and not found.fallback
    assert kernel in found.kernel and found.computes == computes


def test_only_what_this_repository_runs_is_verified() -> None:
    ran = {"torch", "llama.cpp", "transformers"}
    for name in runtimes():
        for row in runtime(name).rows:
            if row.status == "verified":
                assert name in ran and row.vendors == ("x86",) and row.versions and row.date
            assert row.source and row.date


@pytest.mark.parametrize("name", runtimes())
def test_every_scheme_container_and_device_has_an_answer(name: str) -> None:
    for label in scheme_names():
        for container in checkpoints.names():
            for device in names():
                found = ask(name, label, device, container=container)
                assert bool(found.kernel) or found.problems


def test_torch_runs_what_the_matrix_says_it_runs() -> None:
    """The engine's own choice of kernel for one layer, beside the row that foretells it."""
    import torch

    from quantgate.engines._linears import build
    from quantgate.formats.codec import encode, scales_for
    from quantgate.quantize.checkpoints import StoredLinear

    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    for label in ("W4A16", "W4A16-g32", "W4A16-g16", "W3A16-g64", "W2A16-g32", "W8A16", "W8A16-g64", "W8A8"):
        asked = scheme(label)
        assert asked.weights is not None
        scales, zeros = scales_for(weight, asked.weights)
        codes = encode(weight, asked.weights, scales, zeros)
        stored = StoredLinear("layer", codes, scales, zeros, asked.weights, asked.activations)
        _, _, got, refusal = build(stored, torch.bfloat16, torch.device("cpu"), "auto")
        shapes = Geometry((Layer("model.layers.0.mlp.down_proj", 64, 256, label),), 4, 2)
        found = support("torch", asked, "compressed_tensors", profile("cpu-avx512"), shapes)
        assert bool(found.fallback) == bool(refusal), (label, got)


def test_an_unknown_runtime_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'vllm'"):
        ask("vlm", "W4A16", "h100")
