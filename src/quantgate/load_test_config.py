"""How variants are load-tested on a target that is this machine: how long, at which rates, with how many in flight."""

from __future__ import annotations

from pydantic import Field, field_validator

from quantgate.hardware.profiles import HERE, normal
from quantgate.hardware.quantities import PerSecond
from quantgate.hardware.targets import Place
from quantgate.records import Record

USUAL_RATE = 1.0  # requests a second where a target says none, as in quantgate loadtest
USUAL_SECONDS = 60.0
ROOM = 4  # times the requests that bound a percentile at all: in a queue, several wait alike and count as one


class LoadTestConfig(Record):
    """How variants are load-tested on a target whose hardware is here: those that keep every other rule, as needed."""

    seconds: float | None = Field(
        default=None,
        gt=0,
        le=86_400,
        description="that requests come at each rate and limit, to baseline and variant; left out, 60, or as long as "
        "four times the requests take that bound the largest percentile promised",
    )
    blocks: int = Field(
        default=6, ge=1, le=1000, description="stretches that baseline and variant take turns in; 6 bound their ratio"
    )
    sweep: tuple[PerSecond, ...] = Field(
        default=(),
        description="further rates, such as [2/s, 4/s, 16/s]: up to which one every promise is proven, and so what a "
        "million tokens really cost",
    )
    limits: tuple[int, ...] = Field(
        default=(),
        description="requests in flight at most, such as [1, 4], beside 'concurrency': the largest that keeps every "
        "promise is how to run it",
    )

    @field_validator("limits")
    @classmethod
    def _some_in_flight(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(one < 1 for one in value):
            raise ValueError(f"at most {min(value)} requests in flight cannot be; expected 1 or more")
        return value

    def check(self, place: Place, *, planned: bool) -> None:
        """Raises ValueError where ``place`` is not load-tested by a run, or has no room for what is asked."""
        if normal(place.hardware) != HERE:
            raise ValueError(
                f"'load_test' is for hardware: here, and this is {place.hardware}; measure it there with quantgate "
                "loadtest, or leave it out"
            )
        if planned:
            raise ValueError("says 'speed: planned' and sets a 'load_test'; leave one of them out")
        if most := [one for one in self.limits if one > place.concurrency]:
            raise ValueError(
                f"'limits' has {most[0]}, and memory is reckoned for 'concurrency: {place.concurrency}'; raise it, or "
                "leave the limit out"
            )
