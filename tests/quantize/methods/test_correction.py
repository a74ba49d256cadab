"""The corrected weight is the optimum against drifted inputs; rounded, it loses less there than the plain one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantgate.errors import UsageError
from quantgate.formats import IntGrid
from quantgate.quantize.methods import Job, LayerStats, Solved, get, solve
from quantgate.quantize.methods._correction import corrected, output_error, pull
from quantgate.quantize.methods.gptq import GptqOptions
from quantgate.records import parse

GRID = IntGrid(bits=3, strategy="group", group_size=16)


def drifted(seed: int = 0, columns: int = 32, tokens: int = 400, drift: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """A weight [24, in], the model's inputs and the variant's [tokens, in]."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator)
    inputs = torch.randn(tokens, columns, generator=generator) @ mix
    leak = torch.randn(columns, columns, generator=generator)
    own = inputs + drift * (0.3 * torch.randn(inputs.shape, generator=generator) @ mix + 0.1 * inputs @ leak)
    return torch.randn(24, columns, generator=generator), inputs, own


def own_stats(inputs: Tensor, own: Tensor) -> LayerStats:
    stats = LayerStats.of(own)
    stats.model, stats.drift = LayerStats.of(inputs), (inputs - own).T @ own / len(own)
    stats.wanted = stats.model.hessian
    return stats


def lost(weight: Tensor, stored: Tensor, inputs: Tensor, own: Tensor) -> float:
    return float((own @ stored.T - inputs @ weight.T).double().square().sum())


def solved(weight: Tensor, stats: LayerStats, **options: object) -> Solved:
    return solve(get("gptq"), Job(weight, GRID, GptqOptions.model_validate(options), scale_dtype=torch.float32), stats)


def test_one_number_by_hand():
    one = torch.ones(1, 1)  # x = 2, x' = 1: D = (2 - 1) * 1 = 1 and H' = 1, so twice the weight makes up for the half
    assert float(corrected(3 * one, LayerStats(one, 1, drift=one), 1.0, 0.0)) == pytest.approx(6.0)
    assert float(corrected(3 * one, LayerStats(one, 1, drift=one), 0.5, 0.0)) == pytest.approx(4.5)
    assert float(corrected(3 * one, LayerStats(one, 1, drift=one), 1.0, 1.0)) == pytest.approx(4.5)


def test_without_a_drift_the_weight_is_the_weight():
    weight, inputs, _ = drifted()
    assert corrected(weight, LayerStats.of(inputs), 1.0, 0.0) is weight
    still = own_stats(inputs, inputs)
    assert torch.equal(corrected(weight, still, 1.0, 1e-3), weight)


@given(seed=st.integers(0, 1000), drift=st.floats(0.01, 1.0))
def test_at_the_optimum_what_is_left_is_orthogonal_to_the_inputs(seed, drift):
    weight, inputs, own = drifted(seed, drift=drift)
    best = corrected(weight, own_stats(inputs, own), 1.0, 0.0)
    left = own.double() @ best.double().T - inputs.double() @ weight.double().T
    assert float((own.double().T @ left).abs().max()) < 1e-3 * float((inputs.T @ inputs @ weight.T).abs().max())


def test_a_feature_that_was_never_used_pulls_nothing():
    _, inputs, own = drifted()
    own[:, 3] = 0.0
    stats = own_stats(inputs, own)
    assert stats.drift is not None
    moved = pull(stats.hessian, stats.drift, 0.0)
    assert bool(moved.isfinite().all())
    assert float(moved[:, 3].abs().max()) == 0.0


@given(seed=st.integers(0, 1000), drift=st.floats(0.3, 1.0))
def test_corrected_codes_lose_less_of_the_models_output_than_plain_ones(seed, drift):
    weight, inputs, own = drifted(seed, drift=drift)
    stats = own_stats(inputs, own)
    plain = lost(weight, solved(weight, LayerStats.of(inputs)).weight(), inputs, own)
    mended = lost(weight, solved(weight, stats, propagate="corrected").weight(), inputs, own)
    assert mended < plain


def test_the_record_tells_both_errors():
    weight, inputs, own = drifted()
    stats = own_stats(inputs, own)
    found = solved(weight, stats, propagate="corrected")
    output = float((inputs @ weight.T).double().square().sum())
    change = found.weight() - weight
    assert found.facts.propagated == "corrected"
    assert found.facts.output_error == pytest.approx(lost(weight, found.weight(), inputs, own) / output, rel=1e-4)
    assert found.facts.error == pytest.approx(float((inputs @ change.T).double().square().sum()) / output, rel=1e-4)
    assert output_error(weight, weight, stats) == pytest.approx(lost(weight, weight, inputs, own) / output, rel=1e-4)
    assert output_error(weight, weight, LayerStats.of(own)) is None


def test_variants_that_correct_differently_do_not_mix_in_one_stack():
    weight, inputs, own = drifted()
    stats = own_stats(inputs, own)
    options = [GptqOptions(propagate="inputs"), GptqOptions(propagate="corrected", correction=0.5)]
    together = get("gptq").solve_many([Job(weight, GRID, one) for one in options], stats)
    for one, found in zip(options, together, strict=True):
        assert torch.equal(found.codes, solve(get("gptq"), Job(weight, GRID, one), own_stats(inputs, own)).codes)
    assert not torch.equal(together[0].codes, together[1].codes)


def test_records_of_variants_without_propagation_are_what_they_were():
    plain = {"damping": 0.01, "order": "activation", "clip": "hessian", "descent": 2, "leaf": 32}
    assert GptqOptions().body() == GptqOptions(propagate=False).body() == plain
    weight, inputs, _ = drifted()
    body = solved(weight, LayerStats.of(inputs)).facts.body()
    assert not {"propagated", "output_error"} & set(body)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"propagate": "activations"}, "'propagate': input should be False, 'inputs' or 'corrected', found"),
        ({"steps": "block"}, "'steps' has no effect without 'propagate'; set propagate: corrected, or remove it"),
        ({"propagate": "inputs", "correction": 0.5}, "'correction' has no effect with propagate: inputs; "),
        ({"propagate": "corrected", "correction": 0}, "'correction': input should be greater than 0, found 0"),
    ],
)  # fmt: skip
def test_options_without_effect_are_refused(options, sentence):
    with pytest.raises(UsageError, match="options of gptq: ") as refused:
        parse(GptqOptions, options, where="options of gptq")
    assert sentence in str(refused.value)
