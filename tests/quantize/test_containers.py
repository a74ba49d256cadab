"""One solve, several containers: the same codes in each, unpacked here by the layouts' own published arithmetic."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from quantgate.errors import FormatError, UnknownName
from quantgate.formats import IntGrid
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize import Recipe, checkpoints, load_dequantized
from quantgate.quantize.checkpoints import StoredLinear
from quantgate.quantize.sweep import sweep

IDS = torch.arange(60).reshape(2, 30) * 7 % 300
LAYER = "model.layers.1.mlp.down_proj"


def words(tensor):
    return tensor.numpy().view(np.uint32).astype(np.uint64)


def bits_along(lines, bits, count):
    """``count`` numbers of ``bits`` bits from lines of 32-bit words, lowest bits first: one long stream a line."""
    stream = np.unpackbits(lines.astype("<u4").view(np.uint8).reshape(len(lines), -1), axis=1, bitorder="little")
    numbers = stream[:, : count * bits].reshape(len(lines), count, bits)
    return (numbers * (1 << np.arange(bits))).sum(axis=2)


def gptq_weight(artifact, layer, bits):
    """(code - zero) * scale as AutoGPTQ's and GPTQModel's torch kernels compute it; float32 [out, in]."""
    read = artifact.files.read
    layout = json.loads((artifact.path / "config.json").read_text())["quantization_config"]["checkpoint_format"]
    scales, group = read(f"{layer}.scales").float().numpy(), read(f"{layer}.g_idx").numpy()
    codes = bits_along(np.ascontiguousarray(words(read(f"{layer}.qweight")).T), bits, len(group)).T  # [in, out]
    zeros = bits_along(words(read(f"{layer}.qzeros")), bits, scales.shape[1])  # [groups, out]
    zeros = zeros + 1 if layout == "gptq" else zeros
    return torch.from_numpy((codes - zeros[group]) * scales[group]).T.float()


def awq_weight(artifact, layer):
    """(code - zero) * scale as AutoAWQ's ``dequantize_gemm`` computes it; float32 [out, in]."""
    read = artifact.files.read

    def nibbles(packed):
        straight = torch.stack([(packed >> (4 * at)) & 15 for at in range(8)], dim=-1)
        return straight[..., [0, 4, 1, 5, 2, 6, 3, 7]].reshape(len(packed), -1)  # AWQ_REVERSE_ORDER

    codes, zeros, scales = (
        nibbles(read(f"{layer}.qweight")),
        nibbles(read(f"{layer}.qzeros")),
        read(f"{layer}.scales").float(),
    )
    group = len(codes) // len(scales)
    return ((codes - zeros.repeat_interleave(group, 0)) * scales.repeat_interleave(group, 0)).T.float()


def recipes(containers, **how):
    return [Recipe(container=container, **how) for container in containers]


@pytest.mark.parametrize("symmetric", [True, False])
def test_one_solve_gives_the_same_numbers_in_every_container(tiny, samples, tmp_path, symmetric):
    names = ["compressed_tensors", "gptq_v2", "awq", *(["gptq"] if symmetric else [])]
    how = {"scheme": "W4A16", "group_size": 32, "symmetric": None if symmetric else False, "method": "gptq"}
    made = dict(zip(names, sweep(tiny, samples, recipes(names, **how), tmp_path), strict=True))
    assert [artifact.name for artifact in made.values()][1].endswith("+gptq_v2")
    for layer in made["awq"].quantized:
        first = made["compressed_tensors"].linear(layer)
        exact = first.dequantized(torch.float32)
        for name, artifact in made.items():
            linear = artifact.linear(layer)
            assert torch.equal(linear.codes, first.codes)
            assert torch.equal(linear.scales.float(), first.scales.float())
            told = {"awq": awq_weight}.get(name, lambda one, at: gptq_weight(one, at, 4))
            if name != "compressed_tensors":
                assert torch.equal(told(artifact, layer), exact)
    logits = [load_dequantized(artifact)(IDS).logits for artifact in made.values()]
    assert all(torch.equal(one, logits[0]) for one in logits)


@pytest.mark.parametrize(("bits", "symmetric"), [(2, True), (3, True), (3, False), (8, True), (8, False)])
def test_other_widths(tiny, samples, tmp_path, bits, symmetric):
    how = {"scheme": f"W{bits}A16", "group_size": 32, "symmetric": None if symmetric else False, "method": "rtn"}
    artifact = sweep(tiny, samples, recipes(["gptq_v2"], **how), tmp_path)[0]
    exact = artifact.linear(LAYER).dequantized(torch.float32)
    assert torch.equal(gptq_weight(artifact, LAYER, bits), exact)


def test_words_known_from_other_programs():
    """AutoGPTQ writes symmetric 4-bit zero points as 0x77777777, layout 2 as 0x88888888."""
    grid = IntGrid(bits=4, strategy="group", group_size=32)
    codes, scales = torch.zeros(32, 32, dtype=torch.int8), torch.ones(32, 1, dtype=torch.bfloat16)
    codes[:, 0] = torch.arange(32) % 16 - 8
    layer = StoredLinear("up", codes, scales, None, grid, None)
    packed = {name: checkpoints.get(name).pack(layer) for name in ("gptq", "gptq_v2", "awq")}
    assert {hex(one) for one in words(packed["gptq"]["up.qzeros"]).flatten().tolist()} == {"0x77777777"}
    assert {hex(one) for one in words(packed["gptq_v2"]["up.qzeros"]).flatten().tolist()} == {"0x88888888"}
    assert {hex(one) for one in words(packed["awq"]["up.qzeros"]).flatten().tolist()} == {"0x88888888"}
    # outputs 0 to 7 of column 0 are codes 0 to 7: the nibbles from the lowest hold outputs 0, 2, 4, 6, 1, 3, 5, 7
    assert hex(int(words(packed["awq"]["up.qweight"])[0, 0])) == "0x75316420"
    assert hex(int(words(packed["gptq"]["up.qweight"])[0, 3])) == "0x88888883"


