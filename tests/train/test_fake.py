"""Rounding with gradients: forward is the codec's, backward is the papers'."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.formats import BlockGrid, FloatGrid, Fp4Grid, IntGrid, scheme, scheme_names
from quantgate.formats.codec import decode, encode, grouped, quantize_activations, scales_for, ungrouped
from quantgate.formats.ggml.scales import unpack_scales
from quantgate.formats.schemes import KV_CACHES
from quantgate.train import fake
from quantgate.train.fake import Start, round_input, round_weight, store_as, stored_scales, stored_zeros, within_cells

SIZED = ["W4A16-g32-asym", "W3A16-g64-asym", "W2A16-g32", "W2A16-g16-asym", "W1A16-g32", "W8A16-channel-asym"]
SCHEMES = [name for name in (*scheme_names(), *SIZED) if scheme(name).weights is not None]
ELEMENTS = [name for name in SCHEMES if not isinstance(scheme(name).weights, BlockGrid)]


def begin(name, seed=0, out=None, dtype=torch.bfloat16):
    """A weight of a shape that the scheme takes, and its min-max scales."""
    grid = scheme(name).weights
    assert grid is not None
    rng = torch.Generator().manual_seed(seed)
    rows = 256 if grid.strategy == "block" else 5 if out is None else out
    columns = 256 if isinstance(grid, BlockGrid) or grid.strategy == "block" else (grid.group_size or 13) * 2
    weight = torch.randn(rows, columns, generator=rng) * 0.1
    scales, zeros = scales_for(weight, grid, dtype=dtype)
    shared = 1.0
    if isinstance(grid, Fp4Grid) and grid.scales == "fp8":
        shared = 448 * 6 / float(weight.abs().max())
        shared = float(torch.tensor(shared, dtype=torch.float32))
    return weight, Start(grid, scales, zeros, shared)


def moved_by(start, seed, reach):
    """Values of the trained parts of scales and zero points."""
    rng = torch.Generator().manual_seed(seed)
    log = torch.randn(start.learned, generator=rng) * reach if start.learned else None
    zero = None if start.zeros is None else torch.randn(start.zeros.shape, generator=rng) * reach
    return log, zero


@pytest.mark.parametrize("name", SCHEMES)
def test_forward_is_what_the_container_decodes_to(name):
    weight, start = begin(name)
    log, zero = moved_by(start, 1, 0.2)
    scales = start.scales if log is None else stored_scales(start, log)
    zeros = stored_zeros(start, zero)
    wanted = decode(encode(weight, start.grid, scales, zeros), start.grid, scales, zeros)
    assert torch.equal(round_weight(weight, start, log, zero), wanted)
    assert scales.dtype == start.scales.dtype
    assert zeros is None or (zeros.dtype == torch.int8 and zeros.min() >= start.grid.low)


@pytest.mark.parametrize("name", SCHEMES)
def test_training_begins_with_exactly_the_scales_that_are_stored(name):
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        weight, start = begin(name, dtype=dtype)
        if start.learned:
            assert torch.equal(stored_scales(start, torch.zeros(start.learned)), start.scales)
        log, zero = moved_by(start, 0, 0.0)
        assert torch.equal(
            round_weight(weight, start, log, zero),
            decode(encode(weight, start.grid, start.scales, start.zeros), start.grid, start.scales, start.zeros),
        )


@settings(max_examples=40)
@given(
    name=st.sampled_from(SCHEMES),
    seed=st.integers(0, 1000),
    reach=st.sampled_from([0.01, 0.3, 3.0]),
    out=st.sampled_from([1, 3, 7]),
)
def test_scales_that_were_trained_are_numbers_that_the_container_can_hold(name, seed, reach, out):
    weight, start = begin(name, seed, out)
    log, zero = moved_by(start, seed, reach)
    rounded = round_weight(weight, start, log, zero)
    assert rounded.isfinite().all()
    if log is None or isinstance(start.grid, BlockGrid):
        return
    scales = stored_scales(start, log)
    assert (scales.float() * start.scales.float() > 0).all()
    if isinstance(start.grid, Fp4Grid) and start.grid.scales == "e8m0":
        assert torch.equal(torch.frexp(scales).mantissa, torch.full_like(scales, 0.5))
    elif isinstance(start.grid, Fp4Grid):
        bytes_ = (scales * start.global_scale).to(torch.float8_e4m3fn).float()
        assert torch.equal(bytes_ / start.global_scale, scales)


def by_autograd(weight, start, log, zero):
    """The textbook way: rounding's error is a constant, everything else is differentiated by torch."""
    grid = start.grid

    def spread(x):
        return (x.reshape(1, 1) if grid.strategy == "tensor" else x).unsqueeze(-1)

    scales = spread(stored_scales(start, log.detach()).float() * (log - log.detach()).exp())
    shift = torch.zeros(())
    if zero is not None:
        shift = start.zeros + zero * fake.half_range(grid)
        shift = spread(shift + (stored_zeros(start, zero.detach()) - shift).detach())
    scaled = grouped(weight, grid) / scales + shift
    if isinstance(grid, IntGrid):
        low, high = float(grid.low), float(grid.high)
    else:
        high = 6.0 if isinstance(grid, Fp4Grid) else 448.0
        low = -high
    cut = scaled.clamp(low, high)
    unit = Start(grid.model_copy(update={"strategy": "channel", "group_size": None}), torch.ones(1, 1))
    snapped = cut.detach().round()
    if not isinstance(grid, IntGrid):
        snapped = decode(encode(cut.detach().flatten(1), unit.grid, unit.scales), unit.grid, unit.scales)
    return ungrouped((cut + (snapped.reshape(cut.shape) - cut).detach() - shift) * scales, weight.shape, grid)


