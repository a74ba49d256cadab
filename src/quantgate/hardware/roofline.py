"""What memory holds and what a roofline allows: fits or not, time to the first token, time of each further one, cost.

A step reads the weights once for all sequences and each sequence's cache, and multiplies every token by every active
weight. It takes the longer of the two: bytes over bandwidth, or operations over the peak rate of the type that the
kernel computes in (Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009). Nothing is faster; a real kernel is
slower by its ``share`` where that was measured. Between devices nothing is counted, which flatters many of them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from quantgate.hardware.matrix import Runtime
from quantgate.hardware.profiles import Profile
from quantgate.hardware.served import Served
from quantgate.hardware.support import Support, kv_bits
from quantgate.records import Record

Bound = Literal["bytes", "operations", "calls", "unknown"]
MOST_SEQUENCES = 4096


class Load(Record):
    """What is asked of the device."""

    prompt: int = Field(ge=1)  # tokens
    answer: int = Field(ge=1)  # tokens
    context: int = Field(ge=1)  # tokens that a sequence may grow to
    concurrency: int = Field(default=1, ge=1)
    kv_cache: str = "auto"
    tensor_parallel: int = Field(default=1, ge=1)
    memory_bytes: int | None = None  # of each device, where less may be taken than it has
    price: float | None = None  # of each device, an hour


class Memory(Record):
    """Bytes of one device."""

    process: int  # what the runtime holds before a model, where that was measured
    weights: int
    mapped: int = Field(default=0, exclude_if=lambda mapped: not mapped)  # of the weights, what may be taken back
    cache: int  # of all sequences, grown to the context
    activations: int
    opening: int = 0  # weights while the model is opened, where that is known to be more
    available: int | None  # that the runtime may take; None where neither profile nor target says it

    @property
    def needed(self) -> int:
        return self.process + max(self.opening, self.weights - self.mapped + self.cache + self.activations)


class Estimate(Record):
    """Seconds, tokens and requests a second, money. What an unpublished number decides is None; ``notes`` says so."""

    memory: Memory
    fits: bool | None  # None: nobody says how much memory there is
    largest_batch: int | None  # sequences of the whole context
    ttft_s: float | None
    ttft_bound: Bound
    tpot_s: float
    tpot_bound: Bound
    tokens_per_s: float  # of all sequences together, while nothing is prefilled
    requests_per_s: float | None
    cost_per_million: float | None  # answer tokens, the reading of their prompts included; None where it does not fit
    notes: tuple[str, ...] = ()


def roofline(served: Served, profile: Profile, found: Support, runtime: Runtime, load: Load) -> Estimate:
    """``served`` by ``runtime`` on ``load.tensor_parallel`` devices of ``profile``, by the kernel of ``found``."""
    bits = kv_bits(runtime, load.kv_cache)
    memory = memory_of(served, profile, runtime, load, bits)
    fits = None if memory.available is None else memory.needed <= memory.available
    rate = profile.rate(found.computes) if found.computes else None
    ttft, ttft_bound = _time(served, profile, found, runtime, load, load.prompt, load.prompt // 2, 1, bits, rate)
    middle = load.prompt + load.answer // 2
    tpot, tpot_bound = _time(
        served, profile, found, runtime, load, load.concurrency, middle, load.concurrency, bits, rate
    )
    first = None if rate is None else ttft
    requests = None if first is None else 1 / (first + load.answer * tpot / load.concurrency)
    cost = None
    if load.price is not None and requests is not None and fits is not False:
        cost = load.price * load.tensor_parallel / 3600 / (requests * load.answer) * 1e6
    return Estimate(
        memory=memory,
        fits=fits,
        largest_batch=_largest(served, memory, load, bits),
        ttft_s=first,
        ttft_bound=ttft_bound if rate is not None else "unknown",
        tpot_s=tpot,
        tpot_bound=tpot_bound,
        tokens_per_s=load.concurrency / tpot,
        requests_per_s=requests,
        cost_per_million=cost,
        notes=tuple(_notes(profile, found, load, rate)),
    )


def memory_of(served: Served, profile: Profile, runtime: Runtime, load: Load, bits: float) -> Memory:
    """Bytes of one device: its part of weights and caches, and the activations of a chunk of prompt."""
    tp = load.tensor_parallel
    memory = load.memory_bytes or profile.memory_bytes
    chunk = min(runtime.chunk or load.prompt, load.prompt)
    logits = 4 * served.vocabulary * load.concurrency
    return Memory(
        process=runtime.process * 10**6,
        opening=round(served.plain_bytes / tp) if runtime.opens_plain else 0,
        weights=round(served.resident_bytes / tp),
        mapped=round(served.mapped_bytes / tp),
        cache=round(load.concurrency * served.cache_bytes(load.context, bits) / tp),
        activations=2 * chunk * (4 * served.hidden + 3 * served.widest // tp) + logits,
        available=None if memory is None else round(memory * (runtime.utilization if load.memory_bytes is None else 1)),
    )


def _time(
    served: Served,
    profile: Profile,
    found: Support,
    runtime: Runtime,
    load: Load,
    tokens: int,
    back: int,
    sequences: int,
    bits: float,
    rate: float | None,
) -> tuple[float, Bound]:
    """Seconds of one step of ``tokens`` tokens that look back on ``back`` ones each, and what bounds them."""
    tp = load.tensor_parallel
    moved = served.step_bytes(tokens) + sequences * served.cache_bytes(back, bits)
    by_bytes = moved / (profile.bandwidth * found.share * tp)
    ops = tokens * (2 * served.active + served.attention_ops(back))
    by_ops = 0.0 if rate is None else ops / (rate * tp)
    calls = (runtime.step_calls + served.layers * runtime.block_calls) * (profile.call_s or 0.0)
    longest = max(by_bytes, by_ops)
    bound: Bound = "calls" if calls > longest else "bytes" if by_bytes >= by_ops else "operations"
    return longest + calls, bound


def _largest(served: Served, memory: Memory, load: Load, bits: float) -> int | None:
    """How many sequences of the whole context have room beside weights and activations."""
    if memory.available is None:
        return None
    room = memory.available - memory.process - memory.weights + memory.mapped - memory.activations
    each = served.cache_bytes(load.context, bits) / load.tensor_parallel + 4 * served.vocabulary
    return max(0, min(MOST_SEQUENCES, int(room // each)))


def _notes(profile: Profile, found: Support, load: Load, rate: float | None) -> list[str]:
    notes = []
    if rate is None and found.computes:
        notes.append(f"no {found.computes} rate of {profile.title} is published: what operations take is unknown")
    elif found.computes and not profile.has(found.computes):
        notes.append(f"{profile.title} has no {found.computes} units of its own: the next wider type's rate is used")
    if load.memory_bytes is None and profile.memory_bytes is None:
        notes.append(f"{profile.title} says no memory: write 'memory' into the target to learn whether it fits")
    if load.tensor_parallel > 1:
        notes.append("what passes between devices is not counted")
    return notes
