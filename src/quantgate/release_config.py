"""release.yaml: what to release and what it must keep. Unknown keys are errors with the nearest known key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, JsonValue, field_validator, model_validator

from quantgate.decide import Order
from quantgate.errors import UsageError, hint
from quantgate.formats import scheme_names
from quantgate.formats.schemes import BLOCK_SCHEMES
from quantgate.models.families import ROTATABLE
from quantgate.quantize import checkpoints, methods
from quantgate.quantize.manifest import CONTAINER, EVENTS, GGUF, KEEP, in_blocks
from quantgate.records import Record, parse


def _fraction(value: Any) -> Any:
    """``3%``, ``"3 %"`` and ``0.03`` are the same fraction."""
    if isinstance(value, str):
        text = value.strip()
        try:
            return float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            raise ValueError(f"expected a percentage such as 3%, found '{value}'") from None
    return value


UNITS = {"B": 1} | {
    f"{one}{end}": base ** (at + 1) for end, base in (("B", 1000), ("iB", 1024)) for at, one in enumerate("KMGT")
}


def _size(value: Any) -> Any:
    """``2.5 MB``, ``"2MiB"`` and ``2500000`` are bytes."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([a-zA-Z]*)\s*", value)
    unit = found and next((one for one in UNITS if one.lower() == (found[2] or "B").lower()), None)
    if not found or unit is None:
        raise ValueError(f"expected a size such as 2.5 MB, 800 KiB or 2500000, found '{value}'")
    return int(float(found[1]) * UNITS[unit])


