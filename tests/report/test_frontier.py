"""The frontier puts each variant where its bound says, tells verdicts apart by shape, and never overlaps two names."""

from __future__ import annotations

import re
from html import unescape
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.targeted import evidence_of, released, rules_of

from quantgate.hardware.roofline import Memory
from quantgate.report import RunReport
from quantgate.report.bounds import of_target, overview, worst_of
from quantgate.report.frontier import Axis, Point, Worst, frontier
from quantgate.report.memory_chart import Taken, memory_bars
from quantgate.report.svg import NARROW, WIDE, Labels, overlap, round_steps, width_of

SIZE = Axis("size of all tensors", "MB", 10.0)


def point(name: str, across: float | None, bound: float | None, verdict: str = "pass", **more: object) -> Point:
    return Point(name, across, Worst(bound, None, "math"), verdict, **more)  # type: ignore[arg-type]


def drawn(points: list[Point], axis: Axis = SIZE) -> list[str]:
    """The wide drawing and the narrow one."""
    return re.findall(r"<svg.*?</svg>", str(frontier(points, axis)), re.S)


def texts(svg: str, kind: str) -> list[tuple[float, float, str]]:
    found = re.findall(rf'<text x="([\d.-]+)" y="([\d.-]+)" class="{kind}" text-anchor="\w+">(.*?)</text>', svg, re.S)
    return [(float(x), float(y), told) for x, y, told in found]


def test_height_is_the_bound_in_margins_and_width_the_size() -> None:
    svg = drawn([point("half", 5.0, -0.5), point("edge", 10.0, -1.0)])[0]
    circles = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="6.0"', svg)]
    half, edge = circles[-2:]
    zero, margin = (float(re.search(rf'y1="([\d.]+)"[^>]*class="{kind}"', svg)[1]) for kind in ("zero", "margin"))  # type: ignore[index]
    assert edge[1] == pytest.approx(margin, abs=0.1)
    assert half[1] == pytest.approx((zero + margin) / 2, abs=0.1)
    assert half[0] - 46 == pytest.approx((edge[0] - 46) / 2, abs=0.1)  # the axis begins at 0


def test_twice_and_four_times_the_margin_are_equally_far_apart() -> None:
    svg = drawn([point(name, 5.0, bound, "fail") for name, bound in (("a", -1.0), ("b", -2.0), ("c", -4.0))])[0]
    ys = [float(y) for y in re.findall(r'<path d="M[\d.]+,([\d.]+)l12', svg)][-3:]
    assert ys[1] - ys[0] == pytest.approx(ys[2] - ys[1], abs=0.2) and ys[1] > ys[0]


def test_the_worst_bound_is_over_all_capabilities_and_unknown_where_one_is() -> None:
    gates = rules_of().gates
    found = worst_of(evidence_of("Q4", 20), gates)
    low = evidence_of("Q4", 20).comparisons[1].finding.low
    assert low is not None and found.bound == pytest.approx(low / 0.05) and found.about == "json_tools"
    assert found.seen == pytest.approx(-1.0)  # 20 of 400 is the margin
    assert worst_of(None, gates).bound is None
    half = evidence_of("Q4", 20).model_copy(update={"comparisons": evidence_of("Q4", 20).comparisons[:1]})
    assert worst_of(half, gates).bound is None and "json_tools" in worst_of(half, gates).about


def test_verdicts_differ_by_shape_and_the_chosen_is_ringed() -> None:
    points = [
        point("good", 2.0, -0.5, chosen=("fleet",)),
        point("bad", 5.0, -3.0, "fail"),
        point("open", 8.0, -1.2, "inconclusive", other_model="student"),
    ]
    for svg in drawn(points):
        assert svg.count('class="ring"') == 2  # the mark, and the legend
        assert "<polygon" in svg and svg.count("<path") == 4  # crosses and triangles, those of the legend included
        assert "a model of its own (student), not decided" in svg and "chosen for fleet" in svg
        assert (
            'aria-label="Size against the worst capability bound: 1 pass, 1 fail, 1 not decided; chosen: good"' in svg
        )
        assert "size of all tensors, MB" in svg and "worst bound, in margins" in svg


def test_what_has_no_bound_stands_below_and_what_has_no_size_nowhere() -> None:
    svg = drawn([point("known", 5.0, -0.5), point("dark", 5.0, None, "inconclusive"), point("nowhere", None, -0.5)])[0]
    assert "worst bound not known" in svg and ">none<" in svg and "nowhere" not in svg


