"""Hopeless variants are stopped by their drift where the release allows it, are never judged and never chosen."""

from __future__ import annotations

from typing import Any

import pytest

from quantgate import pipeline
from quantgate.cli.screen import exit_code
from quantgate.decide import Candidate, decide
from quantgate.engines.scripted import ScriptedEngine
from quantgate.evaluate.drift import drift
from quantgate.evaluate.drift_record import Drift
from quantgate.evaluate.evidence import Evidence, Gate
from quantgate.evaluate.suites import cases
from quantgate.pipeline.drifting import screened
from quantgate.records import digest_of
from quantgate.release_config import load_config
from quantgate.report.html import html_page
from quantgate.report.junit import junit_xml
from quantgate.target_config import ScreenConfig

RUINED = {"scheme": "W2A16", "group_size": 32, "method": "rtn", "name": "ruined"}
GATE = Gate(capability="math", suite="math", margin=0.05)


def measured(tilt: float) -> Drift:
    return drift(ScriptedEngine({}), [ScriptedEngine({}, tilt=tilt)], cases("math", "tune", 12))[0]


def decided(*names: str, stopped: tuple[str, ...] = (), order: str = "e-bonferroni") -> Any:
    """``names`` from the largest to the smallest; those in ``stopped`` were screened, the others have no evidence."""
    candidates = [
        Candidate(name=name, artifact=digest_of(name), stored_bytes=100 - at, bits_per_weight=4.0)
        for at, name in enumerate(names)
    ]
    found = [
        Evidence(
            variant=name, artifact=digest_of(name), baseline="b", engine="e", baseline_engine="e", kernels=(),
            comparisons=(), drift=None, screened="not judged: screened by its drift alone, mean KL 3",
        )
        for name in stopped
    ]  # fmt: skip
    return decide([GATE], candidates, found, alpha=0.05, order=order)  # type: ignore[arg-type]


def test_a_screened_variant_is_undecided_never_chosen_and_the_exit_code_says_so() -> None:
    decision = decided("small", stopped=("small",))
    (verdict,) = decision.verdicts
    assert (verdict.verdict, verdict.eligible, decision.chosen) == ("inconclusive", False, None)
    assert verdict.sentence == verdict.screened == "not judged: screened by its drift alone, mean KL 3"
    assert exit_code(decision) == 3


def test_screening_of_other_bytes_says_nothing() -> None:
    decision = decided("small", stopped=("small",))
    moved = Candidate(name="small", artifact=digest_of("other"), stored_bytes=1, bits_per_weight=4.0)
    evidence = Evidence(
        variant="small", artifact=digest_of("small"), baseline="b", engine="e", baseline_engine="e", kernels=(),
        comparisons=(), drift=None, screened="not judged",
    )  # fmt: skip
    other = decide([GATE], [moved], [evidence], alpha=0.05, order="e-bonferroni")
    assert other.verdicts[0].screened == "" and decision.verdicts[0].screened
    assert other.verdicts[0].verdict == "inconclusive"


@pytest.mark.parametrize(
    ("limits", "stops"),
    [
        ({"kl_mean": 1e-4}, True),
        ({"kl_mean": 50.0}, False),
        ({"ppl_ratio": 1.01}, True),
        ({"ppl_ratio": 5.0}, False),
        ({"same_top": 0.999}, True),
        ({"same_top": 0.001}, False),
        ({"kl_mean": 50.0, "same_top": 0.999}, True),
    ],
)
def test_any_limit_that_is_surely_broken_stops(limits: dict[str, float], stops: bool) -> None:
    told = screened(measured(0.6), ScreenConfig(**limits))
    assert bool(told) == stops
    assert told.startswith("not judged: screened by its drift alone, ") or not stops


def test_chance_screens_nobody() -> None:
    """The mean is beyond the limit and the near end of its interval is not."""
    found = measured(0.3)
    assert found.detail is not None and found.detail.kl.low is not None
    between = (found.detail.kl.low + found.kl_mean) / 2
    assert screened(found, ScreenConfig(kl_mean=between)) == ""
    assert screened(found, ScreenConfig(kl_mean=0.99 * found.detail.kl.low)) == (
        f"not judged: screened by its drift alone, mean KL {found.kl_mean:.3g} ({found.detail.kl.low:.3g} or more) "
        f"where {0.99 * found.detail.kl.low:g} is allowed"
    )


def test_nothing_is_screened_without_a_rule_or_without_a_measurement() -> None:
    assert screened(measured(0.9), None) == screened(None, ScreenConfig(kl_mean=1e-9)) == ""


def settings(release: Any, **more: Any) -> Any:
    capabilities = {"rare_vocabulary": {"margin": "50%", "cases": 30}}
    return load_config(release(capabilities=capabilities, variants=["W8A16", RUINED], drift_cases=16, **more))


def test_a_release_asks_a_screened_variant_no_case_and_every_page_says_so(release: Any, tmp_path: Any) -> None:
    open_ = pipeline.run(settings(release, out=str(tmp_path / "open")))
    ruined = next(one for one in open_.evidence if one.variant == "ruined")
    intact = next(one for one in open_.evidence if one.variant == "W8A16")
    assert ruined.drift is not None and intact.drift is not None and ruined.screened == intact.screened == ""
    limit = (ruined.drift.kl_mean + 3 * intact.drift.kl_mean) / 4
    report = pipeline.run(settings(release, screen={"kl_mean": limit}))
    stopped = next(one for one in report.evidence if one.variant == "ruined")
    kept = next(one for one in report.evidence if one.variant == "W8A16")
    assert stopped.comparisons == () and stopped.screened.startswith("not judged: screened by its drift alone, mean KL")
    assert [one.body() for one in kept.comparisons] == [one.body() for one in intact.comparisons]
    assert len(list((tmp_path / "run" / "answers").iterdir())) == 4
    journals = [path.read_bytes().count(b'"completion"') for path in (tmp_path / "run" / "answers").iterdir()]
    assert sorted(journals)[0] == 0  # the screened variant's
    verdict = next(one for one in report.decision.verdicts if one.variant == "ruined")
    assert (verdict.verdict, verdict.eligible) == ("inconclusive", False)
    assert stopped.screened in html_page(report) and "not judged: screened" in html_page(report)
    assert stopped.screened.encode() in junit_xml(report)
