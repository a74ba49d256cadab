"""Drift as a record: the figures, where they are large, and how far chance could have moved them.

Natural logarithms everywhere. "Low" and "high" are the ends of a 95 % interval by a bootstrap over documents, because
the tokens of one document are not independent; None where there are fewer than MIN_DOCUMENTS of them.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from quantgate.records import Record

LEVEL = 0.95
DRAWS = 1000
MIN_DOCUMENTS = 8  # fewer say nothing about how documents differ


class Spread(Record):
    """A number per position: its mean, two measures of its chance, and its percentiles."""

    mean: float
    se: float  # llama.cpp's: as if positions were independent
    low: float | None
    high: float | None
    percentiles: dict[str, float]  # "max", "99.9", "99", "95", "90", "median", "10", "5", "1", "0.1", "min"


class DriftRow(Record):
    """The drift of one group of positions."""

    name: str  # "64-127"
    tokens: int  # positions
    documents: int
    kl_mean: float
    kl_low: float | None
    kl_high: float | None
    kl_p99: float
    same_top: float
    rms_dp: float
    ln_ratio: float  # mean change of the true token's negative log-likelihood
    tv: float | None  # mean total variation, half the sum of |P - Q|
    note: str = Field(default="", exclude_if=lambda note: not note)


class DriftTable(Record):
    """Positions by one property. Groups may overlap where a position has several values of it."""

    by: str  # "position in the sequence"
    about: str  # how the groups were made
    rows: tuple[DriftRow, ...]


class TailMass(Record):
    """Probability outside what the baseline finds likely, on average over positions."""

    outside: str  # "the baseline's 20 likeliest tokens"
    baseline: float
    variant: float
    moved: float  # variant - baseline
    low: float | None
    high: float | None


class FirstTokens(Record):
    """Where an answer to a request begins that is to be refused, or not: the first token alone."""

    expect: str  # "refuse" or "comply"
    cases: int
    kl_mean: float
    tv: float  # mean total variation
    baseline: float  # mean probability that the baseline gives to tokens that begin a refusal
    variant: float
    low: float | None  # of variant - baseline
    high: float | None


class RefusalDrift(Record):
    """Drift at the boundary between refusing and complying."""

    openers: tuple[str, ...]  # tokens with which the baseline itself begins a refusal
    rows: tuple[FirstTokens, ...]


class DriftDetail(Record):
    """What stands behind the headline figures."""

    documents: int
    seed: int  # of the bootstrap
    kl: Spread
    dp: Spread  # change of the true token's probability
    rms_dp_se: float
    same_top_se: float
    same_top_low: float | None
    same_top_high: float | None
    ppl_baseline_se: float
    ppl_variant_se: float
    ln_ratio_low: float | None
    ln_ratio_high: float | None
    correlation: float | None  # of both negative log-likelihoods; None where one of them never varies
    tv_mean: float | None
    tails: tuple[TailMass, ...]
    tables: tuple[DriftTable, ...] = ()
    refusals: RefusalDrift | None = None


class Drift(Record):
    """Logit-level distance from the baseline on held-out text; it screens, it never decides. Natural logarithms."""

    version: ClassVar[int] = 2

    tokens: int  # scored positions
    kl_mean: float
    kl_median: float
    kl_p99: float
    kl_max: float
    same_top: float  # share of positions with the same most likely token
    rms_dp: float  # root mean square change of the true token's probability
    ppl_baseline: float
    ppl_variant: float
    ppl_ratio: float
    ppl_ratio_se: float  # standard error of ln(ratio), paired
    lower_bound: bool = Field(default=False, exclude_if=lambda bound: not bound)
    """Whether only the likeliest tokens were known: then KL and total variation are at least what stands here."""
    detail: DriftDetail | None = Field(default=None, exclude_if=lambda detail: detail is None)
