"""rtn: nearest codes, and the clipping that loses least."""

from __future__ import annotations

import pytest
import torch

from quantgate.errors import FormatError, UsageError
from quantgate.formats import FloatGrid, IntGrid
from quantgate.formats.codec import encode, scales_for
from quantgate.quantize.methods import Job, LayerStats, solve
from quantgate.quantize.methods.rtn import METHOD, RtnOptions
from quantgate.records import parse

INT3 = IntGrid(bits=3, strategy="group", group_size=32)


def heavy_tails(out: int = 16, columns: int = 128) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(out, columns, generator=generator) / torch.rand(out, columns, generator=generator).sqrt()


def test_min_max_codes_are_the_nearest() -> None:
    weight = heavy_tails()
    scales, _ = scales_for(weight, INT3)
    solved = solve(METHOD, Job(weight, INT3), None)
    assert torch.equal(solved.scales, scales)
    assert torch.equal(solved.codes, encode(weight, INT3, scales))
    assert solved.facts.error is None  # nothing is claimed about outputs without a calibration set


def test_clipping_by_hand() -> None:
    # 31 numbers of size 1 and one of 2: at 2 bits the codes -2, -1, 0, 1 with scale 1 hold all of them exactly
    weight = torch.tensor([[1.0, -1.0] * 15 + [1.0, -2.0]])
    solved = solve(METHOD, Job(weight, IntGrid(bits=2), RtnOptions(clip="mse")), None)
    assert torch.equal(solved.weight(), weight)
    assert solved.facts.clipped == 0.0


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_mse_clipping_never_loses_more_than_min_max(bits: int, symmetric: bool) -> None:
    weight, grid = heavy_tails(), IntGrid(bits=bits, symmetric=symmetric, strategy="group", group_size=32)
    plain = solve(METHOD, Job(weight, grid), None).weight() - weight
    clipped = solve(METHOD, Job(weight, grid, RtnOptions(clip="mse")), None).weight() - weight
    by_group = (16, 4, 32)
    losses = [(one.reshape(by_group) ** 2).sum(-1) for one in (clipped, plain)]
    if bits < 8:  # the search leaves out the last rounding to bfloat16, which matters at 8 bits alone
        assert bool((losses[0] <= losses[1] * 1.01).all())
    assert losses[0].sum() < losses[1].sum()


def test_mse_clipping_matches_an_exhaustive_search() -> None:
    weight = heavy_tails(4, 32)
    solved = solve(METHOD, Job(weight, IntGrid(bits=3), RtnOptions(clip="mse")), None)
    best = torch.full((4,), torch.inf)
    for factor in torch.linspace(0.2, 1.2, 1001):
        scales, _ = scales_for(weight, IntGrid(bits=3), factor)
        stored = encode(weight, IntGrid(bits=3), scales) * scales.float()
        best = torch.minimum(best, (stored - weight).square().sum(1))
    assert bool(((solved.weight() - weight).square().sum(1) <= best * 1.05).all())


def test_hessian_clipping_spares_the_columns_that_matter() -> None:
    weight = heavy_tails()
    inputs = torch.randn(500, 128, generator=torch.Generator().manual_seed(2)) * torch.logspace(-2, 1, 128)
    stats = LayerStats.of(inputs)
    errors = {
        clip: solve(METHOD, Job(weight, INT3, RtnOptions.model_validate({"clip": clip})), stats).facts.error or 9.0
        for clip in ("minmax", "mse", "hessian")
    }
    assert errors["hessian"] < errors["mse"] < errors["minmax"]


def test_clipped_fraction_counts_weights_beyond_the_last_code() -> None:
    weight = torch.ones(1, 64)
    weight[0, 0] = 100.0
    grid = IntGrid(bits=4, strategy="group", group_size=64)
    assert solve(METHOD, Job(weight, grid), None).facts.clipped == 0.0
    tailed = torch.cat([torch.linspace(-1, 1, 255), torch.tensor([3.0])])[None]
    assert solve(METHOD, Job(tailed, IntGrid(bits=4), RtnOptions(clip="mse")), None).facts.clipped == 1 / 256


def test_fp8_needs_no_clipping_and_says_so() -> None:
    weight = heavy_tails()
    solved = solve(METHOD, Job(weight, FloatGrid(), RtnOptions(clip="mse")), None)
    assert torch.equal(solved.scales, scales_for(weight, FloatGrid())[0])
    assert solved.facts.clip == "minmax"


def test_hessian_clipping_without_calibration_is_refused() -> None:
    with pytest.raises(FormatError, match="up_proj: clip 'hessian' needs a calibration set"):
        solve(METHOD, Job(heavy_tails(), INT3, RtnOptions(clip="hessian"), name="up_proj"), None)


def test_unknown_option_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown key 'clipp'; did you mean 'clip'"):
        parse(METHOD.Options, {"clipp": "mse"}, where="release.yaml")
