"""E-detectors: alarms over one side alone, where there is nothing to compare with but a rate that was promised.

Before anything breaks every unit is bad with probability at most ``bound`` (the rate that the gate measured, with its
margin). With e_t the e-value of a unit against that (``rates``, one factor a for each process of the mixture),

    M_t = (1 + M_{t-1}) e_t        sr      Shiryaev-Roberts: the sum over every start that there might have been
    M_t = max(1, M_{t-1}) e_t      cusum   the best start

and an alarm at M >= A comes, while nothing is wrong, after A units or more on average (ARL >= A). That is weaker than
the alpha of a trial: an alarm will come one day. So a holdback and a trial are better; this is for where there is none.

Source: Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", NEJSDS 2024
(arXiv 2203.03532), definition 2.1, theorem 2.4 and section 4 (mixtures).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Self

from quantgate.errors import UsageError
from quantgate.stats.renewal import log_mix

FACTORS = (1.5, 2.0, 3.0, 5.0)  # a: of the odds of a bad unit
Form = Literal["sr", "cusum"]


@dataclass
class Detector:
    """Watches units one by one. Its state is a float for each factor; the order of the units matters here."""

    bound: float  # probability of a bad unit while nothing is wrong: at most this
    form: Form = "sr"
    logs: tuple[float, ...] = (-math.inf,) * len(FACTORS)  # log M of each
    units: int = 0
    bad: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.bound < 1.0:
            raise UsageError(f"detector: the bound {self.bound} lies outside 0..1; give the rate that was promised")

    def add(self, bad: bool) -> None:
        self.units += 1
        self.bad += bad
        self.logs = tuple(self._next(log_m, a, bad) for log_m, a in zip(self.logs, FACTORS, strict=True))

    def _next(self, log_m: float, a: float, bad: bool) -> float:
        log_e = bad * math.log(a) - math.log1p((a - 1.0) * self.bound)
        if self.form == "cusum":
            return max(0.0, log_m) + log_e
        return max(0.0, log_m) + math.log1p(math.exp(-abs(log_m))) + log_e

    @property
    def log_m(self) -> float:
        """The alarm is at ``log_m >= log(A)``: ARL >= A units."""
        return -math.inf if not self.units else log_mix((1.0 / len(FACTORS), one) for one in self.logs)

    def renew(self) -> None:
        """After an alarm that was seen to: as at the beginning."""
        self.logs, self.units, self.bad = (-math.inf,) * len(FACTORS), 0, 0

    def state(self) -> dict[str, Any]:
        """JSON-able and exact: floats survive JSON bit for bit."""
        logs = list(self.logs) if self.units else None
        return {"bound": self.bound, "form": self.form, "logs": logs, "units": self.units, "bad": self.bad}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Self:
        made = cls(state["bound"], state["form"])
        if state["logs"] is not None:
            made.logs, made.units, made.bad = tuple(state["logs"]), state["units"], state["bad"]
        return made


__all__ = ["FACTORS", "Detector"]