@pytest.mark.parametrize("name", [name for name in ELEMENTS if not name.startswith(("W1", "BF"))])
def test_gradients_are_those_of_rounding_as_a_constant_error(name):
    weight, start = begin(name)
    log, zero = moved_by(start, 3, 0.0)
    log = log - 0.4  # so that some weights are beyond the codes
    weight.requires_grad_(), log.requires_grad_()
    asked = [weight, log] if zero is None else [weight, log, zero.requires_grad_()]
    pull = torch.randn(weight.shape, generator=torch.Generator().manual_seed(5))
    mine = torch.autograd.grad((round_weight(weight, start, log, zero) * pull).sum(), asked)
    theirs = torch.autograd.grad((by_autograd(weight, start, log, zero) * pull).sum(), asked)
    assert 0 < int((mine[0] == 0).sum()) < weight.numel()
    for one, other in zip(mine, theirs, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02 * float(other.abs().max()) + 1e-6)


def test_lsq_by_hand():
    """Esser et al. 2020, equation 3, with codes -2..1: round(v) - v within, the outermost code beyond; times s."""
    start = Start(IntGrid(bits=2, strategy="group", group_size=4), torch.tensor([[0.5]]))
    weight = torch.tensor([[0.2, -0.6, 0.9, -7.0]], requires_grad=True)  # v: 0.4, -1.2, 1.8, -14
    for at, slope in enumerate([0 - 0.4, -1 + 1.2, 1, -2]):
        log = torch.zeros(1, 1, requires_grad=True)
        out = round_weight(weight, start, log)
        (found,) = torch.autograd.grad(out[0, at], log)
        assert found.item() == pytest.approx(slope * 0.5)
    (passed,) = torch.autograd.grad(round_weight(weight, start).sum(), weight)
    assert passed.tolist() == [[1, 1, 0, 0]]


def test_zero_points_move_only_for_weights_beyond_the_codes():
    """LSQ+: within, rounding passes the zero point through and it is taken off again; beyond, q = (limit - z) s."""
    grid = IntGrid(bits=2, symmetric=False, strategy="group", group_size=2)
    start = Start(grid, torch.tensor([[0.5]]), torch.tensor([[1]], dtype=torch.int8))
    zero = torch.zeros(1, 1, requires_grad=True)
    weight = torch.tensor([[-0.3, 3.0]])
    out = round_weight(weight, start, torch.zeros(1, 1), zero)
    assert out.tolist() == [[-0.5, 0.0]]
    (within,) = torch.autograd.grad(out[0, 0], zero, retain_graph=True)
    (beyond,) = torch.autograd.grad(out[0, 1], zero)
    assert (within.item(), beyond.item()) == (0.0, -0.5 * 2)  # two codes are half of the range


def test_signs_pass_gradients_near_zero_alone():
    start = Start(IntGrid(bits=2, signs=True, strategy="group", group_size=3), torch.tensor([[0.5]]))
    weight = torch.tensor([[0.2, -0.4, fake.SIGN_REACH * 0.5 + 0.1]], requires_grad=True)
    log = torch.zeros(1, 1, requires_grad=True)
    out = round_weight(weight, start, log)
    assert out.tolist() == [[0.5, -0.5, 0.5]]
    by_weight, by_log = torch.autograd.grad(out.sum(), [weight, log])
    assert by_weight.tolist() == [[1, 1, 0]]
    assert by_log.item() == 0.5  # + s - s + s


def blocks_by_autograd(weight, start, log):
    """``q = d * scale * code + offset``, with rounding's error a constant."""
    layout, held = start.grid.layout, unpack_scales(start.scales, start.grid.layout)
    groups = layout.block // layout.group
    steps = (held.steps() * log[0].exp().repeat_interleave(groups, 1)).unsqueeze(-1)
    shift = torch.zeros(())
    if held.dmin is not None:
        shift = (held.offsets() * log[1].exp().repeat_interleave(groups, 1)).unsqueeze(-1)
    codes = encode(weight.detach(), start.grid, start.scales).unflatten(1, (-1, layout.group))
    cut = ((weight.unflatten(1, (-1, layout.group)) - shift) / steps).clamp(layout.low, layout.high)
    return ((cut + (codes - cut).detach()) * steps + shift).flatten(1)


