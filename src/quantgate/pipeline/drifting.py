"""The drift of a release's variants, and the screen that goes by it where the release has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from quantgate.decide.drift_limits import beyond
from quantgate.engines import Engine
from quantgate.errors import EngineError, RecordError
from quantgate.evaluate.drift_record import Drift
from quantgate.evaluate.suites import Case
from quantgate.pipeline.executor import Elsewhere
from quantgate.records import digest_of
from quantgate.target_config import ScreenConfig


def drift_in(
    out: Path,
    baseline: Engine,
    engine: Engine,
    cases: Sequence[Case],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Drift | None, str]:
    """The drift of one variant, or why there is none; a variant too broken to measure must not stop the others.

    Kept in ``out`` under a digest of all that it depends on.
    """
    from quantgate.evaluate.drift import drift_of

    if not cases:
        return None, "no held-out conversations were asked for"
    key = digest_of([engine.identity.key, baseline.identity.key, [case.digest for case in cases]])
    path = out / "drift" / f"{key[7:39]}.json"
    if path.exists():
        try:
            return Drift.load(path), ""
        except RecordError:
            path.unlink()  # an older version wrote it
    try:
        if isinstance(baseline, Elsewhere) and isinstance(engine, Elsewhere):
            found = engine.drift_from(baseline, cases)
        else:
            found = drift_of(baseline, engine, cases, progress)
    except EngineError as problem:
        return None, str(problem)
    found.save(path)
    return found, ""


def screened(drift: Drift | None, screen: ScreenConfig | None) -> str:
    """Why a variant is not asked the cases, in a sentence; empty where it is asked them.

    Where documents allow an interval, its near end must be beyond the limit: chance screens nobody.
    """
    if drift is None or screen is None:
        return ""
    broken = beyond(drift, screen)
    return f"not judged: screened by its drift alone, {' and '.join(broken)}" if broken else ""
