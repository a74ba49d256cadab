"""What an evaluation leaves behind: comparisons per capability and slice, flips with both answers, drift."""

from __future__ import annotations

from pydantic import Field

from quantgate.evaluate.lock import Lock
from quantgate.records import Record
from quantgate.stats import Finding

MAX_UNSCORED = 0.02  # of the cases visited; above it no capability passes, whatever its scores say


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


class Drift(Record):
    """Logit-level distance from the baseline on held-out text; it screens, it never decides. Natural logarithms."""

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
    runtime: tuple[str, ...] = ()  # what the engine was set to: "engine=llamacpp", "kv_cache=q8_0" ...
    lock: Lock | None = Field(default=None, exclude_if=lambda lock: lock is None)  # what both sides have in common
