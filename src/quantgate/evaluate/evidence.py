"""What an evaluation leaves behind: comparisons per capability and slice, flips with both answers, drift."""

from __future__ import annotations

from pydantic import Field

from quantgate.evaluate.drift_record import Drift
from quantgate.evaluate.lock import Lock
from quantgate.records import Record
from quantgate.stats import Finding

MAX_UNSCORED = 0.02  # of the cases visited; above it no capability passes, whatever its scores say


def _nothing(value: object) -> bool:
    return not value


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
    slices: tuple[SliceGate, ...] = Field(default=(), exclude_if=_nothing)
    """Slices that must pass as well."""
    sharing: int = Field(default=1, exclude_if=lambda sharing: sharing == 1)
    """Of a slice's gate: how many gates a capability may fail by; alpha is shared out among them."""

    def of_slice(self, one: SliceGate) -> Gate:
        """What a declared slice must prove: the same at its own margin."""
        name = f"{self.capability} [{one.name}]"
        update = {"capability": name, "margin": one.margin, "hard": 0, "slices": (), "sharing": self._gates}
        return self.model_copy(update=update)

    @property
    def fail_alpha(self) -> float:
        """The level at which a loss is proven: one slice is enough to fail, so they share alpha. A pass needs all."""
        return self.alpha / max(self.sharing, self._gates)

    @property
    def _gates(self) -> int:
        return 1 + sum(one.judged for one in self.slices)


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
    judged: tuple[Comparison, ...] = Field(default=(), exclude_if=_nothing)
    """The slices that are judged by themselves, each on its own cases; their flips stand with the capability's."""
    asked_for_slices: int = Field(default=0, exclude_if=_nothing)
    """Cases that were asked for a slice alone."""
    blind: tuple[str, ...] = Field(default=(), exclude_if=_nothing)
    """Degenerate models, such as "always refuses", that the gate would not have failed in the variant's place."""

    @property
    def gaps(self) -> bool:
        """Whether too many of the visited cases could not be scored for a pass."""
        return gaps(len(self.unscored), self.asked)


def gaps(unscored: int, asked: int) -> bool:
    return unscored > MAX_UNSCORED * asked


class NoiseFloor(Record):
    """How often the baseline contradicts itself on one capability: the same prompts, asked again in other batches."""

    capability: str
    n: int  # cases asked twice
    flips: int  # whose score changed
    differ: int  # whose text changed
    low: float  # of the share of flips: exact 95 % interval
    high: float
    how: str  # what was different the second time

    @property
    def rate(self) -> float:
        return self.flips / self.n


class Pace(Record):
    """What an engine's own clock said over the cases that one variant was asked; no evidence: it differs every time."""

    cases: int
    tokens: int  # generated
    prefill_s: float
    decode_s: float
    drafted: int = 0  # tokens that a draft model proposed
    accepted: int = 0  # of these, that stood

    @property
    def tokens_per_s(self) -> float | None:
        return self.tokens / self.decode_s if self.decode_s else None

    @property
    def acceptance(self) -> float | None:
        return self.accepted / self.drafted if self.drafted else None


class Evidence(Record):
    """All comparisons and the drift of one variant; names the exact bytes and runtime it judged."""

    variant: str
    artifact: str  # digest
    baseline: str  # digest
    engine: str  # identity digest of the variant's engine
    baseline_engine: str
    kernels: tuple[str, ...]  # one sentence per kernel path
    comparisons: tuple[Comparison, ...]
    for_targets: tuple[Comparison, ...] = Field(default=(), exclude_if=_nothing)
    """The same capabilities at the margins of targets that have their own."""
    drift: Drift | None
    no_drift: str = ""  # why there is none
    runtime: tuple[str, ...] = ()  # what the engine was set to: "engine=llamacpp", "kv_cache=q8_0" ...
    sandbox: str = Field(default="", exclude_if=lambda told: not told)
    """How code that the models wrote was shut in, baseline's and variant's alike; "" where none was run."""
    declared: bool = Field(default=False, exclude_if=lambda declared: not declared)
    """The engine did not see the artifact's bytes: that a server runs just these is its operator's word."""
    screened: str = Field(default="", exclude_if=lambda screened: not screened)
    """Why no case was asked: the drift was beyond what the release allows. Empty where cases were asked."""
    lock: Lock | None = Field(default=None, exclude_if=lambda lock: lock is None)  # what both sides have in common
