"""The likeliest tokens alone: the published answer, and that a lower bound never exceeds what it bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantgate.engines import Failure, Remote, TokenLogprobs
from quantgate.engines.scripted import ScriptedEngine
from quantgate.errors import EngineError
from quantgate.evaluate.drift import drift, drift_of, positions
from quantgate.evaluate.drift.topk import Local, lower_bounds, remote_drift


def told(logits: torch.Tensor, top: int, also: int | None = None, digits: int | None = None) -> dict[str, float]:
    """ln probabilities of the ``top`` likeliest tokens and of one more, as a server would print them."""
    logs = logits.double().log_softmax(-1)
    order = logs.topk(min(top, len(logs))).indices.tolist() + ([] if also is None else [also])
    return {str(at): float(logs[at]) if digits is None else round(float(logs[at]), digits) for at in order}


def test_known_answer_of_two_tokens_and_a_tail() -> None:
    base, other = torch.tensor([2.0, 1, 0, -1]), torch.tensor([1.5, 1.2, 0.1, -1])
    assert lower_bounds(told(base, 2), told(other, 2))[0] == pytest.approx(0.052868, abs=5e-7)


@given(
    seed=st.integers(0, 10**6),
    width=st.integers(2, 60),
    top=st.integers(0, 60),
    spread=st.floats(0.1, 8),
    moved=st.floats(0, 8),
    other_top=st.integers(0, 60),
)
def test_what_is_bounded_is_never_below_the_bound(
    seed: int, width: int, top: int, spread: float, moved: float, other_top: int
) -> None:
    """Any logits, any number of tokens told by either side, whichever they are; the true token told or not."""
    draw = torch.Generator().manual_seed(seed)
    base = spread * torch.randn(width, generator=draw)
    other = base + moved * torch.randn(width, generator=draw)
    full = positions(base[None], other[None], torch.tensor([0]))
    for also in (None, 0):
        kl, tv = lower_bounds(told(base, top, also), told(other, other_top, also))
        assert 0 <= kl <= float(full.kl[0]) + 1e-7
        assert 0 <= tv <= float(full.tv[0]) + 1e-7


@given(seed=st.integers(0, 10**6), spread=st.floats(0.1, 6), digits=st.integers(4, 7))
def test_rounded_numbers_bound_up_to_their_rounding(seed: int, spread: float, digits: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    base, other = spread * torch.randn(30, generator=draw), spread * torch.randn(30, generator=draw)
    kl, _ = lower_bounds(told(base, 20, digits=digits), told(other, 20, digits=digits))
    full = float(positions(base[None], other[None], torch.tensor([0])).kl[0])
    assert kl <= full * (1 + 100 * 10**-digits) + 100 * 10**-digits


def test_all_tokens_told_is_the_whole_divergence() -> None:
    base, other = torch.tensor([2.0, 1, 0, -1]), torch.tensor([1.5, 1.2, 0.1, -1])
    kl, tv = lower_bounds(told(base, 4), told(other, 4))
    assert [kl, tv] == pytest.approx([0.052984, 0.160706], abs=5e-7)


def test_more_tokens_told_never_loosen_the_bound() -> None:
    draw = torch.Generator().manual_seed(3)
    base, other = 2 * torch.randn(40, generator=draw), 2 * torch.randn(40, generator=draw)
    bounds = [lower_bounds(told(base, 40), told(other, top))[0] for top in range(41)]
    assert bounds == sorted(bounds) and bounds[0] == 0 and bounds[-1] > 1


def test_a_token_that_the_variant_does_not_tell_goes_into_the_rest_on_both_sides() -> None:
    kl, _ = lower_bounds({"a": math.log(0.6), "b": math.log(0.3)}, {"a": math.log(0.5), "c": math.log(0.4)})
    assert kl == pytest.approx(0.6 * math.log(0.6 / 0.5) + 0.4 * math.log(0.4 / 0.5))


def test_parts_of_characters_are_not_taken_for_one_token() -> None:
    assert lower_bounds({"�": math.log(0.9)}, {"�": math.log(0.1)}) == (0.0, 0.0)


class Served:
    """A model behind an interface: what a scripted engine knows, but only its likeliest tokens."""

    def __init__(self, engine: ScriptedEngine, fails: Sequence[str] = ()) -> None:
        self.local, self.fails = Local(engine), fails

    def answer_logprobs(self, turns: Sequence[tuple[str, str]], top: int) -> list[TokenLogprobs] | Failure:
        if turns[0][1] in self.fails:
            return Failure(reason="timed out")
        return self.local.answer_logprobs(turns, top)


def test_served_drift_is_a_lower_bound_with_the_exact_perplexities(sums: Any) -> None:
    base, variant = sums.engine(), ScriptedEngine({}, tilt=0.4)
    (full,) = drift(base, [variant], sums.cases(12))
    found = drift_of(base, Served(variant), sums.cases(12))  # type: ignore[arg-type]
    assert found.lower_bound and not full.lower_bound
    assert 0 < found.kl_mean < full.kl_mean
    assert found.tokens == full.tokens
    for name in ("ppl_baseline", "ppl_variant", "ppl_ratio", "ppl_ratio_se", "rms_dp", "same_top"):
        assert getattr(found, name) == pytest.approx(getattr(full, name), rel=1e-9)
    assert found.detail is not None and full.detail is not None
    assert found.detail.tails == () and len(full.detail.tails) == 2
    assert found.detail.tv_mean is not None and full.detail.tv_mean is not None
    assert found.detail.tv_mean < full.detail.tv_mean
    titles = [table.by for table in found.detail.tables]
    assert "slice" in titles and "position in the answer" in titles and "position in the sequence" not in titles


def test_a_model_served_is_its_own_equal(sums: Any) -> None:
    found = remote_drift(Served(sums.engine()), Served(sums.engine()), sums.cases(8))
    assert (found.kl_mean, found.rms_dp, found.same_top) == (0, 0, 1)


def test_a_served_model_is_told_from_an_engine(sums: Any) -> None:
    assert isinstance(Served(sums.engine()), Remote) and not isinstance(sums.engine(), Remote)


def test_too_many_failed_cases_are_no_measurement(sums: Any) -> None:
    cases = sums.cases(60)
    lost = [case.messages[0].content for case in cases[:2]]
    one = remote_drift(Served(sums.engine()), Served(sums.engine(), lost[:1]), cases)
    assert one.detail is not None and one.detail.documents == 59
    told = r"cannot be measured: 2 of 60 cases failed, first sums-0: variant: timed out"
    with pytest.raises(EngineError, match=told):
        remote_drift(Served(sums.engine()), Served(sums.engine(), lost), cases)


def test_sides_that_cut_answers_differently_are_not_compared(sums: Any) -> None:
    class Other(Served):
        def answer_logprobs(self, turns: Sequence[tuple[str, str]], top: int) -> list[TokenLogprobs] | Failure:
            found = super().answer_logprobs(turns, top)
            return found if isinstance(found, Failure) else found[1:]

    with pytest.raises(EngineError, match="cut the answer into different tokens"):
        remote_drift(Served(sums.engine()), Other(sums.engine()), sums.cases(4))


def test_an_engine_that_cannot_spell_cannot_stand_beside_a_server(sums: Any) -> None:
    class Mute:
        identity = sums.engine().identity

    with pytest.raises(EngineError, match="engine scripted does not say what its tokens stand for"):
        Local(Mute())  # type: ignore[arg-type]
