"""Targets as release.yaml has them: the place, and the rules that a variant must keep to ship there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from quantgate.capability_config import Fraction
from quantgate.decide import products
from quantgate.errors import UnknownName, hint
from quantgate.hardware.matrix import runtime_name
from quantgate.hardware.quantities import PerMillion
from quantgate.hardware.targets import Place
from quantgate.load_test_config import LoadTestConfig
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


class TargetConfig(Place):
    """One place where a variant must run: what is there, what its users are promised, and the rules of the choice."""

    profile: str | None = Field(
        default=None,
        exclude_if=lambda profile: profile is None,
        description=f"of the product, rules to start from: {', '.join(products.names())}; what the target says itself "
        "goes before them",
    )
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

    @property
    def place(self) -> Place:
        """The target without its rules."""
        return Place.model_validate({key: told for key, told in self.body().items() if key in Place.model_fields})

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
        if self.load_test is not None:
            self.load_test.check(self, planned=self.speed == "planned")
        return self


Short = str | dict[str, Any]  # a variant as it may be written
AUTO_VARIANTS: tuple[Short, ...] = (  # what "variants: auto" stands for, where nothing says which runtime will ship
    "W8A16",
    "W4A16-g32",
    "W4A16",
    {"scheme": "auto", "bits": 4.5},
    {"scheme": "auto", "bits": 3.75},
)
OF_SERVERS: tuple[Short, ...] = ("W8A8", "W4A16-g32", "W4A16")  # what vLLM and its like have kernels for
OF_LLAMACPP: tuple[Short, ...] = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
IN_PROCESS = ("torch", "transformers")
FIXED_SEQUENCE = "fixed-sequence"


def auto_variants(targets: Any) -> list[Short]:
    """What ``variants: auto`` stands for on ``targets``, as they are written: what their runtimes read, each once."""
    found: list[Short] = []
    for one in targets.values() if isinstance(targets, dict) else ():
        told = one if isinstance(one, dict) else {}
        named = _runtime(str(told.get("runtime", "torch")))
        if named == "llama.cpp":
            there = told.get("stack", "same") == "same"  # then only llama.cpp's own answers count
            forms: Sequence[Short] = [{"scheme": form, "engine": "llamacpp"} if there else form for form in OF_LLAMACPP]
        else:
            forms = AUTO_VARIANTS if named in IN_PROCESS else OF_SERVERS
        found += [form for form in forms if form not in found]
    run_there = {form["scheme"] for form in found if isinstance(form, dict) and "engine" in form}
    return [form for form in found if not (isinstance(form, str) and form in run_there)] or list(AUTO_VARIANTS)


def _runtime(name: str) -> str:
    """Its usual name; what nobody knows is refused where the target itself is read."""
    try:
        return runtime_name(name)
    except UnknownName:
        return name
