"""Slices that must pass by themselves, as gates register them before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from quantgate import decide
from quantgate.capability_config import SliceConfig
from quantgate.errors import UnknownName
from quantgate.evaluate.evidence import Gate, SliceGate
from quantgate.evaluate.suites import Case


def with_slices(
    gate: Gate, declared: tuple[SliceConfig, ...] | Literal["all"], cases: Sequence[Case], *, must: Sequence[str] = ()
) -> Gate:
    """The gate with its declared slices, each with the cases it has and the fewest that a pass needs.

    ``all`` means every slice that does not hold all the cases; ``must`` are those that the suite itself cannot be
    judged without. Raises UnknownName for a slice that no case is in, UsageError where one of ``must`` has too few.
    """
    sizes = Counter(name for case in cases for name in set(case.slices))
    if declared == "all":
        declared = tuple(SliceConfig(name=name) for name in sorted(sizes) if sizes[name] < len(cases))
    own = {one.name for one in declared}
    found = []
    for one in (*(SliceConfig(name=name) for name in must if name not in own), *declared):
        if one.name not in sizes:
            raise UnknownName("slice", one.name, sizes, where=f"capabilities: {gate.capability}: slices")
        registered = SliceGate(name=one.name, margin=one.margin or gate.margin, cases=sizes[one.name], needs=0)
        slice_gate = gate.of_slice(registered)
        if one.name in must:
            decide.refuse_hopeless([slice_gate], {slice_gate.capability: sizes[one.name]})
        found.append(registered.model_copy(update={"needs": decide.fewest_cases(slice_gate)}))
    return gate.model_copy(update={"slices": tuple(found)})
