"""Load: what users feel when many ask at once. Open loop, from the intended time, by stage, one arm beside the other.

    schedule = arrivals.poisson(rate=8, seconds=60, seed=0)      # every arrival is fixed before anything is sent
    result = runs.run(plan, arms, journal)                       # LoadResult

Nobody waits for an answer before the next request is due: users do not, either. A time begins when a request *should*
have been sent, so a server that stalls shows it in every request that was due meanwhile ("coordinated omission", Tene,
How NOT to Measure Latency, 2013). What the generator itself was late by is measured, and too much of it makes a run
invalid. What an engine does not report is unknown, never zero; a request that failed took longer than all others.
"""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import Field

from quantgate.engines import Prompt
from quantgate.records import Record

Stage = Literal["parse", "context", "cache", "queue", "prefill", "decode", "validate", "stream"]
STAGES: tuple[Stage, ...] = ("parse", "context", "cache", "queue", "prefill", "decode", "validate", "stream")


class Heard(Record):
    """One answer as it came in. Times are seconds on the clock of ``time.perf_counter``."""

    sent: float  # when the request left, or joined the engine's queue
    first: float | None = None  # when its first text came; None where none came, or nothing was streamed
    last: float | None = None  # when its end came; None where it never did
    gaps_s: tuple[float, ...] = ()  # between one piece of text and the next
    tokens: int | None = None  # generated, as the engine counts them; None where it does not say
    prompt_tokens: int | None = None
    batch: int | None = None  # rows that were decoded together, where the engine tells
    stages: dict[Stage, float] = {}  # seconds, of what the engine reports
    lost: str = ""  # why there is no answer
    gone: bool = False  # it is lost because nobody answers at all


class Target(Protocol):
    """Something that can be asked many things at a time."""

    name: str

    async def __aenter__(self) -> Target: ...

    async def __aexit__(self, *problem: object) -> None: ...

    async def ask(self, prompt: Prompt) -> Heard:
        """Never raises for one request: what went wrong stands in ``lost``."""
        ...


class Timed(Record):
    """One request of a run. Seconds; latencies begin at the intended time, not at the sending."""

    at: int  # its place in the schedule
    due_s: float  # intended, from the beginning of the run
    lag_s: float  # by which the generator was late, or held it back at its limit
    held: bool = Field(default=False, exclude_if=lambda held: not held)  # waited for room under the limit
    ttft_s: float | None  # to the first text
    e2e_s: float | None  # to the end; None: lost
    gaps_s: tuple[float, ...]
    tokens: int | None
    prompt_tokens: int | None
    beside: float  # requests in flight while it was, itself among them: the mean, or the engine's own batch
    stages: dict[Stage, float]
    lost: str = Field(default="", exclude_if=lambda lost: not lost)

    @property
    def tpot_s(self) -> float | None:
        """Seconds a token after the first, (end - first) / (tokens - 1), as vLLM defines it; None where not known."""
        if self.tokens is None or self.tokens < 2 or self.ttft_s is None or self.e2e_s is None:
            return None
        return (self.e2e_s - self.ttft_s) / (self.tokens - 1)
