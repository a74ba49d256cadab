"""Targets as release.yaml has them: the place, and the rules that a variant must keep to ship there."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from quantgate.capability_config import Fraction
from quantgate.errors import hint
from quantgate.hardware.profiles import HERE, normal
from quantgate.hardware.quantities import PerMillion, PerSecond
from quantgate.hardware.targets import Place
from quantgate.quantize.manifest import EVENTS
from quantgate.records import Record


def known_events(value: dict[str, int]) -> dict[str, int]:
    """Rules of the ledger: raises ValueError for an event that no ledger has, and for less than no lines."""
    for event, allowed in value.items():
        if event not in EVENTS:
            raise ValueError(f"'{event}' is no event of the ledger; {hint(event, list(EVENTS))}")
        if allowed < 0:
            raise ValueError(f"{event}: {allowed} lines cannot be; expected 0 or more")
    return value


class ScreenConfig(Record):
    """Drift beyond which a variant is not even asked the cases: hopeless by your own rule, not proven by anything."""

    kl_mean: float | None = Field(default=None, gt=0, description="mean KL divergence in nats a token, such as 0.5")
    ppl_ratio: float | None = Field(
        default=None, gt=1, description="perplexity as a multiple of the baseline's, such as 2"
    )
    same_top: Fraction | None = Field(
        default=None, gt=0, lt=1, description="share of next tokens that must at least stay the same, such as 30%"
    )

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.kl_mean is None and self.ppl_ratio is None and self.same_top is None:
            raise ValueError("names no limit; give one, such as {kl_mean: 0.5}, or leave 'screen' out")
        return self


class LoadTestConfig(Record):
    """How variants are load-tested on a target whose hardware is here: those that keep every other rule, as needed."""

    seconds: float | None = Field(
        default=None,
        gt=0,
        le=86_400,
        description="that requests come at each rate and limit, to baseline and variant; left out, 60, or as long as "
        "twice the requests take that bound the largest percentile promised",
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


class TargetConfig(Place):
    """One place where a variant must run: what is there, what its users are promised, and the rules of the choice."""

    capabilities: dict[str, Fraction | None] | None = Field(
        default=None,
        exclude_if=lambda needed: needed is None,
        description="what is needed there, each with a margin of its own if it has one, such as {math: 1%, chat: }, or "
        "a list of names; left out, all of the release's",
    )
    ledger: dict[str, int] = Field(
        default={},
        exclude_if=lambda rules: not rules,
        description="lines of the ledger that a variant may have there, by event, beside the judge's rules",
    )
    screen: ScreenConfig | None = Field(
        default=None,
        exclude_if=lambda screen: screen is None,
        description="drift beyond which no variant is taken there, such as {kl_mean: 0.05}",
    )
    cost: PerMillion | None = Field(
        default=None,
        exclude_if=lambda cost: cost is None,
        description="what a million answer tokens may cost at most, such as 0.50/M; needs 'price'",
    )
    prefer: Literal["size", "cost"] = Field(
        default="size",
        exclude_if=lambda prefer: prefer == "size",
        description="which of the variants that keep every rule is chosen: the smallest, or the cheapest",
    )
    speed: Literal["measured", "planned"] = Field(
        default="measured",
        exclude_if=lambda speed: speed == "measured",
        description="what latencies and rates are judged by: a load test, or the roofline alone, which says so",
    )
    stack: Literal["same", "any"] = Field(
        default="same",
        exclude_if=lambda stack: stack == "same",
        description="same: only answers given by the target's own runtime count; any: those of another one, too, which "
        "leaves its kernels unproven",
    )

    load_test: LoadTestConfig | None = Field(
        default=None,
        exclude_if=lambda test: test is None,
        description="of hardware here: how long, and at which rates and limits, such as {seconds: 120, sweep: [2/s]}",
    )

    @field_validator("capabilities", mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return dict.fromkeys(value) if isinstance(value, list) else value

    @field_validator("ledger")
    @classmethod
    def _known(cls, value: dict[str, int]) -> dict[str, int]:
        return known_events(value)

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.capabilities is not None and not self.capabilities:
            raise ValueError("'capabilities' is empty; name what is needed there, or leave it out")
        if (self.cost is not None or self.prefer == "cost") and self.price is None:
            raise ValueError("goes by cost and has no 'price'; write what a device costs, such as price: 2.50/h")
        return self

    @model_validator(mode="after")
    def _measured_here(self) -> Self:
        if self.load_test is None:
            return self
        if normal(self.hardware) != HERE:
            raise ValueError(
                f"'load_test' is for hardware: here, and this is {self.hardware}; measure it there with quantgate "
                "loadtest, or leave it out"
            )
        if self.speed == "planned":
            raise ValueError("says 'speed: planned' and sets a 'load_test'; leave one of them out")
        if most := [one for one in self.load_test.limits if one > self.concurrency]:
            raise ValueError(
                f"'limits' has {most[0]}, and memory is reckoned for 'concurrency: {self.concurrency}'; raise it, or "
                "leave the limit out"
            )
        return self
