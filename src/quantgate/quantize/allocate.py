"""Which source for which group of layers: the mixture with the least drift within a budget, as an integer program.

    minimize    t
    subject to  sum_g sum_s x[g,s] kl[c,g,s] <= t weight[c]     for every capability c
                sum_g sum_s x[g,s] bytes[g,s] <= budget,  sum_s x[g,s] = 1,  x binary
                sum_g sum_s x[g,s] table[g,s] <= most         for every further limit, such as one of latency

Drift adds up over groups to first order: what groups do together is left out here and counted in
``Sensitivity.expected``. Solved by HiGHS through ``scipy.optimize.milp``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from quantgate.errors import UsageError

GAP = 1e-4  # relative distance from the optimum at which the search may stop
SPARE = 1e-6  # share of a limit that is left unused where the solver's own tolerance (1e-7 a row) went beyond it
SECONDS = 20.0  # and time after which the best mixture found so far is taken

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Allocation:
    """``choice[g]`` is the index of a source; ``drift`` the worst capability's drift over its weight."""

    choice: tuple[int, ...]
    bytes: int
    drift: float


@dataclass(frozen=True)
class Limit:
    """The sum of ``table`` [groups, sources] over what is chosen is at most ``most``; ``name`` says what it counts."""

    name: str
    table: Floats
    most: float

    def used(self, choice: Sequence[int]) -> float:
        return float(self.table[np.arange(len(self.table)), list(choice)].sum())

    @property
    def least(self) -> float:
        """What the smallest sources come to."""
        return float(self.table.min(axis=1).sum())


def least_drift(
    drift: Mapping[str, Floats],
    sizes: Floats,
    budget: float,
    weights: Mapping[str, float],
    limits: Sequence[Limit] = (),
) -> Allocation:
    """The mixture of at most ``budget`` bytes whose worst capability, measured in its weight, drifts least.

    ``drift[c]`` and ``sizes`` are [groups, sources], in nats per token and bytes; ``budget`` may be infinite, and every
    one of ``limits`` is met besides. Raises UsageError when even the smallest sources exceed the budget or a limit, or
    when no mixture meets all of them.
    """
    smallest = int(sizes.min(axis=1).sum())
    if budget < smallest:
        raise UsageError(f"a budget of {budget:,.0f} bytes is too small; the smallest mixture takes {smallest:,}")
    for one in limits:
        if one.most < one.least:
            raise UsageError(f"a budget of {one.most:g} {one.name} is too small; the least is {one.least:g}")
    relative = {name: drift[name] / weights[name] for name in drift}
    unit = max(float(one.max(axis=1).sum()) for one in relative.values()) or 1.0  # so that t lies between 0 and 1
    every = [*([Limit("bytes", sizes, budget)] if np.isfinite(budget) else []), *limits]
    rows = [LinearConstraint(_row(one / unit, -1.0)[None], ub=0.0) for one in relative.values()]
    cost = np.zeros(sizes.size + 1)
    cost[-1] = 1.0
    for spare in (0.0, SPARE):
        found = _solved(cost, [*rows, *(_within(one, spare) for one in every)], drift, sizes, weights)
        if all(one.used(found.choice) <= one.most for one in every):
            return found
    raise UsageError("no mixture meets the budget to the last byte; give one that is a thousandth larger")


def least_of(table: Floats, limits: Sequence[Limit]) -> float | None:
    """The least sum of ``table`` [groups, sources] that a mixture within ``limits`` can have; None: no mixture is."""
    found = _search(_row(table, 0.0) / table.max(), [_within(one, SPARE) for one in limits], table.shape)
    return None if found is None else float(table[np.arange(len(table)), found].sum())


def _within(limit: Limit, spare: float) -> LinearConstraint:
    """The limit as a row, ``spare`` of it left unused."""
    unit = limit.table.max()
    return LinearConstraint(_row(limit.table, 0.0)[None] / unit, ub=limit.most * (1 - spare) / unit)


def fewest_bytes(drift: Mapping[str, Floats], sizes: Floats, ceilings: Mapping[str, float]) -> Allocation:
    """The smallest mixture in which no capability drifts more than its ceiling, in nats per token.

    Raises UsageError when no mixture is that close.
    """
    least = {name: float(drift[name].min(axis=1).sum()) for name in ceilings}
    for name, ceiling in ceilings.items():
        if least[name] > ceiling * (1 + 1e-9):
            raise UsageError(
                f"no mixture drifts as little as {ceiling:.3g} on {name}; the closest has {least[name]:.3g}"
            )
    limits = [
        LinearConstraint(_row(drift[name], 0.0)[None] / max(ceiling, 1e-30), ub=1.0 + 1e-9)
        for name, ceiling in ceilings.items()
    ]
    cost = _row(sizes, 0.0) / sizes.max()
    return _solved(cost, limits, {name: drift[name] for name in ceilings}, sizes, dict.fromkeys(ceilings, 1.0))


def frontier(
    drift: Mapping[str, Floats], sizes: Floats, weights: Mapping[str, float], points: int = 16
) -> list[Allocation]:
    """Mixtures of least drift at budgets from the smallest to the largest, each larger one strictly better."""
    low, high = float(sizes.min(axis=1).sum()), float(sizes.max(axis=1).sum())
    found = list[Allocation]()
    for budget in np.linspace(low, high, points):
        made = least_drift(drift, sizes, float(np.ceil(budget)), weights)
        if not found or made.drift < found[-1].drift * (1 - 1e-6):
            found.append(made)
    return found


def _row(values: Floats, last: float) -> Floats:
    """Coefficients of all x[g,s], and of t."""
    return np.append(values.ravel(), last)


def _solved(
    cost: Floats,
    limits: Sequence[LinearConstraint],
    drift: Mapping[str, Floats],
    sizes: Floats,
    weights: Mapping[str, float],
) -> Allocation:
    choice = _search(cost, limits, sizes.shape)
    if choice is None:
        raise UsageError(f"no mixture was found in {SECONDS:g} seconds; take fewer sources or larger budgets")
    at = np.arange(len(sizes))
    return Allocation(
        tuple(int(one) for one in choice),
        int(sizes[at, choice].sum()),
        max(float(drift[name][at, choice].sum()) / weights[name] for name in drift),
    )


def _search(cost: Floats, limits: Sequence[LinearConstraint], shape: tuple[int, ...]) -> NDArray[np.int64] | None:
    """One source for each group at the least cost, or None."""
    groups, sources = shape
    one_each = np.zeros((groups, groups * sources + 1))
    for group in range(groups):
        one_each[group, group * sources : (group + 1) * sources] = 1.0
    integral = np.append(np.ones(groups * sources), 0.0)
    upper = np.append(np.ones(groups * sources), np.inf)
    found = milp(
        cost,
        integrality=integral,
        bounds=Bounds(np.zeros(groups * sources + 1), upper),
        constraints=[*limits, LinearConstraint(one_each, lb=1.0, ub=1.0)],
        options={"mip_rel_gap": GAP, "time_limit": SECONDS},
    )
    return None if found.x is None else found.x[:-1].reshape(groups, sources).argmax(axis=1)
