"""What a release keeps and calibrates with: capabilities, their slices, and the calibration set."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, field_validator

from quantgate.calibrate.scan import Rule
from quantgate.calibrate.slices import CATALOGUE, check_requirement
from quantgate.errors import UsageError
from quantgate.records import Record


def _fraction(value: Any) -> Any:
    """``3%``, ``"3 %"`` and ``0.03`` are the same fraction."""
    if isinstance(value, str):
        text = value.strip()
        try:
            return float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            raise ValueError(f"expected a percentage such as 3%, found '{value}'") from None
    return value


Fraction = Annotated[float, BeforeValidator(_fraction)]


class CalibrationConfig(Record):
    """The samples that quantization may see."""

    traffic: str | None = Field(
        default=None,
        description="JSONL file of real traffic (.jsonl or .jsonl.gz), one {'messages': [...]}, {'request': ..., "
        "'response': ...} or {'prompt': ...} per line, or a folder of quantgate calibrate, which is taken whole; "
        "left out, samples come from the suites' calibrate split",
    )
    samples: int = Field(default=256, ge=1, description="how many samples")
    max_tokens: int = Field(default=512, ge=8, description="longer samples are cut here, in tokens")
    seed: int = Field(default=0, description="fixes which samples are taken")
    secrets: Rule = Field(
        default="mask",
        exclude_if=lambda rule: rule == "mask",
        description="keys, e-mail addresses, phone, card and account numbers and the like in the traffic: mask them, "
        "drop the conversation, or refuse the file",
    )
    broken: Fraction = Field(
        default=0.01, ge=0, lt=1, exclude_if=lambda share: share == 0.01, description="lines of it that may be broken"
    )
    require: dict[str, int] = Field(
        default={},
        exclude_if=lambda required: not required,
        description="samples of a slice that there must be, such as {tools: 20, language=de: 10, length>=2048: 5}; "
        f"slices: {', '.join(CATALOGUE)}, tool=..., json=..., language=..., length>=...",
    )

    allow_overlap: tuple[str, ...] = Field(
        default=(),
        exclude_if=lambda names: not names,
        description="suites, or single cases as suite/id, that calibration may hold: a known overlap; any other blocks",
    )

    @field_validator("require")
    @classmethod
    def _slices(cls, value: dict[str, int]) -> dict[str, int]:
        for name, least in value.items():
            try:
                check_requirement(name)
            except UsageError as problem:
                raise ValueError(str(problem)) from None
            if least < 1:
                raise ValueError(f"{name}: {least} samples require nothing; expected 1 or more")
        return value


class SliceConfig(Record):
    """A slice that must pass by itself."""

    name: str = Field(description='as the report names it, such as "depth=0.5"')
    margin: Fraction | None = Field(
        default=None, gt=0, lt=1, description="loss allowed in this slice; left out, the capability's"
    )


class CapabilityConfig(Record):
    """One thing the product needs, and how much of it may be lost."""

    margin: Fraction = Field(
        default=0.03,
        gt=0,
        lt=1,
        description="loss allowed, proven and not just observed; 3% or 0.03; left out, a published suite has its own",
    )
    relative: bool = Field(
        default=True, description="margin as a share of the baseline's score; false: in points of the scale"
    )
    cases: int = Field(default=400, ge=1, description="cases at most; the test usually stops earlier")
    suite: str | None = Field(
        default=None,
        description="your own suite, a JSONL file; a published one such as gsm8k; one made for the model or its "
        "traffic, such as needle; a task of lm-eval, such as lm_eval:arc_easy; left out, the built-in suite "
        "of that name",
    )
    path: str | None = Field(
        default=None,
        exclude_if=lambda path: path is None,  # a configuration without one keeps its digest
        description="where the files of a published suite lie, as published; left out, the Hugging Face hub",
    )
    options: dict[str, JsonValue] = Field(
        default={},
        exclude_if=lambda options: not options,
        description="options of a suite, such as {lengths: [1024, 4096]}",
    )
    hard: int = Field(default=0, ge=0, description="extra hard cases, reported but never judged")
    slices: tuple[SliceConfig, ...] | Literal["all"] = Field(
        default=(),
        exclude_if=lambda slices: not slices,
        description="slices that must pass by themselves as well, each a name or with a margin of its own; all: every "
        "one. A slice with fewer cases than a pass needs at best is reported only",
    )

    @field_validator("slices", mode="before")
    @classmethod
    def _bare_slices(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return value
        return [{"name": one} if isinstance(one, str) else one for one in value]

    @field_validator("slices")
    @classmethod
    def _each_once(cls, value: Any) -> Any:
        names = [] if value == "all" else [one.name for one in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"'{name}' is listed twice; keep one")
        return value
