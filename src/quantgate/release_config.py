"""release.yaml: what to release and what it must keep. Unknown keys are errors with the nearest known key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, JsonValue, field_validator

from quantgate.decide import Order
from quantgate.errors import UsageError, hint
from quantgate.hardware.targets import TargetConfig
from quantgate.quantize.manifest import EVENTS
from quantgate.records import Record, parse
from quantgate.variant_config import AUTO, VariantConfig


def _fraction(value: Any) -> Any:
    """``3%``, ``"3 %"`` and ``0.03`` are the same fraction."""
    if isinstance(value, str):
        text = value.strip()
        try:
            return float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            raise ValueError(f"expected a percentage such as 3%, found '{value}'") from None
    return value


AUTO_VARIANTS: tuple[str | dict[str, Any], ...] = (  # what "variants: auto" stands for
    "W8A16",
    "W4A16-g32",
    "W4A16",
    {"scheme": AUTO, "bits": 4.5},
    {"scheme": AUTO, "bits": 3.75},
)
Fraction = Annotated[float, BeforeValidator(_fraction)]


class CalibrationConfig(Record):
    """The samples that quantization may see."""

    traffic: str | None = Field(
        default=None,
        description="JSONL file of real traffic, one {'messages': [...]} or {'prompt': ...} per line; "
        "left out, samples come from the suites' calibrate split",
    )
    samples: int = Field(default=256, ge=1, description="how many samples")
    max_tokens: int = Field(default=512, ge=8, description="longer samples are cut here, in tokens")
    seed: int = Field(default=0, description="fixes which samples are taken")


class CapabilityConfig(Record):
    """One thing the product needs, and how much of it may be lost."""

    margin: Fraction = Field(
        default=0.03, gt=0, lt=1, description="loss allowed, proven and not just observed; 3% or 0.03"
    )
    relative: bool = Field(
        default=True, description="margin as a share of the baseline's score; false: in points of the scale"
    )
    cases: int = Field(default=400, ge=1, description="cases at most; the test usually stops earlier")
    suite: str | None = Field(
        default=None,
        description="your own suite, a JSONL file; or a published one such as gsm8k; left out, the built-in suite of "
        "that name",
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


class JudgeConfig(Record):
    """Registered before the run and never changed after looking."""

    test: Literal["eprocess", "exact", "tango"] = Field(default="eprocess", description="the paired test that decides")
    alpha: Fraction = Field(
        default=0.05, gt=0, lt=0.5, description="chance of shipping a variant that lost more than the margin"
    )
    order: Order = Field(
        default="e-bonferroni", description="how many variants are corrected for; see the page on verdicts"
    )
    seed: int = Field(default=0, description="fixes which cases are asked, and in which order")
    noise: int = Field(
        default=50,
        ge=0,
        description="cases of every capability that the baseline is asked twice, in other batches: how often it "
        "contradicts itself stands beside every result; 0 leaves it out",
    )
    ledger: dict[str, int] = Field(
        default={},
        description="lines of the ledger that a variant may have and still be chosen, by event, such as "
        f"{{fallback: 0}}; events: {', '.join(EVENTS)}",
    )

    @field_validator("ledger")
    @classmethod
    def _known(cls, value: dict[str, int]) -> dict[str, int]:
        for event, allowed in value.items():
            if event not in EVENTS:
                raise ValueError(f"'{event}' is no event of the ledger; {hint(event, list(EVENTS))}")
            if allowed < 0:
                raise ValueError(f"{event}: {allowed} lines cannot be; expected 0 or more")
        return value


class ReleaseConfig(Record):
    """One release, as the user writes it down."""

    model: str = Field(
        default="quantgate/reference", description="the baseline: a folder, a Hugging Face id, or quantgate/reference"
    )
    calibration: CalibrationConfig = Field(
        default=CalibrationConfig(), description="the samples that quantization may see"
    )
    capabilities: dict[str, CapabilityConfig] = Field(description="what the product needs, each with its margin")
    variants: tuple[VariantConfig, ...] = Field(
        description="the candidates; a bare name such as W4A16 will do. auto: a choice of them, mixtures included"
    )
    targets: dict[str, TargetConfig] = Field(
        default={},
        exclude_if=lambda targets: not targets,  # a configuration without any keeps its digest
        description="where variants must run, by a name of your own; quantgate plan says what fits there",
    )
    judge: JudgeConfig = Field(default=JudgeConfig(), description="the test and its error rate")
    drift_cases: int = Field(
        default=160, ge=0, description="held-out conversations for the drift screen; 0 leaves it out"
    )
    out: str = Field(
        default="runs/release", description="folder for artifacts, evidence and reports; a killed run goes on from it"
    )

    @field_validator("capabilities", mode="before")
    @classmethod
    def _bare_capabilities(cls, value: Any) -> Any:
        if isinstance(value, list):
            for name in value:
                if not isinstance(name, str):
                    raise ValueError(f"a list holds bare names, found {name!r}; with margins, leave the dashes out")
                if value.count(name) > 1:
                    raise ValueError(f"'{name}' is listed twice; keep one")
            return {name: {} for name in value}
        return {name: {} if one is None else one for name, one in value.items()} if isinstance(value, dict) else value

    @field_validator("variants", mode="before")
    @classmethod
    def _bare_variants(cls, value: Any) -> Any:
        if value == AUTO:
            value = AUTO_VARIANTS
        if isinstance(value, (list, tuple)):
            return [{"scheme": one} if isinstance(one, str) else one for one in value]
        return value

    @field_validator("capabilities")
    @classmethod
    def _some(cls, value: dict[str, CapabilityConfig]) -> dict[str, CapabilityConfig]:
        if not value:
            raise ValueError("is empty; name at least one capability, such as math: {margin: 3%}")
        return value


class _Strict(yaml.SafeLoader):
    """YAML in which a key that is written twice is an error, where YAML itself would drop the first one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                what = f"line {key.start_mark.line + 1}: the key '{key.value}' is written twice; keep one"
                raise yaml.constructor.ConstructorError(problem=what)
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_config(path: Path) -> ReleaseConfig:
    """Read a release.yaml; paths inside it are relative to its folder. Raises UsageError with one sentence."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Strict)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; write one with: quantgate init") from None
    except OSError as problem:
        raise UsageError(f"{path}: cannot be read ({problem.strerror}); name the release.yaml itself") from None
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        text = " ".join(str(problem).split())
        raise UsageError(f"{path}: not valid YAML ({text})") from None
    if not isinstance(data, dict):
        what = "expected keys such as model, capabilities, variants"
        raise UsageError(f"{path}: {what}; write an example with: quantgate init")
    config = parse(ReleaseConfig, data, where=str(path))
    return _relative_to(config, path.parent)


def _relative_to(config: ReleaseConfig, folder: Path) -> ReleaseConfig:
    """Files named in the configuration, seen from where it lies."""

    def seen(name: str | None) -> str | None:
        return str(folder / name) if name and not Path(name).is_absolute() else name

    def suite_seen(name: str | None) -> str | None:
        """A bare word such as gsm8k or lm_eval:arc_easy names a suite, everything else a file."""
        return seen(name) if name and not re.fullmatch(r"[\w:,-]+", name) else name

    calibration = config.calibration.model_copy(update={"traffic": seen(config.calibration.traffic)})
    capabilities = {
        name: one.model_copy(update={"suite": suite_seen(one.suite), "path": seen(one.path)})
        for name, one in config.capabilities.items()
    }

    def model_seen(ref: str) -> str:
        return str(folder / ref) if (folder / ref).exists() or ref.startswith(("./", "../")) else ref

    def variant_seen(one: VariantConfig) -> VariantConfig:
        artifact, runtime = one.artifact, one.runtime
        if runtime is not None:
            runtime = runtime.model_copy(update={"draft": seen(runtime.draft)})
        return one.model_copy(update={"artifact": model_seen(artifact) if artifact else None, "runtime": runtime})

    variants = tuple(variant_seen(one) for one in config.variants)
    update = {
        "model": model_seen(config.model),
        "calibration": calibration,
        "capabilities": capabilities,
        "variants": variants,
        "out": seen(config.out),
    }
    return config.model_copy(update=update)
