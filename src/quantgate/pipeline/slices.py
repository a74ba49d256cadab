"""Slices that a release declares, as its gates register them before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from quantgate import decide
from quantgate.errors import UnknownName
from quantgate.evaluate.evidence import Gate, SliceGate
from quantgate.evaluate.suites import Case
from quantgate.release_config import CapabilityConfig, SliceConfig


def with_slices(gate: Gate, wanted: CapabilityConfig, cases: Sequence[Case]) -> Gate:
    """The gate with its declared slices, each with the cases it has and the fewest that a pass needs.

    ``all`` means every slice that does not hold all the cases. Raises UnknownName for a slice that no case is in.
    """
    sizes = Counter(name for case in cases for name in set(case.slices))
    declared = wanted.slices
    if declared == "all":
        declared = tuple(SliceConfig(name=name) for name in sorted(sizes) if sizes[name] < len(cases))
    found = []
    for one in declared:
        if one.name not in sizes:
            raise UnknownName("slice", one.name, sizes, where=f"capabilities: {gate.capability}: slices")
        registered = SliceGate(name=one.name, margin=one.margin or wanted.margin, cases=sizes[one.name], needs=0)
        needs = decide.fewest_cases(gate.of_slice(registered))
        found.append(registered.model_copy(update={"needs": needs}))
    return gate.model_copy(update={"slices": tuple(found)})
