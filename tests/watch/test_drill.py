"""The drill of the benchmarks, in seconds: gateway, baseline, a variant that breaks, real load, each a process."""

from __future__ import annotations

from pathlib import Path

from tests.release.given import register

from benchmarks.drill import TARGET, VARIANT, drill, results
from quantgate.release.lifecycle import promote
from quantgate.release.store import Registry


def test_a_variant_that_starts_to_break_goes_back_by_itself_and_no_answer_is_lost(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    registry = Registry.open(f"sqlite:///{tmp_path}/runs/quantgate.db", "somebody", create=True)
    register(registry, TARGET, **{VARIANT: "pass"})
    promote(registry, TARGET, VARIANT, canary=0.3)
    found = drill(tmp_path, "sqlite:///runs/quantgate.db", good_s=2, whole_s=15, rate=15)
    assert found.decided_at is not None and found.decided_at > found.broke_at
    assert (found.failed, found.errors) == (0, 0)
    assert found.requests > 100
    assert f"of {VARIANT} against 0 of" in found.because
    assert found.last_asked_s is not None and found.last_asked_s < 5  # the figure is the benchmark's; here it ended
    live = registry.live(TARGET)
    assert (live.canary, live.stable.name) == (None, "BF16")
    last = registry.history(TARGET)[0]
    assert (last.what, last.why) == ("rollback", found.because)
    assert next(one.what for one in results(found)).startswith("drill: verdict after the first broken answer")
    registry.close()
