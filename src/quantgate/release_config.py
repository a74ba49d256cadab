"""release.yaml: what to release and what it must keep. Unknown keys are errors with the nearest known key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from quantgate.capability_config import CalibrationConfig, CapabilityConfig, Fraction
from quantgate.decide import Order, products
from quantgate.decide.price import Price
from quantgate.endpoint_config import EndpointConfig
from quantgate.errors import UnknownName, UsageError, hint
from quantgate.evaluate.lock import Allowed
from quantgate.quantize.manifest import EVENTS
from quantgate.records import Record, parse
from quantgate.store import is_address
from quantgate.target_config import FIXED_SEQUENCE, ScreenConfig, TargetConfig, auto_variants, known_events
from quantgate.variant_config import AUTO, VariantConfig


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
        return known_events(value)


class BaselineConfig(Record):
    """What answers for the baseline; a server for one side is best compared with a server for the other."""

    engine: Literal["torch", "openai"] = Field(default="torch", description="openai asks the server under 'endpoint'")
    endpoint: EndpointConfig | None = Field(default=None, description="of engine openai: the server that runs 'model'")

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.engine == "openai") != (self.endpoint is not None):
            raise ValueError("'engine: openai' and 'endpoint' belong together; write both, or neither")
        return self


class RayConfig(Record):
    """A Ray cluster, or one that is started here for the run."""

    address: Literal["local", "auto"] = Field(
        default="local", description="local: workers on this machine, for this run; auto: the cluster that runs here"
    )
    workers: int = Field(default=2, ge=1, le=1024, description="processes that work at a time, each with its engines")


class ExecutorConfig(Record):
    """Who does the work: this process, or the workers of a cluster; verdicts are the same."""

    ray: RayConfig | None = Field(default=None, description="a Ray cluster: needs quantgate[ray]")


class ReleaseConfig(Record):
    """One release, as the user writes it down."""

    model: str = Field(
        default="quantgate/reference",
        description="the baseline: a folder, an address such as s3://bucket/model, a Hugging Face id, or "
        "quantgate/reference",
    )
    baseline: BaselineConfig | None = Field(
        default=None,
        exclude_if=lambda baseline: baseline is None,  # a configuration without one keeps its digest
        description="what answers for the baseline, such as {engine: openai, endpoint: {launch: ...}}; left out, torch",
    )
    calibration: CalibrationConfig = Field(
        default=CalibrationConfig(), description="the samples that quantization may see"
    )
    capabilities: dict[str, CapabilityConfig] = Field(description="what the product needs, each with its margin")
    variants: tuple[VariantConfig, ...] = Field(
        description="the candidates; a bare name such as W4A16 will do. auto: what the targets' runtimes read, "
        "walked from the largest to the first that does not pass"
    )
    targets: dict[str, TargetConfig] = Field(
        default={},
        exclude_if=lambda targets: not targets,  # a configuration without any keeps its digest
        description="where variants must run, by a name of your own; quantgate plan says what fits there",
    )
    judge: JudgeConfig = Field(default=JudgeConfig(), description="the test and its error rate")
    price: Price | None = Field(
        default=None,
        exclude_if=lambda price: price is None,
        description="what asking costs, for the plan: 2.50/h of the machine, or {prompt: 0.15/M, completion: 0.60/M}",
    )
    allow: tuple[Allowed, ...] = Field(
        default=(),
        exclude_if=lambda allow: not allow,
        description="what variants and baseline may not have in common, such as [tokenizer, template]; everything else "
        "that differs refuses the comparison",
    )
    drift_cases: int = Field(
        default=160, ge=0, description="held-out conversations that drift is measured on; 0 leaves it out"
    )
    screen: ScreenConfig | None = Field(
        default=None,
        exclude_if=lambda screen: screen is None,
        description="stop hopeless variants by their drift, before they are asked any case; left out, none is",
    )
    executor: ExecutorConfig = Field(
        default=ExecutorConfig(),
        exclude_if=lambda executor: executor.ray is None,
        description="local (this process), ray, or {ray: {address: auto, workers: 4}}",
    )
    out: str = Field(
        default="runs/release",
        description="folder for artifacts, evidence and reports, "
        "from which a killed run goes on; or an address such as s3://bucket/run, which gets artifacts and reports",
    )

    @property
    def content(self) -> str:
        """Digest of what is made and judged; where, and by how many processes, is no part of it."""
        return self.model_copy(update={"out": "", "executor": ExecutorConfig()}).digest

    @field_validator("executor", mode="before")
    @classmethod
    def _bare_executor(cls, value: Any) -> Any:
        return {"local": {}, "ray": {"ray": {}}}.get(value, value) if isinstance(value, str) else value

    @property
    def endpoints(self) -> tuple[EndpointConfig, ...]:
        """Every server that the release asks."""
        own = self.baseline.endpoint if self.baseline else None
        return tuple(one for one in (own, *(variant.endpoint for variant in self.variants)) if one is not None)

    @model_validator(mode="before")
    @classmethod
    def _auto(cls, value: Any) -> Any:
        """``variants: auto`` is a walk down the frontier of sizes: one after the other, until one does not pass."""
        if not isinstance(value, dict) or value.get("variants") != AUTO:
            return value
        judge = value.get("judge") or {}
        walked = {"order": FIXED_SEQUENCE, **judge} if isinstance(judge, dict) else judge
        return {**value, "variants": auto_variants(value.get("targets")), "judge": walked}

    @model_validator(mode="before")
    @classmethod
    def _profiles(cls, value: Any) -> Any:
        """Rules of profiles become the target's own, so that a record of the release shows every one of them."""
        targets = value.get("targets") if isinstance(value, dict) else None
        if not isinstance(targets, dict):
            return value
        told = value.get("capabilities") or {}
        suites = {
            name: one.get("suite") if isinstance(one, dict) else None
            for name, one in (told.items() if isinstance(told, dict) else dict.fromkeys(told).items())
        }
        try:
            own = {
                name: products.with_product(one, suites) if isinstance(one, dict) and one.get("profile") else one
                for name, one in targets.items()
            }
        except UnknownName as unknown:
            raise ValueError(f"targets: {unknown}") from None
        return {**value, "targets": own}

    @model_validator(mode="after")
    def _targets_need_what_there_is(self) -> Self:
        for name, target in self.targets.items():
            for capability in target.capabilities or {}:
                if capability not in self.capabilities:
                    raise ValueError(
                        f"targets.{name}: needs '{capability}', which is no capability of this release; "
                        f"{hint(capability, list(self.capabilities))}"
                    )
            if target.screen is not None and not self.drift_cases:
                raise ValueError(f"targets.{name}: 'screen' goes by the drift, and 'drift_cases' is 0; give cases")
        return self

    @model_validator(mode="after")
    def _screen_needs_drift(self) -> Self:
        if self.screen is not None and not self.drift_cases:
            raise ValueError("'screen' goes by the drift, and 'drift_cases' is 0; give cases, or leave 'screen' out")
        return self

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
        return str(folder / name) if name and not Path(name).is_absolute() and not is_address(name) else name

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
        found = {key: model_seen(ref) if ref else None for key, ref in (("artifact", artifact), ("model", one.model))}
        if (student := one.student) is not None and student.config is not None:
            student = student.model_copy(update={"config": seen(student.config)})
        return one.model_copy(update=found | {"runtime": runtime, "student": student})

    variants = tuple(variant_seen(one) for one in config.variants)
    update = {
        "model": model_seen(config.model),
        "calibration": calibration,
        "capabilities": capabilities,
        "variants": variants,
        "out": seen(config.out),
    }
    return config.model_copy(update=update)
