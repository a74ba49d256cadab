"""What every method promises, whatever it does in between."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from quantgate.errors import BadTensor, FormatError, UnknownName
from quantgate.formats import FloatGrid, IntGrid
from quantgate.formats.codec import decode
from quantgate.formats.grids import Grid
from quantgate.quantize.methods import Facts, Job, LayerStats, Method, get, names, solve

GRIDS: list[Grid] = [
    IntGrid(bits=4, strategy="group", group_size=16),
    IntGrid(bits=2, strategy="group", group_size=16, symmetric=False),
    IntGrid(bits=8),
    IntGrid(bits=5, strategy="tensor"),
    IntGrid(bits=2, signs=True, strategy="group", group_size=16),
    FloatGrid(),
    FloatGrid(strategy="block", group_size=4),
]
every_method = pytest.mark.parametrize("method", [get(name) for name in names()], ids=names())
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.type}{grid.bits}-{grid.strategy}")


def weight_and_stats(out: int = 12, columns: int = 48, tokens: int = 200) -> tuple[Tensor, LayerStats]:
    generator = torch.Generator().manual_seed(7)
    mix = torch.randn(columns, columns, generator=generator)
    inputs = torch.randn(tokens, columns, generator=generator) @ mix
    return torch.randn(out, columns, generator=generator), LayerStats.of(inputs)


def test_methods_are_found_by_name_alone() -> None:
    assert {"gptq", "rtn"} <= set(names())
    with pytest.raises(UnknownName, match="did you mean 'gptq'"):
        get("gtpq")


@every_method
@every_grid
def test_codes_scales_and_zeros_have_the_shapes_of_the_grid(method: Method, grid: Grid) -> None:
    weight, stats = weight_and_stats()
    solved = solve(method, Job(weight, grid), stats)
    assert solved.codes.shape == weight.shape
    assert solved.codes.dtype == (torch.int8 if isinstance(grid, IntGrid) else torch.float8_e4m3fn)
    assert solved.scales.shape == grid.scales_shape(*weight.shape)
    assert solved.scales.dtype == torch.bfloat16
    assert (solved.zeros is None) == grid.symmetric
    if isinstance(grid, IntGrid):
        assert grid.low <= int(solved.codes.min()) and int(solved.codes.max()) <= grid.high
    assert torch.equal(solved.weight(), decode(solved.codes, grid, solved.scales, solved.zeros))


@every_method
@every_grid
def test_reported_error_is_that_of_the_stored_weight(method: Method, grid: Grid) -> None:
    weight, stats = weight_and_stats()
    solved = solve(method, Job(weight, grid), stats)
    change, hessian = (solved.weight() - weight).double(), stats.hessian.double()
    expected = (change @ hessian @ change.T).trace() / (weight.double() @ hessian @ weight.double().T).trace()
    assert solved.facts.error == pytest.approx(float(expected), rel=1e-3)


@every_method
def test_facts_are_plain_numbers_and_words(method: Method) -> None:
    weight, stats = weight_and_stats()
    facts = solve(method, Job(weight, GRIDS[0]), stats).facts
    assert Facts.model_validate(json.loads(json.dumps(facts.body(), allow_nan=False))) == facts
    assert facts.asked == facts.method and not facts.because


@every_method
def test_many_jobs_give_what_each_gives_alone(method: Method) -> None:
    weight, stats = weight_and_stats()
    other = weight.flip(0)[:8] * 3
    jobs = [Job(one, grid) for grid in GRIDS for one in (weight, other)]
    together = method.solve_many(jobs, stats)
    for job, solved in zip(jobs, together, strict=True):
        alone = solve(method, job, stats)
        assert solved.grid == job.grid
        assert torch.equal(solved.scales, alone.scales)
        assert torch.equal(solved.codes.float(), alone.codes.float())


@every_method
def test_weight_of_zeros_stays_zero(method: Method) -> None:
    _, stats = weight_and_stats()
    solved = solve(method, Job(torch.zeros(3, 48), GRIDS[0]), stats)
    assert torch.equal(solved.weight(), torch.zeros(3, 48))
    assert solved.facts.error is None


@every_method
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weight_that_is_not_finite_is_named(method: Method, bad: float) -> None:
    weight, stats = weight_and_stats()
    weight[3, 5] = bad
    with pytest.raises(BadTensor, match=r"layers\.0\.up_proj: holds NaN or Inf"):
        solve(method, Job(weight, GRIDS[0], name="layers.0.up_proj"), stats)


@every_method
def test_hessian_that_is_not_finite_is_named(method: Method) -> None:
    weight, stats = weight_and_stats()
    stats.hessian[0, 1] = float("nan")
    with pytest.raises(BadTensor, match="up_proj: its calibration Hessian holds NaN or Inf"):
        solve(method, Job(weight, GRIDS[0], name="up_proj"), stats)


@every_method
def test_hessian_of_another_layer_is_refused(method: Method) -> None:
    _, stats = weight_and_stats()
    with pytest.raises(BadTensor, match=r"up_proj: its calibration Hessian has shape \[48, 48\], expected \[64, 64\]"):
        solve(method, Job(torch.ones(2, 64), GRIDS[0], name="up_proj"), stats)


@every_method
def test_group_that_does_not_divide_is_refused_before_anything_is_solved(method: Method) -> None:
    _, stats = weight_and_stats(columns=60)
    with pytest.raises(FormatError, match="up_proj: 60 input columns do not divide into groups of 16; choose a group"):
        solve(method, Job(torch.ones(2, 60), GRIDS[0], name="up_proj"), stats)


@every_method
def test_grid_of_activations_is_refused_for_weights(method: Method) -> None:
    weight, stats = weight_and_stats()
    with pytest.raises(FormatError, match="one scale per token is for activations"):
        solve(method, Job(weight, IntGrid(bits=8, strategy="token")), stats)


@every_method
def test_weight_is_left_as_it_was(method: Method) -> None:
    weight, stats = weight_and_stats()
    before, hessian = weight.clone(), stats.hessian.clone()
    solve(method, Job(weight, GRIDS[0]), stats)
    assert torch.equal(weight, before) and torch.equal(stats.hessian, hessian)
