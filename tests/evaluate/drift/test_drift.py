"""Drift: the known answers of a vocabulary of four tokens, and what it says about nothing at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from quantgate.engines.scripted import ScriptedEngine
from quantgate.errors import EngineError
from quantgate.evaluate.drift import batches, drift, joined, positions, summarize

BASE = torch.tensor([[2, 1, 0, -1], [0.2, 0.1, 0, -3], [5, 0, 0, 0]])
VARIANT = torch.tensor([[1.5, 1.2, 0.1, -1], [0.05, 0.15, 0, -3], [4, 0.5, 0, 0]])
TRUE = torch.tensor([0, 2, 0])


def test_known_answers_of_single_positions() -> None:
    found = positions(BASE, VARIANT, TRUE)
    assert found.kl.tolist() == pytest.approx([0.052984, 0.003712, 0.021563], abs=5e-7)
    assert found.nll_baseline.tolist() == pytest.approx([0.440190, 1.216798, 0.020012], abs=5e-7)
    assert found.nll_variant.tolist() == pytest.approx([0.727307, 1.182614, 0.064690], abs=5e-7)
    assert ((-found.nll_variant).exp() - (-found.nll_baseline).exp()).tolist() == pytest.approx(
        [-0.160706, 0.010300, -0.042829], abs=5e-7
    )
    assert found.same_top.tolist() == [True, False, True]


def test_known_answers_of_the_aggregate() -> None:
    found = summarize(positions(BASE, VARIANT, TRUE))
    assert found.tokens == 3
    assert found.kl_mean == pytest.approx(0.026086, abs=5e-7)
    assert found.kl_median == pytest.approx(0.021563, abs=5e-7)
    assert found.kl_max == pytest.approx(0.052984, abs=5e-7)
    assert found.kl_p99 == pytest.approx(0.052984 - 0.02 * (0.052984 - 0.021563), abs=1e-6)  # linear interpolation
    assert found.same_top == pytest.approx(2 / 3)
    assert found.rms_dp == pytest.approx(0.096206, abs=5e-7)
    assert found.ppl_baseline == pytest.approx(1.748923, abs=5e-7)
    assert found.ppl_variant == pytest.approx(1.931320, abs=5e-7)
    assert found.ppl_ratio == pytest.approx(1.104291, abs=5e-7)
    assert torch.tensor(found.ppl_ratio).log().item() == pytest.approx(0.099204, abs=1e-6)


def test_ratio_error_is_the_paired_one() -> None:
    """se of mean(x - y) = sqrt((s_x^2 + s_y^2 - 2 cov) / n)."""
    seen = positions(BASE, VARIANT, TRUE)
    pairs = torch.stack([seen.nll_baseline, seen.nll_variant])
    ((b, cov), (_, v)) = pairs.cov().tolist()
    assert summarize(seen).ppl_ratio_se == pytest.approx(((b + v - 2 * cov) / 3) ** 0.5)


def test_median_of_an_even_number_lies_between() -> None:
    seen = joined([positions(BASE, VARIANT, TRUE), positions(BASE[:1], BASE[:1], TRUE[:1])])
    assert summarize(seen).kl_median == pytest.approx((0.003712 + 0.021563) / 2, abs=5e-7)


def test_the_same_model_does_not_drift(sums: Any) -> None:
    (found,) = drift(sums.engine(), [sums.engine()], sums.cases(8))
    assert (found.kl_mean, found.kl_max, found.rms_dp, found.ppl_ratio_se) == (0, 0, 0, 0)
    assert (found.same_top, found.ppl_ratio) == (1, 1)


def test_more_tilt_is_more_drift_and_every_variant_is_measured_alone(sums: Any) -> None:
    tilted = [ScriptedEngine({}, tilt=tilt) for tilt in (0.1, 0.5)]
    little, much = drift(sums.engine(), tilted, sums.cases(8))
    assert 0 < little.kl_mean < much.kl_mean
    assert little.same_top > much.same_top
    assert drift(sums.engine(), tilted[1:], sums.cases(8)) == [much]


def test_only_answers_are_scored_and_each_of_their_tokens_once(sums: Any) -> None:
    cases = sums.cases(12)
    answered = sum(len(case.answer) + 1 for case in cases)  # bytes, and the end of the turn
    (found,) = drift(sums.engine(), [sums.engine()], cases)
    assert found.tokens == answered
    for ids, scored in batches(sums.engine(), cases):
        for row, mask in zip(ids.tolist(), scored.tolist(), strict=True):
            said = bytes(row[at + 1] for at, one in enumerate(mask) if one and row[at + 1] < 256).decode()
            prompt = bytes(row[: row.index(256)]).decode()
            assert int(said) == 2 * int(prompt.split()[0]) + 1


def test_how_cases_are_batched_changes_nothing(sums: Any) -> None:
    variants = [ScriptedEngine({}, tilt=0.3)]
    (whole,) = drift(sums.engine(), variants, sums.cases(12))
    assert len(batches(sums.engine(), sums.cases(12), 1)) == 12
    (single,) = drift(sums.engine(), variants, sums.cases(12), tokens_per_batch=1)
    assert single.kl_mean == pytest.approx(whole.kl_mean, rel=1e-12)
    assert single.tokens == whole.tokens


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_told_not_averaged(bad: float) -> None:
    broken = VARIANT.clone()
    broken[1, 2] = bad
    with pytest.raises(EngineError, match="drift cannot be measured: a model gives logits that are NaN or infinite"):
        summarize(positions(BASE, broken, TRUE))


def test_tokens_that_the_baseline_rules_out_add_nothing() -> None:
    base, variant = (torch.cat([one, torch.full((3, 1), -torch.inf)], 1) for one in (BASE, VARIANT))
    assert summarize(positions(base, variant, TRUE)) == summarize(positions(BASE, VARIANT, TRUE))


def test_one_position_has_no_spread_and_none_has_no_mean(sums: Any) -> None:
    with pytest.raises(EngineError, match="needs at least 2 scored positions, found 1; give longer known answers"):
        summarize(positions(BASE[:1], VARIANT[:1], TRUE[:1]))
    unknown = [case.model_copy(update={"answer": None}) for case in sums.cases(3)]
    with pytest.raises(EngineError, match="found 0"):
        drift(sums.engine(), [sums.engine()], unknown)
