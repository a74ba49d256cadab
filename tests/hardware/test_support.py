"""The preflight: every known-bad combination is refused with its rule, and every fallback is named as one.

Cases that name an issue are rebuilt from what its thread says, with its shapes; others are a rule alone.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from quantgate.errors import UnknownName, Unsupported
from quantgate.formats import scheme, scheme_names
from quantgate.hardware import Geometry, Layer, Support, names, profile, require, runtime, runtimes, support
from quantgate.hardware.support import KV_BITS, kv_bits
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
    "W4A4 in integers in vLLM": (ask("vllm", "W4A4", "h100"), "choose NVFP4 for 4 bits of both"),
    "W4A4 where no row names it": (ask("tensorrt-llm", "W4A4", "h100"), "W4A4 is in no row of TensorRT-LLM's matrix"),
    "vLLM on a phone of another vendor's NPU": (ask("vllm", "W8A8", "edge-npu"), "not on a laptop's NPU"),
    "llm-compressor 57: Qwen2-72B in eight bits on four devices": (
        ask("vllm", "W8A16", "a100", shapes=llama(29568, stored="W8A16"), tp=4),
        "on each of 4 devices 7392 inputs do not divide into tiles of 128",
    ),
    "auto-round 1726: a gate that was kept beside its up": (
        ask("vllm", "W4A16", "h100", shapes=llama(gate_proj="BF16")), "gate_proj BF16, up_proj W4A16 run as one matrix",
    ),
    "llm-compressor 2730, auto-round 1970: MXFP4 beside eight bits in one matrix": (
        ask("vllm", "MXFP4", "b200", shapes=llama(stored="MXFP4", k_proj="FP8_DYNAMIC")), "run as one matrix",
    ),
    "outputs that do not divide on a shard": (
        ask("vllm", "W4A16", "a100", shapes=llama(28672, 4096 + 32)), "outputs do not divide into tiles of 64",
    ),
    "an expert's inputs across devices": (
        ask("vllm", "W4A16", "h100", shapes=Geometry(
            (Layer("model.layers.0.mlp.experts.0.down_proj", 2048, 768, "W4A16"),), 32, 4, experts=True), tp=4),
        "on each of 4 devices 192 inputs do not divide into tiles of 128",
    ),
    "eight bits with zero points": (ask("vllm", "W8A16-g128-asym", "h100"), "no kernel for 8-bit weights with zero"),
    "eight weight-only bits on a CPU": (ask("vllm", "W8A16", "cpu-avx512"), "on AMD GPUs, NVIDIA GPUs, not on 8 cores"),
    "Marlin on AMD: groups all the same": (
        ask("vllm", "W4A16", "mi300x", shapes=llama(28672 + 64)), "28736 inputs do not divide into groups of 128",
    ),
    "GGUF in SGLang away from CUDA": (ask("sglang", "Q4_K_M", "mi300x", container="gguf"), "choose llama.cpp"),
    "GGUF in TensorRT-LLM": (ask("tensorrt-llm", "Q4_K_M", "h100", container="gguf"), "reads no GGUF"),
    "three bits in SGLang": (ask("sglang", "W3A16", "h100"), "for 4 and 8 bits"),
    "block fp8 on Ada in TensorRT-LLM": (
        ask("tensorrt-llm", "FP8_BLOCK", "l40s", shapes=llama(stored="FP8_BLOCK")), "from compute capability 9.0 on",
    ),
    "fp8 on Ampere in TensorRT-LLM": (
        ask("tensorrt-llm", "FP8", "a100", shapes=llama(stored="FP8")), "from compute capability 8.9 on",
    ),
    "MXFP4 on Hopper in TensorRT-LLM": (
        ask("tensorrt-llm", "MXFP4", "h100", shapes=llama(stored="MXFP4")), "10.0 and 12.0",
    ),
    "compressed-tensors in TensorRT-LLM": (ask("tensorrt-llm", "W4A16", "a100"), "gptq or awq container"),
    "three bits in ONNX Runtime": (ask("onnxruntime", "W3A16", "cpu-avx512"), "in no row of ONNX Runtime's matrix"),
    "GGUF in ONNX Runtime": (ask("onnxruntime", "Q4_0", "cpu-avx512", container="gguf"), "reads no GGUF"),
    "fp8 in OpenVINO": (ask("openvino", "FP8", "cpu-amx", shapes=llama(stored="FP8")), "in no row of OpenVINO's"),
    "OpenVINO on a GPU of NVIDIA": (ask("openvino", "W8A8", "h100"), "Arm CPUs, Intel NPUs, x86 CPUs, not on NVIDIA"),
    "a cache in eight-bit integers in vLLM": (ask("vllm", "W8A8", "a100", kv_cache="int8"), "choose bf16, f16, fp8"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_known_bad_combination_is_refused_with_its_rule(case: str) -> None:
    found, rule = REFUSED[case]
    assert any(rule in problem for problem in found.problems), found.problems
    with pytest.raises(Unsupported) as told:
        require(found, "target 'fleet'")
    assert str(told.value).startswith("target 'fleet': ") and found.date in str(told.value)
    assert told.value.exit_code == 1


def test_layers_that_run_as_one_matrix_divide_together() -> None:
    """7392 outputs of a gate are no tiles of 64, those of gate and up together are; Marlin sees them stacked."""
    shapes = llama(29568)
    alone = Geometry(tuple(one for one in shapes.layers if one.leaf != "down_proj"), 64, 8)
    assert ask("vllm", "W4A16", "a100", shapes=alone, tp=4).runs
    halved = Geometry(tuple(one for one in alone.layers if one.leaf != "up_proj"), 64, 8)
    assert "7392 outputs do not divide" in ask("vllm", "W4A16", "a100", shapes=halved, tp=4).problems[0]


FALLBACKS = {
    "FP8 below 8.9": (ask("vllm", "FP8_DYNAMIC", "a100"), "weight-only (W8A16), inputs are not rounded"),
    "NVFP4 on Hopper": (ask("vllm", "NVFP4", "h100"), "says nothing of Blackwell"),
    "FP8 below 8.9 in SGLang": (ask("sglang", "FP8_DYNAMIC", "a10"), "inputs are not rounded"),
    "NVFP4 on AMD in SGLang": (ask("sglang", "NVFP4", "mi300x", shapes=llama(stored="NVFP4")), "Petit decodes"),
    "NVFP4 on Ada in vLLM": (ask("vllm", "NVFP4", "rtx-4090", shapes=llama(stored="NVFP4")), "no fp4 units"),
    "asymmetric GPTQ in vLLM": (
        ask("vllm", "W4A16-g128-asym", "h100", container="gptq"), "Marlin reads symmetric GPTQ files alone",
    ),
    "GGUF's i-quants in vLLM": (
        ask("vllm", "IQ4_NL", "h100", container="gguf"), "beyond some 8 to 16 tokens weights are decoded",
    ),
    "GGUF in SGLang": (ask("sglang", "Q4_K_M", "h100", container="gguf"), "decoded before it is multiplied"),
    "GGUF in transformers": (ask("transformers", "Q4_K_M", "h100", container="gguf"), "decodes GGUF on load"),
    "bfloat16 on Turing in SGLang": (ask("sglang", "BF16", "t4"), "run in float16"),
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
        (ask("vllm", "W4A8", "graviton4", shapes=llama(stored="W4A8")), "KleidiAI", "int8"),
        (ask("vllm", "W8A8", "graviton3"), "oneDNN int8", "int8"),
        (ask("vllm", "W4A16", "mi300x"), "Triton", "bf16"),
        (ask("vllm", "FP8_DYNAMIC", "mi300x"), "hipBLASLt fp8", "fp8"),
        (ask("tensorrt-llm", "NVFP4", "rtx-5090", shapes=llama(stored="NVFP4")), "nvfp4", "fp4"),
        (ask("tensorrt-llm", "MXFP4", "b200", shapes=llama(stored="MXFP4")), "mxfp4", "fp4"),
        (ask("onnxruntime", "W4A16", "cpu-avx2"), "MatMulNBits", "fp16"),
        (ask("onnxruntime", "W2A16", "h100"), "MatMulNBits", "fp16"),
        (ask("openvino", "W4A16", "cpu-amx"), "compressed weights", "bf16"),
        (ask("openvino", "W8A8", "edge-npu"), "NPU int8", "int8"),
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


@pytest.mark.parametrize(
    ("device", "status"),
    [("cpu-avx512", "verified"), ("cpu-avx512-server", "verified"), ("cpu-avx2", "documented"),
     ("cpu-amx", "documented"), ("m4-max", "documented"), ("graviton4", "documented")],
)  # fmt: skip
def test_verified_is_said_of_the_instruction_sets_that_were_run_alone(device: str, status: str) -> None:
    """AVX2 and AMX take other code paths of the same library."""
    found = ask("llama.cpp", "Q4_K_M", device, container="gguf")
    assert found.runs and found.status == status
    assert bool(found.versions) == (status == "verified")
    assert ("alone" in found.source) == device.startswith(("cpu-avx2", "cpu-amx"))


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


@pytest.mark.parametrize("name", runtimes())
def test_a_cache_that_nobody_names_is_in_sixteen_bits(name: str) -> None:
    """As the runtimes have it where no flag says otherwise."""
    assert KV_BITS[runtime(name).kv_cache[0]] == 16
    assert kv_bits(runtime(name), "auto") == 16


def test_the_usual_cache_of_llamacpp_is_that_of_our_engine_on_it() -> None:
    pytest.importorskip("llama_cpp", reason="llama_cpp is not installed")
    from quantgate.engines.llamacpp import LlamaCppEngine

    assert inspect.signature(LlamaCppEngine).parameters["kv_cache"].default == runtime("llama.cpp").kv_cache[0]


def test_an_unknown_runtime_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'vllm'"):
        ask("vlm", "W4A16", "h100")
