"""Folders that llm-compressor, AutoRound and GPTQModel wrote mean here what they mean to other people's programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compressed_tensors.entrypoints.convert.converters.autoawq import AutoAWQConverter
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, CompressedTensorsConfig

from quantgate.engines import Prompt
from quantgate.engines.torch import open_engine
from quantgate.models import open_model
from quantgate.quantize import load_dequantized
from quantgate.quantize.foreign import open_foreign

DATA = Path(__file__).parent / "data"
IDS = torch.arange(60).reshape(2, 30) * 7 % 300
MADE = {
    "llm-compressor-mixed": ("llm-compressor, compressed-tensors 0.19.0", "W4A16-g32 + W8A8 + FP8_DYNAMIC"),
    "llm-compressor-nvfp4": ("llm-compressor, compressed-tensors 0.19.0", "NVFP4"),
    "auto-round-gptq": ("auto-round 0.15.1", "W4A16-g32-asym"),
    "auto-round-awq": ("auto-round 0.15.1", "W4A16-g32-asym"),
    "gptqmodel-desc-act": ("gptqmodel:7.7.0", "W4A16-g32"),
}


@pytest.fixture(scope="module")
def base():
    return open_model(DATA / "base")


@pytest.mark.parametrize("name", MADE)
def test_they_open_and_say_who_made_them(base, name):
    found = open_foreign(DATA / name, base)
    assert (found.manifest.made_by, found.scheme.label) == MADE[name]
    assert len(found.quantized) == 7 and found.name == name
    assert [note.event for note in found.manifest.ledger] == ["made by", "calibration"]
    assert {fate.because for fate in found.manifest.fates if fate.asked == "keep"} == {"as the baseline has it"}
    assert max(fate.weight_error or 1 for fate in found.manifest.quantized) < 0.03
    assert {fate.got for fate in found.manifest.quantized} == {fate.asked for fate in found.manifest.quantized}


@pytest.mark.parametrize("name", MADE)
def test_our_engine_runs_them(base, name):
    engine = open_engine(base, open_foreign(DATA / name, base))
    answers = engine.generate([Prompt(turns=(("user", "hello"),), max_tokens=4)])
    assert all(hasattr(answer, "text") for answer in answers)
    assert sum(path.linears for path in engine.kernels) == 7
    if name == "gptqmodel-desc-act":
        assert {path.because.partition(";")[0] for path in engine.kernels} == {"columns grouped out of order"}
    if name == "llm-compressor-mixed":
        assert {path.scheme for path in engine.kernels} == {"W4A16-g32", "W8A8", "FP8_DYNAMIC"}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("llm-compressor-mixed", torch.float32),
        ("llm-compressor-mixed", torch.bfloat16),
        ("llm-compressor-nvfp4", torch.bfloat16),  # transformers decodes fp4 to bfloat16 whatever is asked for
    ],
)
@torch.no_grad()
def test_transformers_computes_the_same_logits(base, quiet, name, dtype):
    theirs = AutoModelForCausalLM.from_pretrained(DATA / name, dtype=dtype).eval()(IDS).logits
    ours = load_dequantized(open_foreign(DATA / name, base), dtype)(IDS).logits
    assert torch.equal(theirs, ours)


@torch.no_grad()
def test_transformers_computes_the_same_logits_of_zero_points(stripped, tiny, quiet):
    folder = stripped("W4A16-g32-asym-rtn")
    how = {"quantization_config": CompressedTensorsConfig(dequantize=True)}
    theirs = AutoModelForCausalLM.from_pretrained(folder.path, dtype=torch.bfloat16, **how).eval()(IDS).logits
    assert torch.equal(theirs, load_dequantized(open_foreign(folder.path, tiny), torch.bfloat16)(IDS).logits)


def test_autorounds_kernel_decodes_gptq_to_the_same_weights(base):
    found = open_foreign(DATA / "auto-round-gptq", base)
    for layer, weight in load_file(DATA / "kernels" / "auto-round-gptq.safetensors").items():
        assert found.linear(layer).zeros is not None
        assert torch.equal(found.linear(layer).dequantized(torch.float32), weight)


def test_gptqmodels_kernel_decodes_columns_out_of_order_to_the_same_weights(base):
    found = open_foreign(DATA / "gptqmodel-desc-act", base)
    for layer, weight in load_file(DATA / "kernels" / "gptqmodel-desc-act.safetensors").items():
        stored = found.linear(layer)
        assert stored.group_of is not None
        loaded = replace(stored, scales=stored.scales.bfloat16().float())  # as it had loaded them
        assert torch.equal(loaded.dequantized(torch.float32), weight)
        sides = replace(loaded, group_of=None)
        assert not torch.equal(sides.dequantized(torch.float32), weight)  # the order matters


@pytest.mark.parametrize("where", ["auto-round-awq", "random"])
def test_compressed_tensors_converts_awq_to_the_same_codes(base, tiny, awq, where):
    model, path = (base, DATA / where) if where != "random" else (tiny, awq().path)
    found, tensors = open_foreign(path, model), load_file(path / "model.safetensors")
    theirs = AutoAWQConverter.from_autoawq_config(found.manifest.config)
    for layer in found.quantized:
        parts = [tensors[f"{layer}.{leaf}"] for leaf in ("qweight", "scales", "qzeros")]
        codes, scales, zeros = theirs._convert_gemm_module(*parts)
        stored = found.linear(layer)
        assert torch.equal(stored.codes, codes) and torch.equal(stored.scales, scales)
        assert stored.zeros is not None and torch.equal(stored.zeros, zeros)


def test_a_tokenizer_that_was_saved_again_is_the_same_tokenizer(base):
    again = DATA / "llm-compressor-mixed"
    assert (again / "tokenizer_config.json").read_bytes() != (base.path / "tokenizer_config.json").read_bytes()
    assert AutoTokenizer.from_pretrained(again).chat_template == base.tokenizer.chat_template
