"""What an evaluation leaves behind: comparisons per capability and slice, flips with both answers, drift."""

from __future__ import annotations

from pydantic import Field

from quantgate.evaluate.drift_record import Drift
from quantgate.records import Record
from quantgate.stats import Finding

MAX_UNSCORED = 0.02  # of the cases visited; above it no capability passes, whatever its scores say


class SliceGate(Record):
    """A slice declared up front: judged by itself if it has the cases that a pass needs at best, else reported only."""

    name: str  # "depth=0.5"
    margin: float  # as the capability's
    cases: int  # that could be visited
    needs: int  # with fewer not even a variant that answers alike can pass

    @property
    def judged(self) -> bool:
        return self.cases >= self.needs


class Gate(Record):
    """What one capability must prove, registered before anything runs."""

    capability: str
    suite: str  # a built-in suite's name, or the name of a JSONL file
    margin: float  # fraction; of the baseline's score if relative, of the scale if not
    relative: bool = True
    cases: int = 400  # at most
    alpha: float = 0.05  # chance of a wrong verdict
    pass_alpha: float = 0.05  # the same after correcting for the number of variants
    test: str = "eprocess"
    seed: int = 0  # fixes which cases, and the order in which they are visited
    hard: int = 0  # extra cases of the hard difficulty: reported, never judged
    slices: tuple[SliceGate, ...] = Field(default=(), exclude_if=lambda slices: not slices)
    """Slices that must pass as well."""

    def of_slice(self, one: SliceGate) -> Gate:
        """What a declared slice must prove: the same at its own margin."""
        update = {"capability": f"{self.capability} [{one.name}]", "margin": one.margin, "hard": 0, "slices": ()}
        return self.model_copy(update=update)


class SliceResult(Record):
    """Paired scores of one named subset; report only."""

    name: str  # "depth=0.5"
    n: int
    baseline: float
    variant: float
    gains: int
    losses: int


class Flip(Record):
    """A case whose score changed, with both answers: what a person wants to read."""

    case: str  # id
    case_digest: str
    prompt: str  # the turns before the answer
    reference: str  # one right answer, or the reference as JSON
    baseline_answer: str
    variant_answer: str
    baseline_score: float
    variant_score: float
    because: str
    slices: tuple[str, ...] = ()


class Comparison(Record):
    """One variant against its baseline on one capability."""

    gate: Gate
    suite_digest: str  # over the case digests, in the order visited
    n: int  # pairs judged
    asked: int  # cases visited
    available: int  # cases that could have been visited
    unscored: tuple[str, ...]  # "case id: reason"
    baseline_score: float | None  # None when nothing was scored: missing is not zero
    variant_score: float | None
    finding: Finding
    slices: tuple[SliceResult, ...]
    flips: tuple[Flip, ...]
    hard: tuple[SliceResult, ...] = ()
    judged: tuple[Comparison, ...] = Field(default=(), exclude_if=lambda judged: not judged)
    """The slices that are judged by themselves, each on its own cases; their flips stand with the capability's."""
    asked_for_slices: int = Field(default=0, exclude_if=lambda asked: not asked)
    """Cases that were asked for a slice alone."""

    @property
    def gaps(self) -> bool:
        """Whether too many of the visited cases could not be scored for a pass."""
        return gaps(len(self.unscored), self.asked)


def gaps(unscored: int, asked: int) -> bool:
    return unscored > MAX_UNSCORED * asked


class Evidence(Record):
    """All comparisons and the drift of one variant; names the exact bytes and runtime it judged."""

    variant: str
    artifact: str  # digest
    baseline: str  # digest
    engine: str  # identity digest of the variant's engine
    baseline_engine: str
    kernels: tuple[str, ...]  # one sentence per kernel path
    comparisons: tuple[Comparison, ...]
    drift: Drift | None
    no_drift: str = ""  # why there is none
    screened: str = Field(default="", exclude_if=lambda screened: not screened)
    """Why no case was asked: the drift was beyond what the release allows. Empty where cases were asked."""
