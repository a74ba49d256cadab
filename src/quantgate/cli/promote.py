"""``quantgate promote``, ``ramp`` and ``hold``: the moves of a release forward, and the stop."""

from __future__ import annotations

from typing import Annotated

import typer

from quantgate.cli.registries import URL, By, RegistryUrl, Target, VariantName, Why, opened, say, share, then


def promote(
    target: Target,
    variant: VariantName,
    canary: Annotated[
        float | None,
        typer.Option(parser=share, metavar="SHARE", help="Start with this share of sessions, such as 5%."),
    ] = None,
    holdback: Annotated[
        float | None,
        typer.Option(parser=share, metavar="SHARE", help="Sessions that stay with the baseline for ever, such as 2%."),
    ] = None,
    why: Why = "",
    registry: RegistryUrl = URL,
    by: By = None,
) -> None:
    """Give a proven variant a target's traffic, or with --canary a share of it first.

    Demands that the latest decision about exactly these bytes, in this engine, on this target passed; exits with 1 and
    says why where it did not. Promoting the canary that runs gives it everything.
    """
    from quantgate.release import lifecycle

    where = opened(registry, by)
    before = where.revision(target)
    live = lifecycle.promote(where, target, variant, canary=canary, holdback=holdback, why=why)
    say(live, moved=live.revision > before)
    then(f"quantgate serve --target {target}", registry)


def ramp(
    target: Target,
    to: Annotated[float, typer.Argument(parser=share, metavar="SHARE", help="Of sessions, such as 25%.")],
    why: Why = "",
    registry: RegistryUrl = URL,
    by: By = None,
) -> None:
    """Give a target's canary more sessions. Only upwards: no session changes sides and back."""
    from quantgate.release import lifecycle

    where = opened(registry, by)
    before = where.revision(target)
    live = lifecycle.ramp(where, target, to, why=why)
    say(live, moved=live.revision > before)


def hold(
    target: Target,
    off: Annotated[bool, typer.Option("--off", help="Lift the hold.")] = False,
    why: Why = "",
    registry: RegistryUrl = URL,
    by: By = None,
) -> None:
    """Freeze a target: no promotion, no ramp, nothing automatic, until it is lifted with --off.

    A person may roll it back all the same.
    """
    from quantgate.release import lifecycle

    where = opened(registry, by)
    before = where.revision(target)
    live = lifecycle.hold(where, target, why=why, off=off)
    say(live, moved=live.revision > before)
