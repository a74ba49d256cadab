"""The ramp: what a canary must have proven for its next share, and who is on trial in a release.

    copies (shadow) -> 1 % -> 5 % -> 25 % -> 100 %, with a holdback of the baseline's

Margins are wide where the share is small: at 1 % of sessions a wrong step harms one in a hundred, and a tight margin
would take days to exclude. The step is found by the share that is live, so one that a person set is as good as any.
"""

from __future__ import annotations

from quantgate.release import Live
from quantgate.watch import Trial
from quantgate.watch_config import StepConfig, WatchConfig


def step_of(config: WatchConfig, share: float) -> StepConfig:
    """Of the steps that ``share`` has reached the highest; the first while it has reached none.

    >>> step_of(WatchConfig(), 0.1).margin, step_of(WatchConfig(), 0.0).margin
    (2.0, 3.0)
    """
    reached = [one for one in config.steps if one.share <= share + 1e-9]
    return reached[-1] if reached else config.steps[0]


def next_share(config: WatchConfig, share: float) -> float | None:
    """Where a promotion from ``share`` goes; None: it has all there is to have.

    >>> [next_share(WatchConfig(), one) for one in (0.0, 0.01, 0.1, 0.25, 1.0)]
    [0.01, 0.05, 0.25, 1.0, None]
    """
    return next((one.share for one in config.steps if one.share > share + 1e-9), None)


def trial_of(live: Live) -> Trial | None:
    """What a gateway holds against what while this is live; None: nothing, for the baseline has all the traffic."""
    baseline = live.baseline
    stable_is_baseline = live.stable.artifact == baseline.artifact
    if live.canary is None and stable_is_baseline:
        return None
    variant = live.canary or live.stable
    own = stable_is_baseline or live.holdback > 0.0 or live.canary is None
    control = baseline if own else live.stable
    if variant.artifact == control.artifact:
        return None
    return Trial(
        target=live.target,
        variant=variant.name,
        artifact=variant.artifact,
        control=control.name,
        control_artifact=control.artifact,
        control_is_baseline=own,
    )


def share_of(live: Live) -> float:
    """Of sessions, that the variant on trial has."""
    return live.share if live.canary is not None else 1.0 - live.holdback
