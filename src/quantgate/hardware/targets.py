"""Targets: hardware, runtime, objectives and price of a place where a variant must run, as release.yaml has it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from quantgate.errors import UnknownName
from quantgate.hardware import profiles
from quantgate.hardware.matrix import runtime_name, runtimes
from quantgate.hardware.quantities import Bytes, PerHour, PerSecond, Seconds
from quantgate.records import Record

KvCache = Literal["auto", "f32", "f16", "bf16", "fp8", "int8", "int4", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


LATENCIES = {
    "ttft": "time to the first token",
    "tpot": "time for each further token",
    "e2e": "time to the end of an answer",
}
EXAMPLES = {"ttft": "300ms", "tpot": "30ms", "e2e": "8s"}
PERCENTILES = (50, 95, 99)


def _promise(latency: str, percentile: int) -> Any:
    return Field(
        default=None,
        exclude_if=lambda told: told is None,
        description=f"{LATENCIES[latency]}, {percentile}th percentile, such as {EXAMPLES[latency]}",
    )


class Place(Record):
    """Where a variant must run, and what its users are promised there."""

    hardware: str = Field(
        description="a device such as h100-sxm, rtx-4090, m4-max or cpu-avx512; here: what quantgate doctor measured"
    )
    runtime: str = Field(description=f"what serves it there: {', '.join(runtimes())}")
    memory: Bytes | None = Field(
        default=None, description="what the runtime may take of each device, such as 8GiB; left out, the device's"
    )
    price: PerHour | None = Field(default=None, description="of each device, such as 2.50/h, in your money")
    ttft_p50: Seconds | None = _promise("ttft", 50)
    ttft_p95: Seconds | None = _promise("ttft", 95)
    ttft_p99: Seconds | None = _promise("ttft", 99)
    tpot_p50: Seconds | None = _promise("tpot", 50)
    tpot_p95: Seconds | None = _promise("tpot", 95)
    tpot_p99: Seconds | None = _promise("tpot", 99)
    e2e_p50: Seconds | None = _promise("e2e", 50)
    e2e_p95: Seconds | None = _promise("e2e", 95)
    e2e_p99: Seconds | None = _promise("e2e", 99)
    rate: PerSecond | None = Field(default=None, description="requests that arrive, such as 8/s")
    prompt: int = Field(default=1024, ge=1, le=10_000_000, description="tokens of a usual prompt")
    answer: int = Field(default=256, ge=1, le=1_000_000, description="tokens of a usual answer")
    context: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="tokens that a sequence may grow to, for which the cache must have room; left out, prompt + answer",
    )
    concurrency: int = Field(default=1, ge=1, le=100_000, description="sequences that must be served at once")
    tensor_parallel: int = Field(default=1, ge=1, le=64, description="devices that share each layer")
    kv_cache: KvCache = Field(
        default="auto",
        description="type of cached keys and values; auto: the variant's, or the runtime's usual 16 bits",
    )

    @field_validator("hardware")
    @classmethod
    def _known_hardware(cls, value: str) -> str:
        try:
            return value if profiles.normal(value) == profiles.HERE else profiles.profile(value).name
        except UnknownName as unknown:
            raise ValueError(str(unknown)) from None

    @field_validator("runtime")
    @classmethod
    def _known_runtime(cls, value: str) -> str:
        try:
            return runtime_name(value)
        except UnknownName as unknown:
            raise ValueError(str(unknown)) from None

    @property
    def promises(self) -> dict[tuple[str, int], float]:
        """What is promised: (latency, percentile) -> seconds, such as ("ttft", 95): 0.3."""
        told = {(name, of): getattr(self, f"{name}_p{of}") for name in LATENCIES for of in PERCENTILES}
        return {key: seconds for key, seconds in told.items() if seconds is not None}

    @property
    def tokens(self) -> int:
        """Tokens of one sequence that the cache must have room for."""
        return self.context if self.context is not None else self.prompt + self.answer