def _milliseconds(value: Any) -> Any:
    """``3``, ``3 ms``, ``800us`` and ``0.1 s``: milliseconds."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|)\s*", value)
    if not found:
        raise ValueError(f"expected milliseconds such as 3 ms, 800 us or 3, found '{value}'")
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "": 1.0, "s": 1e3}[found[2]]


AUTO = "auto"  # the scheme of a mixture that is made for a budget of bits
BUDGETS = ("bits", "bytes", "latency")
AUTO_VARIANTS: tuple[str | dict[str, Any], ...] = (  # what "variants: auto" stands for
    "W8A16",
    "W4A16-g32",
    "W4A16",
    {"scheme": AUTO, "bits": 4.5},
    {"scheme": AUTO, "bits": 3.75},
)
Fraction = Annotated[float, BeforeValidator(_fraction)]
Size = Annotated[int, BeforeValidator(_size)]
Milliseconds = Annotated[float, BeforeValidator(_milliseconds)]


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
        default=None, description="your own suite, a JSONL file; left out, the built-in suite of that name"
    )
    hard: int = Field(default=0, ge=0, description="extra hard cases, reported but never judged")


class RuntimeConfig(Record):
    """How llama.cpp runs a variant; evidence is taken with exactly these settings."""

    kv_cache: Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"] = Field(
        default="f16", description="the type that keys and values are cached in"
    )
    draft: str | None = Field(
        default=None, description="a smaller GGUF file of the same tokenizer: it drafts tokens that the variant judges"
    )
    draft_tokens: int = Field(default=8, ge=1, le=64, description="how many tokens are drafted at a time")


PLAIN_SCHEMES = tuple(name for name in scheme_names() if name not in BLOCK_SCHEMES)


class VariantConfig(Record):
    """One candidate: scheme, method and what to leave alone, or an artifact that is there already."""

    scheme: str | None = Field(
        default=None,
        description=f"{', '.join(PLAIN_SCHEMES)}; a group size may follow: W4A16-g64. "
        f"In a GGUF file: {', '.join(sorted(BLOCK_SCHEMES))}. "
        "auto: the best mixture of schemes within 'bits', 'bytes' and 'latency'",
    )
    artifact: str | None = Field(
        default=None,
        description="instead of a scheme: a folder or Hugging Face id that llm-compressor, AutoRound, GPTQModel, "
        "AutoGPTQ, AutoAWQ or quantgate quantized from this model, or a GGUF file of it",
    )
    bits: float | None = Field(
        default=None, gt=0, le=16, description="of scheme auto: bits per weight over all linear layers, scales included"
    )
    bytes: Size | None = Field(
        default=None,
        gt=0,
        description="of scheme auto: the whole artifact on disk, tokenizer included (manifest.json aside); "
        "2.5 MB, 800 KiB or a number of bytes",
    )
    latency: Milliseconds | None = Field(
        default=None,
        gt=0,
        description="of scheme auto: milliseconds of all linear layers for one decoded token at batch 1, "
        "measured on this machine; 3, 3 ms or 800 us",
    )
    method: str | None = Field(
        default=None, description=f"{', '.join(methods.names())}; left out, the usual one of the scheme"
    )
    group_size: int | None = Field(
        default=None, description="input columns that share a scale; left out, the scheme's own"
    )
    symmetric: bool | None = Field(default=None, description="false adds zero points")
    options: dict[str, JsonValue] = Field(default={}, description="options of the method, such as {clip: mse}")
    kv_cache: Literal["fp8", "int8", "int4"] | None = Field(
        default=None, description="what keys and values are rounded to in the cache; fp8 is what runtimes read"
    )
    rotation: Literal["hadamard"] | None = Field(
        default=None,
        exclude_if=lambda rotation: rotation is None,  # a configuration without one keeps its digest
        description="turns the residual stream by a random Hadamard matrix before rounding, folded into the weights; "
        f"of {', '.join(ROTATABLE)} models",
    )
    container: str = Field(default=CONTAINER, description=f"how it is stored: {', '.join(checkpoints.names())}")
    keep: tuple[str, ...] = Field(default=(), description="layers to leave alone: names, parts of names, or globs")
    lm_head: str = Field(
        default=KEEP, description="the output layer: a weight-only scheme such as W8A16 or W4A16-g32, or keep"
    )
    embeddings: str = Field(
        default=KEEP, description="the embedding table: the scheme of the blocks, where that is weight-only, or keep"
    )
    untie: bool = Field(
        default=False, description="store an output layer of its own where the model reads the embeddings as one"
    )
    name: str | None = Field(default=None, description="what to call it")
    engine: Literal["torch", "llamacpp"] = Field(
        default="torch",
        exclude_if=lambda engine: engine == "torch",  # a configuration without one keeps its digest
        description="what answers the cases; llamacpp runs a GGUF file in llama.cpp, after its logits were proven",
    )
    runtime: RuntimeConfig | None = Field(
        default=None,
        exclude_if=lambda runtime: runtime is None,  # a configuration without one keeps its digest
        description="settings of engine llamacpp, such as {kv_cache: q8_0, draft: small.gguf}",
    )

    @model_validator(mode="after")
    def _made_or_found(self) -> Self:
        if (self.scheme is None) == (self.artifact is None):
            both = "both 'scheme' and 'artifact'" if self.scheme else "neither 'scheme' nor 'artifact'"
            raise ValueError(f"names {both}; a scheme is made, an artifact is taken as it is, so name one of them")
        if self.artifact is not None and (
            more := sorted(self.model_fields_set - {"artifact", "name", "engine", "runtime"})
        ):
            raise ValueError(f"an artifact is taken as it is; leave out '{more[0]}'")
        if self.engine == "llamacpp" and not (
            (self.artifact or "").lower().endswith(".gguf") or in_blocks(self.scheme) or self.container == GGUF
        ):
            raise ValueError(
                "engine llamacpp runs GGUF files; name a scheme such as Q4_K_M, or a .gguf file under 'artifact', or "
                "leave 'engine' out"
            )
        if self.runtime is not None and self.engine != "llamacpp":
            raise ValueError("'runtime' sets llama.cpp; write engine: llamacpp beside it, or leave it out")
        if self.engine == "llamacpp" and self.kv_cache:
            raise ValueError(
                f"llama.cpp has no KV cache in {self.kv_cache}; write runtime: {{kv_cache: q8_0}}, "
                "or leave 'kv_cache' out"
            )
        return self

    @model_validator(mode="after")
    def _budget(self) -> Self:
        mixed = self.scheme is not None and self.scheme.lower() == AUTO
        budgets = [name for name in BUDGETS if getattr(self, name) is not None]
        if mixed != bool(budgets):
            raise ValueError(
                f"'{(budgets or BUDGETS)[0]}' is the budget of scheme auto: both or neither, such as "
                "{scheme: auto, bits: 4.5}; the budgets are bits, bytes and latency, one or several"
            )
        if mixed and (
            more := sorted(
                self.model_fields_set - {"scheme", *BUDGETS, "keep", "name", "container", "engine", "runtime"}
            )
        ):
            raise ValueError(f"scheme auto chooses by itself; leave '{more[0]}' out")
        if mixed and self.container not in (CONTAINER, GGUF):
            raise ValueError(f"scheme auto mixes layers in {CONTAINER} and in {GGUF}; leave 'container' out")
        if self.container == GGUF and self.latency is not None:
            raise ValueError(
                "latency is measured on kernels that read no GGUF blocks; there a token takes as long as its bytes, so "
                "give 'bytes' or 'bits'"
            )
        return self


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

    calibration = config.calibration.model_copy(update={"traffic": seen(config.calibration.traffic)})
    capabilities = {
        name: one.model_copy(update={"suite": seen(one.suite)}) for name, one in config.capabilities.items()
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
