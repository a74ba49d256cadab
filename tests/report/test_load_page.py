"""load.html: what stands on it when runs are not valid, names are long, or an axis spans many decades."""

from __future__ import annotations

from quantgate.loadtest import Timed
from quantgate.loadtest.arrivals import draw
from quantgate.loadtest.drive import Run
from quantgate.loadtest.journal import Cell
from quantgate.loadtest.prompts import Fitted
from quantgate.loadtest.result import LoadResult, result_of
from quantgate.loadtest.runs import Arm, Plan
from quantgate.report.load_charts import _Scale
from quantgate.report.load_page import load_page


def result(*, took: float) -> LoadResult:
    """Ten requests at 10/s; ``took`` is how long sending them really took, in seconds."""
    schedule = draw("constant", 10.0, 1.0, 0)
    fitted = Fitted(requests=10, made=0, cut=0, wanted_tokens=0, made_tokens=0, counted="", prompts="sha256:0")
    plan = Plan(arms=(Arm(name="W4A16", what="sha256:1"),), schedules=(schedule,), fitted=(fitted,))
    timed = [
        Timed(at=at, due_s=at / 10, lag_s=0.0, ttft_s=0.1, e2e_s=0.3, gaps_s=(0.1,), tokens=3, prompt_tokens=9,
              beside=1.0, stages={})
        for at in range(10)
    ]  # fmt: skip
    return result_of(plan, {Cell(0, 0, 0, 0): Run(timed, 10, 1.0, 0.9, took, "", 1.2)}, "")


def test_a_run_that_is_not_valid_stands_on_the_page_before_any_figure() -> None:
    page = load_page(result(took=1.5))
    assert page.index("Not valid.") < page.index("<svg") and "W4A16, 10/s" in page
    assert "Not valid." not in load_page(result(took=0.9))


def test_an_axis_of_many_decades_is_labelled_by_powers_of_ten() -> None:
    assert _Scale(0.1, 1.0).ticks() == [0.1, 0.2, 0.5, 1.0]
    wide = _Scale(1e-7, 5e-4).ticks()
    assert len(wide) <= 6 and all(f"{one:.0e}".startswith("1e") for one in wide)
