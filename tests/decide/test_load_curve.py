"""The rates of a sweep beside the one that decides."""

from __future__ import annotations

from tests.report.targeted import measured_of

from quantgate.decide.load_curve import curve_of
from quantgate.loadtest.result import ArmResult, LoadResult


def swept(*cells: tuple[str, float, int | None]) -> LoadResult:
    results = [ArmResult(arm=arm, rate=rate, limit=limit, measured=measured_of(0.1)) for arm, rate, limit in cells]
    return LoadResult(
        plan="sha256:plan", arms=("baseline", "W4A16"), whats=("a", "b"), seed=0, blocks=6, objectives=(), asked=(),
        results=tuple(results), verdict=None, sentence="measured",
    )  # fmt: skip


def test_a_sweep_is_every_other_rate_of_the_arm_with_the_baseline_beside_it() -> None:
    cells = [
        (arm, rate, limit) for rate in (8.0, 16.0, 2.0, 4.0) for limit in (None, 4) for arm in ("baseline", "W4A16")
    ]
    found = curve_of(swept(*cells[:-2]), "W4A16", 8.0, 4)
    assert [one.rate for one in found] == [2.0, 16.0]  # at 4/s only without a limit
    assert all(one.baseline is not None for one in found)
    assert [one.rate for one in curve_of(swept(*cells), "W4A16", 8.0, None)] == [2.0, 4.0, 16.0]


def test_the_baseline_has_none_beside_itself_and_a_single_rate_is_no_curve() -> None:
    cells = [("baseline", 8.0, None), ("W4A16", 8.0, None), ("baseline", 2.0, None)]
    assert [one.baseline for one in curve_of(swept(*cells), "baseline", 8.0, None)] == [None]
    assert curve_of(swept(*cells), "W4A16", 8.0, None) == ()
