"""The full stack is the variant: what each setting of a runtime changes, alone and together with the others.

    as it is, kv_cache=q8_0, draft=small.gguf, all together

Every stack is an engine of its own with answers of its own, judged against the same baseline on the same cases, and
held beside the stack in which nothing is set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from quantgate import decide
from quantgate.engines import Completion
from quantgate.errors import EngineError, UsageError
from quantgate.evaluate.compare import Side, Task, compare_all
from quantgate.evaluate.evidence import Comparison, Drift, Pace
from quantgate.evaluate.noise import pace_of
from quantgate.evaluate.suites import Case
from quantgate.records import Record
from quantgate.variant_config import RuntimeConfig

PLAIN, ALL = "as it is", "all together"
BESIDE = {"draft_tokens": "draft"}  # a setting that says how another one works, and goes where that goes
Tell = Callable[[str, int, int, list[str]], None]  # stack, cases done, of how many, capabilities undecided


class StackResult(Record):
    """One stack against the baseline."""

    name: str  # the setting that it adds to the variant
    runtime: tuple[str, ...]  # all that is set: "kv_cache=q8_0"
    comparisons: tuple[Comparison, ...]
    verdicts: tuple[decide.CapabilityVerdict, ...]
    differ: int  # answers whose text is not that of the stack in which nothing is set
    beside: int  # answers that both stacks gave
    drift: Drift | None
    no_drift: str  # why there is none
    pace: Pace | None


def stacks_of(runtime: RuntimeConfig) -> list[tuple[str, RuntimeConfig]]:
    """The stacks to be compared, by name: nothing set, each setting alone, all together where they are several.

    Raises UsageError when nothing is set.

    >>> [name for name, _ in stacks_of(RuntimeConfig(kv_cache="q8_0", draft="small/a.gguf", draft_tokens=4))]
    ['as it is', 'kv_cache=q8_0', 'draft=a.gguf', 'all together']
    """
    changed = runtime.changed
    alone = []
    for name, value in changed.items():
        if BESIDE.get(name) in changed:
            continue
        more = {other: changed[other] for other, of in BESIDE.items() if of == name and other in changed}
        shown = Path(value).name if isinstance(value, str) else value
        alone.append((f"{name}={shown}", RuntimeConfig(**{name: value, **more})))
    if not alone:
        raise UsageError("nothing is set, so there is nothing to compare by itself; add --kv-cache, --draft or --batch")
    together = [(ALL, runtime)] if len(alone) > 1 else []
    return [(PLAIN, RuntimeConfig()), *alone, *together]


def compare_stacks(
    tasks: Sequence[Task],
    baseline: Side,
    open_side: Callable[[RuntimeConfig], Side],
    runtime: RuntimeConfig,
    drift_cases: Sequence[Case],
    tell: Tell,
) -> list[StackResult]:
    """Judge the variant in every stack of ``runtime``; engines are opened one after another by ``open_side``."""
    found, plain = list[StackResult](), dict[str, Completion]()
    for name, settings in stacks_of(runtime):
        side = open_side(settings)

        def told(done: int, total: int, undecided: list[str], name: str = name) -> None:
            tell(name, done, total, undecided)

        comparisons = compare_all(tasks, baseline, side, progress=told)
        plain = plain or side.answers.held
        both = [(one.text, plain[case].text) for case, one in side.answers.held.items() if case in plain]
        drift, no_drift = _drift(baseline, side, drift_cases)
        found.append(
            StackResult(
                name=name,
                runtime=tuple(f"{setting}={value}" for setting, value in settings.changed.items()),
                comparisons=tuple(comparisons),
                verdicts=tuple(decide.judge_capability(one.gate, one) for one in comparisons),
                differ=sum(one != other for one, other in both),
                beside=len(both),
                drift=drift,
                no_drift=no_drift,
                pace=pace_of(side.answers.held.values()),
            )
        )
    return found


def _drift(baseline: Side, side: Side, cases: Sequence[Case]) -> tuple[Drift | None, str]:
    from quantgate.evaluate.drift import drift

    if not cases:
        return None, "the suites have no held-out conversations"
    try:
        (found,) = drift(baseline.engine, [side.engine], cases)
    except EngineError as problem:
        return None, str(problem)
    return found, ""
