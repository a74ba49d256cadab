"""What a target demands of a variant, all of it said before anything is measured; and what a load test found there."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from quantgate.evaluate.evidence import Gate
from quantgate.hardware.targets import Place
from quantgate.loadtest.measure import Measured
from quantgate.loadtest.objectives import Objective
from quantgate.loadtest.result import PairResult
from quantgate.records import Record

Prefer = Literal["size", "cost"]


def _unknown(value: object) -> bool:
    return value is None


class DriftLimits(Record):
    """Drift beyond which a target does not take a variant, whatever its answers; None: no limit."""

    kl_mean: float | None = None  # nats a token
    ppl_ratio: float | None = None  # of the baseline's perplexity
    same_top: float | None = None  # share of next tokens, at least


class TargetRules(Record):
    """Every rule of one target. A variant must keep all of them."""

    name: str
    place: Place
    profile: str = ""  # of the product, where rules came from one
    gates: tuple[Gate, ...]  # capabilities that it needs, with their margins and slices
    ledger: dict[str, int] = {}  # event -> lines that a variant may have
    drift: DriftLimits | None = None
    cost: float | None = None  # money for a million answer tokens, at most
    prefer: Prefer = "size"  # which of those that keep all rules is chosen: the smallest or the cheapest
    speed: Literal["measured", "planned"] = "measured"  # what latencies and rates are judged by
    stack: Literal["same", "any"] = "same"  # whether answers of another runtime than the target's count

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return tuple(
            Objective.model_validate({"latency": latency, "q": percentile / 100, "most_s": seconds})
            for (latency, percentile), seconds in self.place.promises.items()
        )


class LoadAt(Record):
    """One rate of a sweep."""

    rate: float  # requests a second that arrived
    measured: Measured
    baseline: Measured | None = None


class LoadEvidence(Record):
    """A load test of one variant where it must run. Only whole and valid ones at the asked rate decide anything."""

    target: str
    variant: str
    artifact: str  # digest of the bytes it is said of
    result: str  # digest of the whole LoadResult
    what: str  # what answered: an engine's digest, or an address
    declared: bool = False  # that the server ran just these bytes is its operator's word
    rate: float  # requests a second that arrived
    limit: int | None = None  # requests in flight at most
    measured: Measured
    baseline: Measured | None = None  # on the same requests, in turns
    pairs: tuple[PairResult, ...] = ()  # the variant's latencies over the baseline's
    knee: float | None = None  # requests a second behind which latency rises faster
    safe: float | None = None  # up to which every objective is proven kept
    curve: tuple[LoadAt, ...] = Field(default=(), exclude_if=lambda curve: not curve)  # other rates, where any were
    rates: tuple[float, ...] = Field(default=(), exclude_if=lambda rates: not rates)  # all that were asked
    keeps_up_to: float | None = Field(default=None, exclude_if=_unknown)  # rate up to which it answers as fast as asked
    policy: str = ""  # how many may be in flight, in a sentence, and what batches do
    at_most: int | None = Field(default=None, exclude_if=_unknown)  # the largest limit that is proven to keep them all
    answer_tokens: float | None = Field(default=None, exclude_if=_unknown)  # of an answer, in the mean, as counted
    lighter: str = Field(default="", exclude_if=lambda lighter: not lighter)
    """Why a pass proves nothing: requests were shorter than the target's."""
    partial: str = Field(default="", exclude_if=lambda partial: not partial)  # why it is not whole
    notes: tuple[str, ...] = ()

    @property
    def doubt(self) -> str:
        """Why it decides nothing; empty where it does."""
        return self.partial or self.measured.validity.because
