"""The ramp's steps, and who is on trial in a release: as the gateway draws it."""

from __future__ import annotations

import pytest
from tests.watch.trials import BASE, CONFIG, GOOD, OTHER, live, variant

from quantgate.watch.steps import next_share, share_of, step_of, trial_of
from quantgate.watch_config import StepConfig, WatchConfig


@pytest.mark.parametrize(
    ("share", "margin", "goal"),
    [(0.0, 3.0, 0.01), (0.005, 3.0, 0.01), (0.01, 3.0, 0.05), (0.03, 3.0, 0.05), (0.05, 2.0, 0.25), (0.249, 2.0, 0.25),
     (0.25, 1.5, 1.0), (0.9, 1.5, 1.0), (1.0, 1.25, None)],
)  # fmt: skip
def test_a_step_is_found_by_the_share_that_is_live_whoever_set_it(share, margin, goal):
    assert (step_of(CONFIG, share).margin, next_share(CONFIG, share)) == (margin, goal)


def test_steps_are_the_configuration_s():
    config = WatchConfig(steps=(StepConfig(share=0.1, margin=2.0), StepConfig(share=0.5, margin=1.2)))
    assert [next_share(config, one) for one in (0.0, 0.1, 0.3, 0.5)] == [0.1, 0.5, 0.5, None]


@pytest.mark.parametrize(
    ("told", "names", "baseline", "share"),
    [
        ({}, (GOOD, BASE), True, 0.1),
        ({"canary": None, "stable": variant(GOOD), "holdback": 0.02}, (GOOD, BASE), True, 0.98),
        ({"canary": None, "stable": variant(GOOD)}, (GOOD, BASE), True, 1.0),
        ({"canary": variant(OTHER), "stable": variant(GOOD), "holdback": 0.02}, (OTHER, BASE), True, 0.1),
        ({"canary": variant(OTHER), "stable": variant(GOOD)}, (OTHER, GOOD), False, 0.1),
    ],
)
def test_who_is_on_trial(told, names, baseline, share):
    found = trial_of(live(**told))
    assert found is not None
    assert ((found.variant, found.artifact), (found.control, found.control_artifact)) == names
    assert found.control_is_baseline is baseline
    assert share_of(live(**told)) == pytest.approx(share)


def test_nothing_is_on_trial_where_the_baseline_has_everything():
    assert trial_of(live(canary=None)) is None
    assert trial_of(live(canary=variant(BASE))) is None
