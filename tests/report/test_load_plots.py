"""Plots of a load test put times where the axis says, and show what was lost, what never came and what is not valid."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.targeted import load_of, rules_of

from quantgate.loadtest.objectives import Objective
from quantgate.report.load_charts import LoadLine, LoadPoint, Spread, spreads, under_load
from quantgate.report.load_target import load_plots, load_sentence

P95 = Objective(latency="ttft", q=0.95, most_s=0.3)
seconds = st.one_of(st.none(), st.floats(1e-6, 1e4))


def circles(svg: str) -> list[tuple[float, float, str]]:
    found = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="(?:5|4.5)" fill="([^"]+)"', svg)
    return [(float(x), float(y), fill) for x, y, fill in found]


def test_quantiles_and_objectives_stand_on_one_logarithmic_axis() -> None:
    rows = [Spread("W4A16", [(0.5, 0.1, 0.09, 0.11), (0.95, 1.0, 0.9, None)])]
    svg = str(spreads(rows, [P95], width=600))
    (half, _, _), (tail, _, _) = circles(svg)
    objective = float(re.search(r'<line x1="([\d.]+)"[^>]*class="margin"', svg)[1])  # type: ignore[index]
    assert (objective - half) / (tail - half) == pytest.approx(math.log10(3), abs=0.01)
    assert 'x2="584.0"' in svg  # nothing bounds p95 from above
    assert "p95 at most 300 ms" in svg


def test_a_quantile_among_lost_requests_is_an_arrow_and_never_a_dot() -> None:
    svg = str(spreads([Spread("W4A16", [(0.5, 0.1, 0.09, 0.11), (0.95, None, 0.2, None)], note="50 of 600 lost")], []))
    assert len(circles(svg)) == 1 and svg.count('class="never"') == 1
    assert "p95 never" in svg and "W4A16: 50 of 600 lost" in svg and "p95: never came" in svg


def test_a_run_that_is_not_valid_is_hollow() -> None:
    points = [LoadPoint(rate, 0.1, 0.09, 0.11, valid, f"at {rate}", lost) for rate, valid, lost in
              ((2.0, True, 0), (4.0, False, 3))]  # fmt: skip
    svg = str(under_load([LoadLine("W4A16", points, 2.0)], "first token p95", 0.3))
    assert [fill for _, _, fill in circles(svg)][1:] == ["var(--a)", "var(--paper)"]  # the first is the legend's
    assert "3 lost" in svg and 'r="10"' in svg


def test_what_never_came_stands_at_the_top_of_the_curve() -> None:
    points = [LoadPoint(2.0, 0.1, 0.09, 0.11, True, "", 0), LoadPoint(4.0, None, 0.5, None, True, "", 60)]
    svg = str(under_load([LoadLine("W4A16", points, None)], "first token p95", 0.3))
    top = min(float(y) for y in re.findall(r'y1="([\d.]+)"[^>]*class="grid"', svg))
    never = re.search(r'<path d="M[\d.]+,([\d.]+)l6,-9', svg)
    assert never is not None and float(never[1]) - 9 == pytest.approx(top, abs=0.2) and "60 lost" in svg


def test_the_baseline_and_every_promise_are_drawn() -> None:
    plots = load_plots([load_of("Q8_0", 0.2, sweep=True)], rules_of().objectives)
    titles = [one.title for one in plots]
    assert titles == ["first token", "first token p95, by rate", "a token", "a token p95, by rate", "whole answer"]
    for one in plots:
        assert "baseline beside Q8_0" in one.plot
    rates = re.findall(r'class="tick" text-anchor="middle">(\d+)</text>', str(plots[1].plot).split("</svg>")[0])
    assert rates == ["2", "4", "8", "16"]


def test_what_a_load_test_does_not_decide_is_said() -> None:
    whole = load_of("Q8_0", 0.2)
    assert load_sentence(whole) == "Q8_0: 600 requests at 8/s, 0 lost"
    cut = whole.model_copy(update={"partial": "stopped after 2 of 6 stretches", "declared": True, "safe": 6.0})
    assert "every objective is proven up to 6/s" in load_sentence(cut)
    assert load_sentence(cut).endswith("operator's word; decides nothing: stopped after 2 of 6 stretches")


@given(
    st.lists(st.tuples(st.floats(0.01, 1e4), seconds, seconds, seconds, st.booleans(), st.integers(0, 9)), max_size=12),
    st.one_of(st.none(), st.floats(1e-6, 1e4)),
    st.sampled_from([600, 350]),
)
def test_nothing_leaves_the_drawing(rows: list[tuple], most_s: float | None, width: int) -> None:  # type: ignore[type-arg]
    points = [
        LoadPoint(row[0], row[1], row[2], row[3], row[4], title="t", lost=row[5])
        for row in sorted(rows, key=lambda row: row[0])
    ]
    limits = [Objective(latency="ttft", q=0.95, most_s=most_s)] if most_s else []
    arms = [Spread("arm", [(0.5, *row[1:4])]) for row in rows]
    for svg in (
        str(under_load([LoadLine("a", points, None)], "x", most_s, width)),
        str(spreads(arms, limits, "x", width)),
    ):
        height = float(re.search(r'viewBox="0 0 \d+ (\d+)"', svg)[1])  # type: ignore[index]
        assert '"nan' not in svg and '"inf' not in svg
        for x, y, _ in circles(svg):
            assert 0 <= x <= width + 4 and 0 <= y <= height