@pytest.mark.parametrize("name", [name for name in SCHEMES if isinstance(scheme(name).weights, BlockGrid)])
def test_blocks_learn_the_scales_that_they_share(name):
    weight, start = begin(name)
    if not start.learned:
        assert start.grid.layout.powers  # exponents of a block's own, which stay
        return
    weight = (weight * 1.2).requires_grad_()  # some of it beyond the codes
    log = torch.zeros(start.learned, requires_grad=True)
    pull = torch.randn(weight.shape, generator=torch.Generator().manual_seed(5))
    mine = torch.autograd.grad((round_weight(weight, start, log) * pull).sum(), [weight, log])
    theirs = torch.autograd.grad((blocks_by_autograd(weight, start, log) * pull).sum(), [weight, log])
    for one, other in zip(mine, theirs, strict=True):
        assert one.abs().sum() > 0
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["W8A8", "W4A4", "W4A8", "FP8_DYNAMIC", "MXFP4"])
def test_inputs_are_rounded_as_the_runtime_does_and_gradients_pass(name):
    grid = scheme(name).activations
    assert grid is not None
    x = torch.randn(2, 3, 64, requires_grad=True)
    out = round_input(x, grid)
    assert torch.equal(out, quantize_activations(x.detach(), grid))
    pull = torch.randn(out.shape)
    (found,) = torch.autograd.grad((out * pull).sum(), x)
    if not isinstance(grid, IntGrid):
        assert torch.equal(found, pull)
        return
    scale = x.abs().amax(-1, keepdim=True) / ((2**grid.bits - 1) / 2)  # the same with a scale that is part of the graph
    within = x / scale
    relaxed = (within + ((out / scale).round() - within).detach()) * scale
    (wanted,) = torch.autograd.grad((relaxed * pull).sum(), x)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert ((found != pull).sum(-1) == 1).all()  # of every line, its largest number


def test_what_a_line_of_zeros_is_given_passes_as_it_is():
    grid = scheme("W4A4").activations
    assert grid is not None
    x = torch.zeros(2, 8, requires_grad=True)
    (found,) = torch.autograd.grad(round_input(x, grid).sum(), x)
    assert torch.equal(found, torch.ones(2, 8))


def test_a_calibrated_scale_learns_and_cuts_off():
    grid = FloatGrid(strategy="tensor")
    x = torch.tensor([[1.03, -500.0, 0.51]], requires_grad=True)
    given, log = torch.tensor([1.0]), torch.zeros(1, requires_grad=True)
    out = round_input(x, grid, given, log)
    assert out.tolist() == [[1.0, -448.0, 0.5]]
    by_x, by_log = torch.autograd.grad(out.sum(), [x, log])
    assert by_x.tolist() == [[1, 0, 1]]
    assert by_log.item() == pytest.approx((1 - 1.03) - 448 + (0.5 - 0.51), abs=1e-4)
    moved = torch.tensor([0.5])
    assert torch.equal(round_input(x, grid, given, moved), quantize_activations(x, grid, given * moved.exp()))


@pytest.mark.parametrize("format", sorted(KV_CACHES))
def test_keys_and_values_are_rounded_as_the_cache_does(format):
    grid, x = KV_CACHES[format], torch.randn(2, 2, 3, 16, requires_grad=True)
    scale = torch.tensor([0.01]) if grid.strategy == "tensor" else None
    out = round_input(x, grid, scale)
    assert torch.equal(out, quantize_activations(x.detach(), grid, scale))
    assert torch.autograd.grad(out.sum(), x)[0].shape == x.shape


@settings(max_examples=40)
@given(name=st.sampled_from(SCHEMES), seed=st.integers(0, 1000))
def test_weights_in_their_cells_round_to_the_codes_they_were_given(name, seed):
    """Codes of gptq are not the nearest ones; the model's weight is taken as far as they allow."""
    weight, start = begin(name, seed)
    pushed = weight + 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    codes = encode(pushed, start.grid, start.scales, start.zeros)
    near = within_cells(weight, codes, start)
    assert torch.equal(encode(near, start.grid, start.scales, start.zeros).float(), codes.float())
    value = decode(codes, start.grid, start.scales, start.zeros)
    assert ((near - weight).abs() <= (value - weight).abs() + 1e-6).all()
    agree = encode(weight, start.grid, start.scales, start.zeros).float() == codes.float()
    assert torch.equal(near[agree], weight[agree])


def test_a_number_is_seen_as_it_is_stored():
    x = torch.tensor([1.001, 2.0], requires_grad=True)
    out = store_as(x, torch.bfloat16)
    assert out.tolist() == [1.0, 2.0]
    assert torch.autograd.grad(out.sum(), x)[0].tolist() == [1.0, 1.0]