@given(
    st.lists(
        st.tuples(
            st.text(min_size=1, max_size=40),
            st.one_of(st.none(), st.floats(0, 1e6, allow_subnormal=False)),
            st.one_of(st.none(), st.floats(-1e6, 1.5)),
            st.sampled_from(["pass", "fail", "inconclusive"]),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_names_never_overlap_and_nothing_leaves_the_drawing(rows: list[tuple]) -> None:  # type: ignore[type-arg]
    points = [
        point(name, across, bound, verdict, chosen=("t",) if chosen else ())
        for name, across, bound, verdict, chosen in rows
    ]
    for svg, width in zip(drawn(points), (WIDE, NARROW), strict=True):
        assert '="nan' not in svg and '="inf' not in svg
        height = float(re.search(r'viewBox="0 0 \d+ (\d+)"', svg)[1])  # type: ignore[index]
        for x, y in re.findall(r'<circle cx="([^"]+)" cy="([^"]+)"', svg):
            assert 0 <= float(x) <= width and 0 <= float(y) <= height
        boxes = [
            (x - width_of(unescape(told)) / 2, y - 11, x + width_of(unescape(told)) / 2, y + 3)
            for kind in ("label", "label picked")
            for x, y, told in texts(svg, kind)
        ]
        assert not any(overlap(one, other) for one, other in combinations(boxes, 2))
        assert all(box[0] >= -0.1 and box[2] <= width + 0.1 for box in boxes)


def test_labels_find_room_or_are_left_out() -> None:
    labels = Labels((0, 0, 200, 60))
    put = [labels.put(100, 30, [f"name{at}", "n"]) for at in range(30)]
    assert put[0] and not put[-1]
    assert not any(overlap(one, other) for one, other in combinations(labels.taken, 2))
    assert all(box[0] >= 0 and box[2] <= 200 and box[1] >= 0 and box[3] <= 60 for box in labels.taken)


def test_wide_letters_take_more_room() -> None:
    assert width_of("模型") == 24.0 and width_of("ab") < 16


@given(st.floats(1e-9, 1e12), st.integers(1, 6))
def test_steps_of_an_axis_are_few_and_within_it(high: float, count: int) -> None:
    steps = round_steps(high, count)
    assert steps[0] == 0 and steps[-1] <= high * 1.0001 and len(steps) <= 2 * count + 2


def test_by_cost_the_axis_is_cost_and_unknown_costs_are_told(report: RunReport) -> None:
    rules = rules_of(prefer="cost", speed="planned")
    found = released(report, {"Q8_0": 0, "Q4_K_M": 2}, [rules], problems={"Q8_0": "no kernel"})
    plot, unplaced = of_target(found, found.targets[0])
    assert "Cost against the worst capability bound" in plot and "in your money" in plot
    assert unplaced == ["Q8_0"]
    assert "Size against the worst capability bound" in overview(found) and "for laptop" in overview(found)


def test_memory_is_stacked_to_scale_against_what_is_there() -> None:
    memory = Memory(process=10**6, weights=4 * 10**6, cache=3 * 10**6, activations=10**6, available=6 * 10**6)
    svg = re.findall(r"<svg.*?</svg>", str(memory_bars([Taken("Q4", memory, True)])), re.S)[0]
    parts = [float(one) for one in re.findall(r'width="([\d.]+)" height="13"', svg)]
    assert [round(one / parts[0], 2) for one in parts] == [1.0, 4.0, 3.0, 1.0]
    edge = float(re.search(r'<line x1="([\d.]+)"[^>]*class="margin"', svg)[1])  # type: ignore[index]
    assert (edge - 2) / sum(parts) == pytest.approx(6 / 9, abs=0.01)
    assert "does not fit, 150 % of 6.0 MB" in svg
    far = Memory(process=0, weights=10**6, cache=0, activations=0, available=80 * 10**9)
    svg = str(memory_bars([Taken("Q4", far)]))
    assert 'class="margin"' not in svg and "less than 1 % of 80.0 GB" in svg


def test_how_a_variant_came_about_is_told_by_the_shape_around_its_mark_and_by_the_legend() -> None:
    """Plain: rounded after training. A diamond: trained codes. A star: a student. Both: a student of trained codes."""
    plain, qat = point("rtn", 3.0, -0.2), point("qat", 4.0, -0.3, trained=("qat",))
    student = point("student", 5.0, -0.4, other_model="student", trained=("distill",))
    both = point("both", 6.0, -0.5, other_model="student", trained=("distill", "qat"), chosen=("",))

    def shapes(points: list[Point]) -> tuple[int, int]:
        """Diamonds and stars beside those of the legend, in the wide drawing."""
        svg = drawn(points)[0].partition("worst bound, in margins")[2]
        return len(re.findall(r'<path d="M[\d.,]+l(10|13),\1l-', svg)), svg.count("<polygon")

    assert [shapes([one]) for one in (plain, qat, student, both)] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    every = drawn([plain, qat, student, both])[0]
    for words in ("rounded after training", "QAT: trained with its rounding", "distilled student"):
        assert every.count(f">{words}</text>") == 1
    assert "both: 6.00 MB, a model of its own (student), distilled, its codes trained (QAT), passes" in unescape(every)
    assert "rounded after training" not in drawn([plain])[0]
    assert (
        ">a model of its own</text>" in drawn([plain, point("theirs", 5.0, -0.4, other_model="fine-tune"), student])[0]
    )
