"""One candidate of a release: what is made or taken as it is, and what runs it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from quantgate.endpoint_config import EndpointConfig
from quantgate.errors import UsageError
from quantgate.formats import scheme_names
from quantgate.formats.schemes import BLOCK_SCHEMES
from quantgate.hardware.quantities import BYTES
from quantgate.models.families import ROTATABLE
from quantgate.quantize import checkpoints, methods
from quantgate.quantize.manifest import BASELINE, CONTAINER, GGUF, KEEP, QAT, in_blocks
from quantgate.records import Record, parse
from quantgate.runtime_config import RuntimeConfig
from quantgate.train.options import DistillOptions, QatOptions

__all__ = ["AUTO", "RuntimeConfig", "VariantConfig"]

AUTO = "auto"  # the scheme of a mixture that is made for a budget of bits
BUDGETS = ("bits", "bytes", "latency")


def _size(value: Any) -> Any:
    """``2.5 MB``, ``"2MiB"`` and ``2500000`` are bytes."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([a-zA-Z]*)\s*", value)
    unit = found and next((one for one in BYTES if one.lower() == (found[2] or "B").lower()), None)
    if not found or unit is None:
        raise ValueError(f"expected a size such as 2.5 MB, 800 KiB or 2500000, found '{value}'")
    return int(float(found[1]) * BYTES[unit])


