"""How alike the cases of one suite are to each other: a copy must be more alike than that.

Suites that are drawn from templates would otherwise call every new draw a copy. Each case is looked up among the others
of its suite, as a line of traffic would be; the likeness that only a few of them reach is the suite's floor, and a copy
lies above it: of signatures by any amount, of words and characters by half of what is left to identity. The reasoning
is that of conformal prediction (Vovk et al., Algorithmic Learning in a Random World, 2005): new draws of one source
are as alike as old ones.
"""

from __future__ import annotations

SIGNATURE = "signature"
ORDINARY = 0.4  # a floor below it is that of a few passages in common, not of a template
FEW, FEW_SHARE = 2, 0.005  # cases of a suite that may look like a copy of another one


class Floors:
    """Of every (suite, check) the strength that a copy must exceed."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.seen: dict[tuple[int, str], dict[int, float]] = {}
        self.floors: dict[tuple[int, str], float] = {}

    def add(self, suite: int, check: str, case: int, strength: float) -> None:
        """``case`` of ``suite`` looks like another case of it, so strongly."""
        best = self.seen.setdefault((suite, check), {})
        best[case] = max(strength, best.get(case, strength))

    def settle(self) -> None:
        for (suite, check), best in self.seen.items():
            few = max(FEW, int(FEW_SHARE * self.sizes[suite]))
            strengths = sorted(best.values(), reverse=True)
            if len(strengths) > few:
                self.floors[suite, check] = strengths[few]
        self.seen.clear()

    def above(self, suite: int, check: str, strength: float) -> bool:
        floor = self.floors.get((suite, check))
        return floor is None or strength > floor

    def bar(self, suite: int) -> float:
        """The least strength of a copy by words or characters: half-way from the suite's floor to the same text."""
        found = [floor for (of, check), floor in self.floors.items() if of == suite and check != SIGNATURE]
        return (1 + max(found)) / 2 if found and max(found) >= ORDINARY else 0.0
