"""Low-bit layers compute what their codes say, on the kernel that they name, or say why not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from quantgate.engines._linears import (
    KERNEL_ROWS,
    DequantizedLinear,
    Int4Linear,
    Int8DynamicLinear,
    Int8Linear,
    Rounded,
    build,
    token_codes,
    wanted,
)
from quantgate.formats import scheme
from quantgate.formats.codec import encode, quantize_activations, scales_for
from quantgate.quantize.checkpoints import StoredLinear

CPU = torch.device("cpu")
HALF_STEP = 2.0**-8  # of bfloat16, relative: the kernel rounds its float32 sum once to it
ON_KERNEL = [
    ("W4A16", 256, Int4Linear),
    ("W4A16-g32", 96, Int4Linear),
    ("W4A16-g64", 128, Int4Linear),
    ("W4A16-g96", 192, Int4Linear),  # as groups of 32
    ("W4A16-channel", 768, Int4Linear),  # as groups of 256
    ("W3A16-g64", 128, Int4Linear),
    ("W2A16-g32", 128, Int4Linear),
    ("W8A16", 48, Int8Linear),
    ("W8A8", 40, Int8DynamicLinear),
]


def stored(label: str, columns: int, out: int = 48, *, bias: bool = True, seed: int = 0) -> StoredLinear:
    made, chosen = torch.Generator().manual_seed(seed), scheme(label)
    grid = chosen.weights
    assert grid is not None
    weight = torch.randn(out, columns, generator=made)
    scales, zeros = scales_for(weight, grid)
    bits = torch.randn(out, generator=made).bfloat16() if bias else None
    return StoredLinear("layer", encode(weight, grid, scales, zeros), scales, zeros, grid, chosen.activations, bits)


def inputs(rows: int, columns: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).to(dtype)


def exact(layer: StoredLinear, x: Tensor) -> tuple[Tensor, Tensor]:
    """The product in float64 without any rounding but the scheme's own, and the sum of its terms' sizes."""
    scales = layer.scales.double()
    weight = (layer.codes.double().view(*scales.shape, -1) * scales[..., None]).view(layer.codes.shape)
    given = x.double()
    if layer.activations is not None:
        codes, scale = token_codes(x)
        given = codes.double() * scale.double()
    bias = 0.0 if layer.bias is None else layer.bias.double()
    return given @ weight.t() + bias, given.abs() @ weight.abs().t()


@pytest.mark.parametrize(("label", "columns", "kind"), ON_KERNEL)
@pytest.mark.parametrize("rows", [1, 5, KERNEL_ROWS, KERNEL_ROWS + 1])
def test_layer_equals_the_exact_product_within_bfloat16_rounding(
    label: str, columns: int, kind: Any, rows: int
) -> None:
    layer, x = stored(label, columns), inputs(rows, columns)
    module, asked, got, because = build(layer, torch.bfloat16, CPU, "auto")
    assert type(module) is kind
    assert (asked, because) == (got, "")
    want, terms = exact(layer, x)
    # the sum, then the sum with the bias, are each rounded once; above KERNEL_ROWS every weight is, too
    allowed = 2 * HALF_STEP * want.abs() + HALF_STEP * terms / (1 if rows > KERNEL_ROWS else 16) + 1e-3
    assert ((module(x).double() - want).abs() <= allowed).all()


@pytest.mark.parametrize(("label", "columns", "kind"), ON_KERNEL)
def test_layer_agrees_with_the_dequantized_matmul(label: str, columns: int, kind: Any) -> None:
    layer, x = stored(label, columns), inputs(33, columns)
    fast = build(layer, torch.bfloat16, CPU, "auto")[0](x).double()
    slow, asked, got, because = build(layer, torch.bfloat16, CPU, "dequantize")
    assert (asked, got.split(",")[0], because) == (kind.got, "dequantized matmul", "kernels: dequantize was asked for")
    error = (fast - slow(x).double()).norm() / fast.norm()
    assert error < (0.006 if label.startswith("W8") else 0.004)  # W8: half a step of bfloat16 is one of a weight's


def test_many_rows_use_the_very_weights_of_the_dequantized_layer() -> None:
    for label, columns in (("W4A16-g32", 96), ("W4A16-channel", 768), ("W8A16", 48)):
        layer, x = stored(label, columns), inputs(KERNEL_ROWS + 1, columns)
        fast, slow = (build(layer, torch.bfloat16, CPU, kernels)[0] for kernels in ("auto", "dequantize"))
        assert torch.equal(fast.decoded(), layer.dequantized(torch.bfloat16))  # type: ignore[operator]
        assert torch.equal(fast(x), slow(x))


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_int8_by_int8_is_exact_integer_arithmetic_even_at_the_ends_of_the_range(rows: int) -> None:
    layer = stored("W8A8", 640, bias=False)
    layer.codes[0], layer.codes[1] = 127, -128
    module = Int8DynamicLinear(layer, torch.float32)
    x = inputs(rows, 640, torch.float32)
    x[0] = x[0].abs().max()  # all activations at the top of the range
    codes, scale = token_codes(x)
    sums = codes.long() @ layer.codes.long().t()
    assert torch.equal(module(x), sums.float() * layer.scales.float().view(-1) * scale)


def test_token_codes_are_the_rounding_of_the_schemes_activations() -> None:
    grid = scheme("W8A8").activations
    assert grid is not None
    for dtype in (torch.float32, torch.bfloat16):
        x = inputs(9, 40, dtype)
        x[3] = 0
        codes, scale = token_codes(x)
        assert torch.equal(codes.to(dtype) * scale.to(dtype), quantize_activations(x, grid))


def test_fp8_is_emulated_and_named_so() -> None:
    layer, x = stored("FP8_DYNAMIC", 64), inputs(5, 64, torch.float32)
    module, asked, got, because = build(layer, torch.float32, CPU, "auto")
    assert (asked, got, because) == (*["dequantized matmul, activations emulated"] * 2, "")
    assert layer.activations is not None and layer.bias is not None
    want = quantize_activations(x, layer.activations) @ layer.dequantized(torch.float32).t() + layer.bias.float()
    torch.testing.assert_close(module(x), want)


@pytest.mark.parametrize(
    ("label", "columns", "out", "dtype", "reason"),
    [
        ("W4A16-g16", 64, 48, torch.bfloat16, "groups of 16 columns"),
        ("W4A16-channel", 48, 48, torch.bfloat16, "groups of 48 columns"),
        ("W4A16-g32", 64, 40, torch.bfloat16, "40 outputs"),
        ("W4A16-g32-asym", 64, 48, torch.bfloat16, "zero points"),
        ("W4A16-g32", 64, 48, torch.float32, "activations in float32"),
        ("W8A16", 40, 48, torch.bfloat16, "40 inputs"),  # torch would read past its buffers
        ("W8A16-g32", 64, 48, torch.bfloat16, "8-bit group weights"),
        ("W8A16", 64, 48, torch.float16, "activations in float16"),
    ],
)
def test_what_a_kernel_cannot_take_is_dequantized_and_says_why(
    label: str, columns: int, out: int, dtype: torch.dtype, reason: str
) -> None:
    layer, x = stored(label, columns, out), inputs(3, columns, dtype)
    module, asked, got, because = build(layer, dtype, CPU, "auto")
    assert isinstance(module, DequantizedLinear)
    assert because.startswith(reason)
    assert "kernel" in asked and got == "dequantized matmul"
    assert layer.bias is not None
    want = x.double() @ layer.dequantized(dtype).double().t() + layer.bias.double()
    torch.testing.assert_close(module(x).double(), want, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("label", ["W4A4", "W4A4-g32", "W4A4-channel"])
def test_four_bit_inputs_are_emulated_to_the_bit_and_named_so(label: str) -> None:
    layer, x = stored(label, 128), inputs(5, 128, torch.float32)
    module, _, got, because = build(layer, torch.float32, CPU, "auto")
    assert got == "dequantized matmul, activations emulated"
    assert because.startswith("4-bit") and because.endswith("the kernel takes 8 bits with one scale per channel")
    assert layer.bias is not None
    scale = x.abs().amax(dim=1, keepdim=True) / 7.5
    rounded = (x / scale).clamp(-8, 7).round() * scale  # 16 codes a token
    want = rounded @ layer.dequantized(torch.float32).t() + layer.bias.float()
    torch.testing.assert_close(module(x), want)
    assert len((rounded[0] / scale[0]).round().unique()) <= 16


def test_eight_bit_weights_with_four_bit_inputs_do_not_reach_the_int8_kernel() -> None:
    layer = replace(stored("W8A8", 128), activations=scheme("W4A4").activations)
    module, _, _, because = build(layer, torch.bfloat16, CPU, "auto")
    assert isinstance(module, DequantizedLinear)
    assert because == "4-bit inputs; the kernel takes 8 bits"


def test_other_devices_are_refused_the_kernels_of_the_cpu() -> None:
    for label in ("W4A16", "W8A16", "W8A8"):
        assert wanted(stored(label, 128), torch.bfloat16, torch.device("cuda"))[1].startswith("device cuda")


def test_leading_dimensions_are_kept() -> None:
    for label, columns, _ in ON_KERNEL:
        module = build(stored(label, columns), torch.bfloat16, CPU, "auto")[0]
        x = inputs(6, columns)
        assert torch.equal(module(x.view(2, 3, columns)).view(6, -1), module(x))


@pytest.mark.parametrize("label", ["W8A8", "FP8_DYNAMIC"])
def test_layers_that_share_what_an_input_was_rounded_to_give_what_each_gives_alone(label: str) -> None:
    rounded, layers = Rounded(), [stored(label, 64), stored(label, 64, bias=False)]
    for x in (inputs(3, 64), inputs(4, 64) * 2):
        for layer in layers:
            for kernels in ("auto", "dequantize"):  # two kinds of layer, which need other things of the input
                together = build(layer, torch.bfloat16, CPU, kernels, rounded)[0](x)
                assert torch.equal(together, build(layer, torch.bfloat16, CPU, kernels)[0](x))