def _milliseconds(value: Any) -> Any:
    """``3``, ``3 ms``, ``800us`` and ``0.1 s``: milliseconds."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|)\s*", value)
    if not found:
        raise ValueError(f"expected milliseconds such as 3 ms, 800 us or 3, found '{value}'")
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "": 1.0, "s": 1e3}[found[2]]


Size = Annotated[int, BeforeValidator(_size)]
Milliseconds = Annotated[float, BeforeValidator(_milliseconds)]


PLAIN_SCHEMES = tuple(name for name in scheme_names() if name not in BLOCK_SCHEMES)


class VariantConfig(Record):
    """One candidate: scheme, method and what to leave alone, an artifact that is there already, or another model.

    What is trained is trained in the run: method qat, and a student of a shape of its own.
    """

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
    model: str | None = Field(
        default=None,
        exclude_if=lambda model: model is None,  # a configuration without one keeps its digest
        description="a model of its own (a distilled student, a fine-tune) judged beside the others: a folder, address "
        "or Hugging Face id; as it is, or with a scheme made smaller",
    )
    student: DistillOptions | None = Field(
        default=None,
        exclude_if=lambda student: student is None,  # a configuration without one keeps its digest
        description="a smaller model that this run cuts from the baseline and distils, such as {layers: 4}; as it is, "
        "or with a scheme made smaller",
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
        default=None,
        description=f"{', '.join(methods.names())}; left out, the usual one of the scheme. "
        f"{QAT}: trained with its rounding, where rounding alone is not enough",
    )
    group_size: int | None = Field(
        default=None, description="input columns that share a scale; left out, the scheme's own"
    )
    symmetric: bool | None = Field(default=None, description="false adds zero points")
    options: dict[str, JsonValue] = Field(
        default={},
        description="options of the method, such as {clip: mse}; of qat those of the training, such as {steps: 400}",
    )
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
    engine: Literal["torch", "llamacpp", "openai"] = Field(
        default="torch",
        exclude_if=lambda engine: engine == "torch",  # a configuration without one keeps its digest
        description="what answers the cases; llamacpp runs a GGUF file in llama.cpp, after its logits were proven; "
        "openai asks the server under 'endpoint', which serves the variant",
    )
    endpoint: EndpointConfig | None = Field(
        default=None,
        exclude_if=lambda endpoint: endpoint is None,
        description="of engine openai: the server that runs the variant, such as "
        "{launch: 'vllm serve {artifact} --port {port}'}",
    )
    runtime: RuntimeConfig | None = Field(
        default=None,
        exclude_if=lambda runtime: runtime is None,  # a configuration without one keeps its digest
        description="settings of the engine, such as {kv_cache: q8_0, draft: small.gguf} or {batch: 8}",
    )

    @property
    def is_baseline(self) -> bool:
        """Whether it is the baseline by its own name, which is no variant."""
        return self.model is None and self.student is None and not self.made and self.artifact is None

    @property
    def made(self) -> bool:
        """Whether anything is quantized here."""
        return self.scheme is not None and self.scheme.upper() not in (BASELINE, "BASELINE")

    @property
    def trained(self) -> bool:
        """Whether its codes are trained."""
        return self.method == QAT

    @property
    def training(self) -> QatOptions:
        """The options of method qat. Raises UsageError with the nearest key for one that it does not have."""
        return parse(QatOptions, self.options, where=f"options of {QAT}")

    @model_validator(mode="after")
    def _student(self) -> Self:
        """Before the rest: what a student is beside is told by its own name."""
        other = "model" if self.model is not None else "artifact" if self.artifact is not None else None
        if self.student is None:
            return self
        if other is not None:
            raise ValueError(
                f"names both 'student' and '{other}'; a student is distilled in this run and '{other}' is there "
                "already, so leave one of them out"
            )
        _refuse_beside(self, "a student")
        return self

    @model_validator(mode="after")
    def _qat(self) -> Self:
        if not self.trained:
            return self
        if self.scheme is not None and self.scheme.lower() == AUTO:
            raise ValueError(
                "method qat trains one scheme, and scheme auto mixes layers that were rounded after training; name a "
                "scheme such as W3A16, or leave 'method' out"
            )
        if self.scheme is not None and not self.made:
            raise ValueError("method qat trains with a rounding, and BF16 rounds nothing; name a scheme such as W3A16")
        try:
            _ = self.training
        except UsageError as refused:
            raise ValueError(str(refused)) from None
        return self

    @model_validator(mode="after")
    def _own_model(self) -> Self:
        if self.model is None:
            return self
        if self.artifact is not None:
            raise ValueError(
                "names both 'model' and 'artifact'; a model is judged as it is or with a scheme, so leave 'artifact' "
                "out"
            )
        _refuse_beside(self, "a model")
        return self

    @model_validator(mode="after")
    def _made_or_found(self) -> Self:
        own = self.model is not None or self.student is not None
        if self.scheme is None and self.artifact is None and not own and self.endpoint is not None:
            raise ValueError(
                "names a server and not what it serves, so nothing could be released; name 'scheme', 'artifact' or "
                "'model' beside it, or compare servers by their addresses: quantgate compare URL URL"
            )
        if not own and (self.scheme is None) == (self.artifact is None):
            both = "both 'scheme' and 'artifact'" if self.scheme else "neither 'scheme' nor 'artifact'"
            raise ValueError(f"names {both}; a scheme is made, an artifact is taken as it is, so name one of them")
        if self.artifact is not None and (
            more := sorted(self.model_fields_set - {"artifact", "name", "engine", "runtime", "endpoint"})
        ):
            raise ValueError(f"an artifact is taken as it is; leave out '{more[0]}'")
        if self.engine == "llamacpp" and not (
            (self.artifact or "").lower().endswith(".gguf") or in_blocks(self.scheme) or self.container == GGUF
        ):
            raise ValueError(
                "engine llamacpp runs GGUF files; name a scheme such as Q4_K_M, or a .gguf file under 'artifact', or "
                "leave 'engine' out"
            )
        if (self.engine == "openai") != (self.endpoint is not None):
            raise ValueError("'engine: openai' and 'endpoint' belong together; write both, or neither")
        if self.runtime is not None:
            try:
                self.runtime.settings(self.engine)
            except UsageError as refused:
                raise ValueError(str(refused)) from None
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
                self.model_fields_set
                - {"scheme", *BUDGETS, "keep", "name", "container", "engine", "runtime", "endpoint"}
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


def _refuse_beside(one: VariantConfig, what: str) -> None:
    """What a model of its own does not go with. Raises ValueError."""
    key = what.rpartition(" ")[2]
    if one.scheme is not None and one.scheme.lower() == AUTO:
        raise ValueError(
            f"scheme auto mixes layers of the baseline; name a scheme such as W8A16 beside '{key}', or none"
        )
    as_it_is = {key, "scheme", "name", "engine", "runtime", "endpoint"}
    if not one.made and (more := sorted(one.model_fields_set - as_it_is)):
        raise ValueError(f"{what} without a scheme is taken as it is; leave '{more[0]}' out, or name a scheme")