def test_the_configs_say_what_a_runtime_must_know(tiny, samples, tmp_path):
    kept = ("layers.0.mlp.down_proj",)
    how = {"scheme": "W4A16", "group_size": 64, "method": "rtn", "keep": kept}
    gptq, awq = sweep(tiny, samples, recipes(["gptq", "awq"], **how), tmp_path)
    told = json.loads((gptq.path / "config.json").read_text())["quantization_config"]
    assert (told["quant_method"], told["bits"], told["group_size"], told["sym"]) == ("gptq", 4, 64, True)
    assert (told["desc_act"], told["checkpoint_format"], told["pack_dtype"]) == (False, "gptq", "int32")
    assert list(told["dynamic"]) == [r"-:^model\.layers\.0\.mlp\.down_proj$"]
    told = json.loads((awq.path / "config.json").read_text())["quantization_config"]
    assert (told["quant_method"], told["version"], told["bits"], told["group_size"]) == ("awq", "gemm", 4, 64)
    assert told["modules_to_not_convert"] == ["model.layers.0.mlp.down_proj"]


def test_layers_that_runtimes_fuse_are_left_alone_under_both_names(tiny, samples, tmp_path):
    how = {"scheme": "W4A16", "group_size": 64, "method": "rtn", "keep": ("layers.1.self_attn.q_proj",)}
    gptq, awq = sweep(tiny, samples, recipes(["gptq", "awq"], **how), tmp_path)
    prefix = "model.layers.1.self_attn."
    names = [f"{prefix}{leaf}_proj" for leaf in ("k", "q", "qkv", "v")]
    told = json.loads((awq.path / "config.json").read_text())["quantization_config"]
    assert told["modules_to_not_convert"] == names
    told = json.loads((gptq.path / "config.json").read_text())["quantization_config"]
    assert [one.replace("\\", "")[3:-1] for one in told["dynamic"]] == names


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("method", ["rtn", "gptq", "hqq", "awq"])
def test_groups_too_small_for_float16_are_stored_all_the_same(samples, tmp_path, method, symmetric):
    """A scale below 2^-17 is raised to it: what is lost is less than the smallest step of float16."""
    folder = save_random(tmp_path / "quiet")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][3, :32] *= 1e-5
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    recipe = Recipe(
        scheme="W4A16", group_size=32, method=method, container="gptq_v2", symmetric=None if symmetric else False
    )
    artifact = sweep(open_model(folder), samples, [recipe], tmp_path / "out")[0]
    layer = artifact.linear("model.layers.0.mlp.up_proj")
    exact = layer.dequantized(torch.float32)
    assert torch.equal(gptq_weight(artifact, layer.name, 4), exact)
    assert layer.scales.float().min() >= 2.0**-17
    if method != "awq":  # which divides the rows of up_proj
        wanted = tensors["model.layers.0.mlp.up_proj.weight"][3, :32].float()
        assert (exact[3, :32] - wanted).abs().max() <= 16 * 2.0**-17


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (Recipe(scheme="W8A8", container="gptq"), "GPTQ layouts hold integer weights and nothing else"),
        (Recipe(scheme="W4A16", symmetric=False, container="gptq"), "layout 1 cannot store a zero point of 0"),
        (Recipe(scheme="W3A16", container="awq"), "AWQ's layout holds 4 bits with one scale per group"),
    ],
)
def test_what_a_container_cannot_hold_is_said(tiny, samples, tmp_path, recipe, sentence):
    with pytest.raises(FormatError, match=sentence):
        sweep(tiny, samples, [recipe], tmp_path)
    assert not list(tmp_path.iterdir())


def test_outputs_that_do_not_divide_are_refused(samples, tmp_path):
    model = open_model(save_random(tmp_path / "odd", feed_forward=176))
    with pytest.raises(FormatError, match=r"gate_proj: GPTQ layouts pack 32 codes at a time, and \[176, 128\]"):
        sweep(model, samples, [Recipe(scheme="W4A16", container="gptq", group_size=16)], tmp_path / "out")


def test_a_scale_that_is_no_float16_number_is_refused():
    grid = IntGrid(bits=4, strategy="group", group_size=32)
    scales = torch.full((32, 1), 1e-7, dtype=torch.bfloat16)
    layer = StoredLinear("up", torch.zeros(32, 32, dtype=torch.int8), scales, None, grid, None)
    with pytest.raises(FormatError, match="up: its scale 1e-07 is no float16 number"):
        checkpoints.get("gptq").pack(layer)


def test_unknown_containers_name_the_nearest(tiny, samples, tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'awq'"):
        sweep(tiny, samples, [Recipe(scheme="W4A16", container="awk")], tmp_path)
