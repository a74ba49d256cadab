"""Engines: run a variant and say which kernel path ran. One file per engine.

An engine's file ends with ``ENGINE = open_engine``, where ``open_engine(artifact_or_model, **settings) -> Engine``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from pydantic import Field, JsonValue

from quantgate.records import Record, digest_of

if TYPE_CHECKING:
    from torch import Tensor


def _nothing(value: object) -> bool:
    return not value


def _unknown(value: object) -> bool:
    return value is None


class Ask(Record):
    """What is asked of an answer. What is not asked leaves no trace in a digest."""

    max_tokens: int = 64  # answer budget in tokens
    tools: tuple[dict[str, JsonValue], ...] = Field(default=(), exclude_if=_nothing)
    """Functions that may be called, each {"name", "description", "parameters"}: offered in the model's own way."""
    answer_schema: dict[str, JsonValue] = Field(default={}, exclude_if=_nothing)
    """JSON Schema of the answer: an engine that holds answers to one (``response_format``) is told."""
    stop: tuple[str, ...] = Field(default=(), exclude_if=_nothing)
    """Texts that end the answer; they are not part of it."""
    plain: bool = Field(default=False, exclude_if=_nothing)
    """The turns are one text to be continued: no chat template."""
    choices: tuple[str, ...] = Field(default=(), exclude_if=_nothing)
    """Continuations to be weighed instead of generated: the answer is JSON, [[log likelihood, greedy], ...]."""


class Prompt(Ask):
    """One conversation to be answered: (role, content) turns, and what is asked of the answer."""

    turns: tuple[tuple[str, str], ...]
    full: bool = Field(default=False, exclude_if=_nothing)
    """An engine of this process goes on to ``max_tokens`` whatever the model would end with: a load of known length."""


class Completion(Record):
    """One answer. Times are this prompt's share of its batch, in seconds.

    A server counts tokens in its own way, or says nothing: None is not known, and never 0.
    """

    text: str
    tokens: int | None  # generated, the end token not counted
    prompt_tokens: int | None
    finish: Literal["stop", "length", "filtered"]
    """``filtered``: a filter in front of the model withheld the answer, or what is left of it."""
    prefill_s: float = 0.0
    decode_s: float = 0.0
    drafted: int = Field(default=0, exclude_if=_nothing)  # tokens that a draft model proposed
    accepted: int = Field(default=0, exclude_if=_nothing)  # of these, that stood
    latency_s: float | None = Field(default=None, exclude_if=_unknown)  # of a server: from sending to the last byte
    ttft_s: float | None = Field(default=None, exclude_if=_unknown)  # to the first text, where it was streamed


class TokenLogprobs(Record):
    """One token of a known answer as a model saw it coming; natural logarithms."""

    token: str
    logprob: float
    top: dict[str, float]  # the most likely tokens in its place; what is left of the mass lies outside them


class Failure(Record):
    """The engine could not answer: the case is unscored, never wrong by default."""

    reason: str
    lost: bool = Field(default=False, exclude_if=_nothing)
    """The request was lost on its way or the server broke: it says nothing about the model, and proves no loss."""


class KernelPath(Record):
    """Which code multiplied which matrices: asked, got, and why where they differ."""

    scheme: str  # "W4A16-g128"
    shape: tuple[int, int]  # [out, in] of the linears that share the path
    asked: str
    got: str
    because: str = ""
    linears: int  # how many linears of that shape run so


@dataclass(frozen=True)
class Product:
    """One multiplication of a runtime's forward pass: of a weight, or of rows taken out of it."""

    weight: str  # the tensor's name in the artifact
    inputs: Any  # numpy float32 [tokens, in]; of a table of rows: int32 [1, tokens]
    outputs: Any  # numpy float32 [tokens, out]


@dataclass(frozen=True)
class Kept:
    """What a runtime's cache made of the keys or of the values of one layer."""

    name: str  # "cache_k_l0": of the first layer's keys
    kind: str  # the type of its entries: "F16", "Q8_0"
    turned: int  # width of the Hadamard matrix that turned them before; 0: none
    given: Any  # numpy float32 [tokens, width], as they were given to it
    kept: Any  # numpy uint8 [tokens, bytes], as they stand in it


class Identity(Record):
    """What an answer depends on besides its prompt; part of every cache key."""

    engine: str
    weights: str  # digest of the weights' content
    tokenizer: str  # digest
    template: str  # digest of the chat template
    runtime: tuple[str, ...]  # "dtype=bfloat16", "kernels=auto", library versions ...
    sampling: str = "greedy"
    config: str = Field(default="", exclude_if=_nothing)  # digest of the model's config.json, where the engine reads it
    bos: str = Field(default="", exclude_if=_nothing)  # the tokens in front of every prompt: "1 x token 0"
    stops: tuple[int, ...] = Field(default=(), exclude_if=_nothing)  # ids that end an answer, by the model's settings

    @property
    def key(self) -> str:
        return digest_of(self.body())


class Engine(Protocol):
    """What evaluate needs of a runtime."""

    @property
    def identity(self) -> Identity: ...

    @property
    def kernels(self) -> tuple[KernelPath, ...]: ...

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion | Failure]:
        """Answer every prompt, in order; a prompt that cannot be answered is a Failure, not an exception."""
        ...

    def logits(self, ids: Tensor, at: Tensor | None = None) -> Tensor:
        """Float32 logits [batch, length, vocabulary] of token ids [batch, length].

        With ``at`` [batch, length], only where it is True: [positions, vocabulary], and no more is ever in memory.
        """
        ...

    def encode(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        """Token ids of a conversation that may end with an answer."""
        ...


@runtime_checkable
class Speller(Protocol):
    """An engine that can say what its tokens stand for."""

    def spell(self, ids: Sequence[int]) -> list[str]:
        """The text of every token by itself."""
        ...


@runtime_checkable
class Remote(Protocol):
    """What is known of a model behind an interface that gives neither ids nor logits."""

    def answer_logprobs(self, turns: Sequence[tuple[str, str]], top: int) -> list[TokenLogprobs] | Failure:
        """Every token of the known answer that ``turns`` end with, and the ``top`` likeliest tokens in its place."""
        ...
