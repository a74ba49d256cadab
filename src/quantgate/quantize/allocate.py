"""Which source for which group of layers: the mixture with the least drift within a budget, as an integer program.

    minimize    t
    subject to  sum_g sum_s x[g,s] kl[c,g,s] <= t weight[c]     for every capability c
                sum_g sum_s x[g,s] bytes[g,s] <= budget,  sum_s x[g,s] = 1,  x binary

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
SECONDS = 20.0  # and time after which the best mixture found so far is taken

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Allocation:
    """``choice[g]`` is the index of a source; ``drift`` the worst capability's drift over its weight."""

    choice: tuple[int, ...]
    bytes: int
    drift: float


def least_drift(drift: Mapping[str, Floats], sizes: Floats, budget: float, weights: Mapping[str, float]) -> Allocation:
    """The mixture of at most ``budget`` bytes whose worst capability, measured in its weight, drifts least.

    ``drift[c]`` and ``sizes`` are [groups, sources], in nats per token and bytes. Raises UsageError when even the
    smallest sources exceed the budget.
    """
    smallest = int(sizes.min(axis=1).sum())
    if budget < smallest:
        raise UsageError(f"a budget of {budget:,.0f} bytes is too small; the smallest mixture takes {smallest:,}")
    relative = {name: drift[name] / weights[name] for name in drift}
    unit = max(float(one.max(axis=1).sum()) for one in relative.values()) or 1.0  # so that t lies between 0 and 1
    limits = [LinearConstraint(_row(one / unit, -1.0)[None], ub=0.0) for one in relative.values()]
    limits.append(LinearConstraint(_row(sizes, 0.0)[None] / sizes.max(), ub=budget / sizes.max()))
    cost = np.zeros(sizes.size + 1)
    cost[-1] = 1.0
    return _solved(cost, limits, drift, sizes, weights)


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
    groups, sources = sizes.shape
    one_each = np.zeros((groups, sizes.size + 1))
    for group in range(groups):
        one_each[group, group * sources : (group + 1) * sources] = 1.0
    integral = np.append(np.ones(sizes.size), 0.0)
    upper = np.append(np.ones(sizes.size), np.inf)
    found = milp(
        cost,
        integrality=integral,
        bounds=Bounds(np.zeros(sizes.size + 1), upper),
        constraints=[*limits, LinearConstraint(one_each, lb=1.0, ub=1.0)],
        options={"mip_rel_gap": GAP, "time_limit": SECONDS},
    )
    if found.x is None:
        raise UsageError(f"no mixture was found within {SECONDS:g} seconds; take fewer sources or a larger budget")
    choice = found.x[:-1].reshape(groups, sources).argmax(axis=1)
    at = np.arange(groups)
    return Allocation(
        tuple(int(one) for one in choice),
        int(sizes[at, choice].sum()),
        max(float(drift[name][at, choice].sum()) / weights[name] for name in drift),
    )
