"""The records of quantization: what was asked (Recipe), what became of each tensor (Fate), and all of it (Manifest)."""

from __future__ import annotations

import importlib.metadata
import re
from fnmatch import fnmatchcase
from typing import Any, Literal, Self

from pydantic import (
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from quantgate.formats.schemes import BLOCK_SCHEMES
from quantgate.records import Record, digest_of

ALWAYS_KEPT = ("embed_tokens", "lm_head")  # where a rounding error reaches every token; kept unless a recipe asks
KEEP = "keep"  # what a recipe says of the two where it does not name a scheme
OUTSIDE = {"lm_head": KEEP, "embeddings": KEEP, "untie": False}  # keys that are written only where they say more
CONTAINER = "compressed_tensors"  # unless a recipe names another
GGUF = "gguf"  # the container of block formats, whose names say so: nobody has to name it
BASELINE = "BF16"  # the scheme that quantizes nothing
QAT = "qat"  # the method of what was trained, which no sweep runs
MIXED = "MIXED"  # the scheme of an artifact whose layers come from several others
LEFT_OUT = "left out"  # what a tensor got that is stored and not used
SAFE_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


EVENTS = {  # of the ledger: what each line is about
    "kept": "kept at full precision",
    "fused": "kept because a neighbour is",
    "fallback": "solved by another method than asked",
    "damping": "solved with more damping than asked",
    "dead_columns": "with inputs that the calibration set never used",
    "clipped": "with more than one weight in a hundred beyond the reach of its scale",
    "not_scaled": "without the channel scales that were asked for",
    "expert_tokens": "experts, with the tokens that reached them",
    "starved_expert": "experts that too few tokens reached",
}


def in_container(name: str, container: str) -> str:
    """A variant's name with its container, where that is not the usual one: ``W4A16+gptq_v2``."""
    return name if container in (CONTAINER, GGUF) else f"{name}+{container}"


def in_blocks(label: object) -> bool:
    """Whether a scheme is one of GGUF's block formats or file types.

    >>> in_blocks("q4_k_m"), in_blocks("W4A16")
    (True, False)
    """
    return isinstance(label, str) and label.upper() in BLOCK_SCHEMES


def outside_in_words(lm_head: str, embeddings: str, *, untie: bool) -> list[str]:
    """What a variant's name tells of the output layer and the embeddings.

    >>> outside_in_words("W8A16", "keep", untie=True)
    ['head-W8A16', 'untied']
    """
    head, table = (f"head-{lm_head}" if lm_head != KEEP else ""), (f"emb-{embeddings}" if embeddings != KEEP else "")
    return [part for part in (head, table, "untied" if untie else "") if part]


class Recipe(Record):
    """Scheme, method and what to leave alone. ``name`` is what the variant and its folder are called."""

    scheme: str  # W4A16, W8A8, FP8_DYNAMIC ..., or BF16 for the baseline itself
    method: str = ""  # rtn, gptq ...; empty means the usual one of the scheme
    group_size: int | Literal["channel"] | None = None  # input columns that share a scale; empty: the scheme's own
    symmetric: bool | None = None  # empty means the scheme's own
    options: dict[str, JsonValue] = Field(default_factory=dict)  # what the method understands; unknown keys are errors
    kv_cache: str = ""  # what keys and values are rounded to when cached: fp8, int8, int4; empty: nothing
    rotation: Literal["", "hadamard"] = Field(  # of the residual stream; recipes without one are as before it existed
        default="", exclude_if=lambda rotation: not rotation
    )
    container: str = CONTAINER  # how it is stored: compressed_tensors, gptq, gptq_v2, awq
    lm_head: str = KEEP  # the output layer: a weight-only scheme such as W8A16, or keep
    embeddings: str = KEEP  # the embedding table: likewise
    untie: bool = False  # store an output layer of its own where the model reads the embedding table as one
    keep: tuple[str, ...] = Field(
        default=(), validate_default=True
    )  # layers to leave at full precision: names, parts of names, or globs
    label: str = ""  # the variant's name, if the made-up one will not do

    @model_validator(mode="before")
    @classmethod
    def _container_of_blocks(cls, given: Any) -> Any:
        """A scheme of GGUF's blocks has one container."""
        if (
            isinstance(given, dict)
            and given.get("container", CONTAINER) == CONTAINER
            and in_blocks(given.get("scheme"))
        ):
            return {**given, "container": GGUF}
        return given

    @field_validator("keep")
    @classmethod
    def _always(cls, keep: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        asked = {"embed_tokens": info.data.get("embeddings", KEEP), "lm_head": info.data.get("lm_head", KEEP)}
        for name in ALWAYS_KEPT:
            if name in keep and asked[name] != KEEP:
                raise ValueError(f"lists '{name}', which is to be {asked[name]}; leave one of the two out")
        return tuple(sorted({*keep, *(name for name in ALWAYS_KEPT if asked[name] == KEEP)}))

    @model_serializer(mode="wrap")
    def _body(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Recipes that leave ``OUTSIDE`` alone are written, and named by a digest, as before there were such keys."""
        body: dict[str, Any] = handler(self)
        return {key: value for key, value in body.items() if key not in OUTSIDE or value != OUTSIDE[key]}

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if not SAFE_NAME.fullmatch(self.name):
            raise ValueError(
                f"'{self.name}' cannot name a folder; use letters, digits, '.', '_', '+' and '-' in 'label'"
            )
        return self

    @property
    def name(self) -> str:
        """
        >>> Recipe(scheme="W4A16", method="gptq", group_size=64).name
        'W4A16-g64-gptq'
        >>> Recipe(scheme="W4A16", container="awq").name
        'W4A16+awq'
        >>> Recipe(scheme="W3A16", rotation="hadamard", kv_cache="fp8").name
        'W3A16-rot-kv-fp8'
        """
        size = (
            ""
            if self.group_size is None
            else "channel"
            if self.group_size in ("channel", -1)
            else f"g{self.group_size}"
        )
        cache = f"kv-{self.kv_cache}" if self.kv_cache else ""
        turned = "rot" if self.rotation else ""
        outside = outside_in_words(self.lm_head, self.embeddings, untie=self.untie)
        parts = [self.scheme, size, "asym" if self.symmetric is False else "", self.method, turned, cache, *outside]
        return self.label or in_container("-".join(part for part in parts if part), self.container)

    def kept_by(self, layer: str) -> str | None:
        """The keep pattern that covers ``layer``, if one does: its full name, a part of its path, or a glob.

        >>> Recipe(scheme="W4A16", keep=("layers.0", "*_proj")).kept_by("model.layers.0.mlp.up_proj")
        '*_proj'
        """
        forms = ("{}", "{}.*", "*.{}", "*.{}.*")
        for pattern in self.keep:
            if any(fnmatchcase(layer, form.format(pattern)) for form in forms):
                return pattern
        return None


class Fate(Record):
    """What was asked for one tensor and what it got. ``name`` is the tensor's, without a closing ``.weight``."""

    name: str
    asked: str  # a format, "int4 g128", or "keep"
    got: str  # a format, the stored type ("bf16"), or "tied to ..."
    scheme: str = ""  # of a quantized layer: the label of its scheme, W4A16-g64
    because: str = ""  # why the two differ, or why nothing was asked
    # tr(dW H dW^T) / tr(W H W^T), H of the model's own inputs: share of the layer's output energy lost on them
    error: float | None = None
    weight_error: float | None = None  # |dW|^2 / |W|^2
    weights: int = 0  # how many numbers
    bytes: int = 0  # on disk, scales and zero points included, without the constant 16 bytes of a packed shape
    tensors: tuple[str, ...] = ()  # the names under which the container stores it
    facts: dict[str, JsonValue] = Field(
        default_factory=dict
    )  # what the method reports: damping, clipped zero points ...


class Note(Record):
    """One line of the ledger: something a gate may want to block on."""

    tensor: str
    event: str  # one of EVENTS
    detail: str
    value: float | None = None


class ModelIdentity(Record):
    ref: str  # what the user called it
    architecture: str
    weights: str  # digest
    tokenizer: str  # digest
    template: str  # digest
    config: str  # digest


class Calibration(Record):
    """The samples that quantization saw; ``digest`` (inherited) names the whole set.

    Sample digests are over the list of token ids, so a gate can look for leaked cases.
    """

    samples: tuple[str, ...]  # one digest per sample, in the order given
    tokens: int

    @classmethod
    def of(cls, samples: list[list[int]]) -> Self:
        return cls(samples=tuple(digest_of(sample) for sample in samples), tokens=sum(map(len, samples)))


class StoredFile(Record):
    sha256: str  # "sha256:..." over the bytes
    bytes: int


class StoredCache(Record):
    """The KV cache that an artifact asks its runtime for."""

    format: str  # fp8, int8, int4
    attentions: tuple[str, ...]  # the attention modules, one per layer, in order


class Training(Record):
    """How the codes of an artifact, or the weights of a student, were trained; ``digest`` (inherited) names the run."""

    method: Literal["qat", "distill"]
    teacher: str  # digest of the weights it was held to
    data: str  # digest of the training set's summary
    sources: dict[str, int]  # conversations that trained it, by where they come from
    options: dict[str, JsonValue]
    steps: int  # optimizer steps made
    best: int  # the step whose state was kept
    tokens: int  # seen by those steps
    before: float | None = None  # KL on the tune split in nats a token: of the start ...
    after: float | None = None  # ... and of what was kept


class Manifest(Record):
    """Everything about one artifact: ``manifest.json`` in its folder. Its digest names the artifact."""

    name: str
    recipe: Recipe
    method: str  # the one that ran
    checkpoint: str  # the container's plug-in name
    model: ModelIdentity
    calibration: Calibration | None
    inputs: str  # digest of everything that decides the bytes; a changed input is never mixed in
    tool: str
    torch: str
    device: str  # cpu or cuda
    seed: int
    fates: tuple[Fate, ...]  # one for every tensor of the model
    ledger: tuple[Note, ...]
    kv_cache: StoredCache | None = None
    training: Training | None = Field(default=None, exclude_if=lambda training: training is None)
    tensor_bytes: int  # all tensors of the container
    tensor_weights: int  # all numbers of the model (tied ones once)
    total_bytes: int  # all files but this one
    files: dict[str, StoredFile] = Field(default_factory=dict)

    @property
    def quantized(self) -> tuple[Fate, ...]:
        """The fates of the linear layers that are stored in the format that was asked for."""
        return tuple(fate for fate in self.fates if fate.asked == fate.got)

    @property
    def bits_per_weight(self) -> float:
        """Over the quantized layers, scales and zero points included; 0 when nothing was quantized."""
        weights = sum(fate.weights for fate in self.quantized)
        return 8 * sum(fate.bytes for fate in self.quantized) / weights if weights else 0.0

    @property
    def bits_per_weight_whole(self) -> float:
        """Over every tensor of the model, kept ones included."""
        return 8 * self.tensor_bytes / self.tensor_weights

    @property
    def mean_error(self) -> float | None:
        """Mean output error over the quantized layers, if calibration data measured it."""
        errors = [fate.error for fate in self.quantized if fate.error is not None]
        return sum(errors) / len(errors) if errors else None


def tool_version() -> str:
    try:
        return f"quantgate {importlib.metadata.version('quantgate')}"
    except importlib.metadata.PackageNotFoundError:
        return "quantgate (not installed)"
