"""The key ``watch`` of serve.yaml."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from quantgate.serve_config import read_config
from quantgate.watch_config import StepConfig, WatchConfig, WebhookConfig


def test_its_defaults_are_a_ramp_that_ends_with_everything_and_a_holdback():
    made = WatchConfig()
    assert [one.share for one in made.steps] == [0.01, 0.05, 0.25, 1.0]
    assert [one.margin for one in made.steps] == sorted((one.margin for one in made.steps), reverse=True)
    assert (made.alpha, made.holdback, made.ramp, made.rollback) == (0.01, 0.02, False, True)


@pytest.mark.parametrize("shares", [(0.05, 0.01), (0.05, 0.05)])
def test_the_steps_of_a_ramp_go_up(shares):
    with pytest.raises(ValidationError, match="must grow"):
        WatchConfig(steps=tuple(StepConfig(share=one, margin=2) for one in shares))


def test_alarms_that_nobody_sends_are_refused():
    with pytest.raises(ValidationError, match="'crash' is told by nobody; choose from rollback, promote, hold"):
        WebhookConfig(url="http://127.0.0.1:9/", alarms=("crash",))


def test_percentages_are_read_as_people_write_them():
    assert WatchConfig.model_validate({"alpha": "0.5%", "holdback": "3 %"}).alpha == 0.005


def test_a_signal_is_turned_off_as_yaml_reads_it(tmp_path):
    file = tmp_path / "serve.yaml"
    file.write_text("target: laptop\nwatch:\n  signals:\n    ttft: {off: true}\n    error: {weight: 2}\n")
    signals = read_config(file).watch.signals
    assert signals["ttft"].off and not signals["error"].off
