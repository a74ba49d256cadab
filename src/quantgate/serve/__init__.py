"""The gateway: an OpenAI-compatible API in front of variants. Route, guard, confirm, budget, record exchanges.

    app.py         the ASGI application: one function per route, the path of a request from first byte to last
    wire.py        what crosses HTTP: bodies in, answers, error objects and server-sent events out
    relay.py       an upstream's stream -> what may leave, under a policy, with a watch on both ends
    sound.py       an upstream's whole answer, as far as others count on its form
    upstreams/     an OpenAI-compatible server, or an engine of this process (one file each)
    routing.py     session -> cohort -> variant; rules by features of a request
    keys.py        callers: keyed hashes, scopes          ledger.py   budgets and quotas, reserved and settled
    shadow.py      copies to a variant nobody hears       exchanges.py  what became of each request, for the watch
    stages.py      the time of each stage, and budgets    metrics.py  what Prometheus reads
    responses.py, completions.py   the other two routes, by conversion to chat
    open.py        a gateway out of its configuration     admin.py   routes of operators

This door holds the nouns that the rooms of the gateway share, so that each can be read and tested alone. What is on
the path of every request is a plain dataclass with slots; what is kept is a record.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import Field

from quantgate.errors import QuantgateError
from quantgate.records import Record

Route = Literal["chat", "completions", "responses"]
Role = Literal["baseline", "stable", "canary"]
Cohort = Literal["stable", "canary", "holdback", "pinned"]
"""Why a request got its variant. stable, canary, holdback: by the hash of its session; pinned: by a rule or by hand,
and never part of a comparison."""
Side = Literal["trial", "control", ""]
"""Which side of a comparison a session was drawn to: the variant on trial, what it is held against, or neither. With it
goes ``odds``: the probability with which a session of either side would have been the trial's."""
STAGES = ("parse", "context", "cache", "queue", "prefill", "decode", "validate", "stream")
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant that is live, as requests see it."""

    name: str  # of the variant
    digest: str  # of its artifact, or of its weights where it is the baseline
    role: Role


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key it was. ``key`` is its public id, never the secret."""

    key: str
    scopes: frozenset[str] = frozenset({"use"})  # use, admin, watch
    budget: str = ""  # the ledger's account; empty: none


@dataclass(slots=True)
class Request:
    """One request, parsed once. ``body`` is never changed: what goes upstream is a copy with other keys."""

    id: str
    route: Route
    body: Body  # OpenAI chat form, whatever the route
    caller: Caller
    session: str  # keyed hash of what names the session, hex; of the request's id where nothing does
    told_session: bool  # whether the client named one
    headers: Mapping[str, str]  # lower case
    size: int  # bytes of the body as it came
    retry: int = 0  # x-stainless-retry-count
    arrived_s: float = 0.0  # monotonic
    deadline_s: float | None = None  # monotonic; None: none
    original: Body | None = None  # of a route that was converted

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a request goes, and why."""

    arm: Arm
    cohort: Cohort
    share: float  # with which probability this session would have been the canary's: the watch needs it
    revision: int  # of the release that said so
    rule: str = ""  # of the policy that pinned it
    fallback: Arm | None = None  # where an answer that fails is asked again: the baseline, unless it is the arm
    side: Side = ""
    odds: float = 0.0
    against: str = ""  # digest of the other side's bytes
    draw: str = ""  # which draw gave it its side: another one with each canary, the same through its ramp


@dataclass(slots=True)
class Reply:
    """A whole answer of an upstream."""

    status: int
    body: Body
    raw: bytes
    stages: dict[str, float] = field(default_factory=dict)  # seconds by stage, where the upstream tells
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Chunk:
    """One server-sent event of an upstream: the line as it came and what it says. ``raw`` has no line end."""

    raw: bytes  # b'data: {...}'
    body: Body
    more: bool = False  # whether the next one is here already, so that both may leave in one piece


class UpstreamFault(QuantgateError):
    """An upstream could not answer."""

    def __init__(
        self,
        kind: Literal["refused", "timeout", "cut", "malformed", "error_event", "status", "overloaded"],
        sentence: str,
        *,
        status: int = 502,
        body: Body | None = None,
    ) -> None:
        super().__init__(sentence)
        self.kind, self.status, self.body = kind, status, body


class Upstream(Protocol):
    """What answers for one arm. Closing the iterator, or cancelling the call, ends the work at the upstream at once."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def ready(self) -> str | None:
        """What it says that it serves (its model's name, a digest where it knows one); None while it is not up."""
        ...

    async def ask(self, body: Body, *, timeout_s: float | None) -> Reply:
        """Raises UpstreamFault."""
        ...

    def stream(self, body: Body, *, timeout_s: float | None) -> AsyncIterator[Chunk]:
        """Raises UpstreamFault, also in the middle; ends after the upstream's ``[DONE]``, and only then."""
        ...


class Keys(Protocol):
    def find(self, secret: str) -> Caller | None:
        """Whose key it is, in constant time; None: nobody's, or revoked."""
        ...


@dataclass(frozen=True, slots=True)
class Reservation:
    account: str
    tokens: int
    money: float
    id: int


class OverBudget(QuantgateError):
    """A key has spent what it may; ``retry_after_s`` tells when it may again, None: not by waiting."""

    def __init__(self, sentence: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


class LedgerClosed(QuantgateError):
    """The ledger cannot be reached, so nothing is spent."""


class Ledger(Protocol):
    """Budgets of keys. In memory on the path of a request, out of leases that the database granted beforehand."""

    def reserve(self, caller: Caller, prompt_tokens: int, answer_tokens: int, variant: str = "") -> Reservation | None:
        """None: the caller has no budget. Never waits. Raises OverBudget, LedgerClosed.

        Both counts are upper bounds. Where a lease must be fetched first, OverBudget asks to come back in a moment.
        """
        ...

    async def admit(
        self, caller: Caller, prompt_tokens: int, answer_tokens: int, variant: str = ""
    ) -> Reservation | None:
        """``reserve``, but it waits for a lease from the database where one must be fetched: what a gateway calls."""
        ...

    def settle(self, reservation: Reservation, prompt_tokens: int, answer_tokens: int, variant: str = "") -> None: ...


class Exchange(Record):
    """One live request and what became of it. No text of prompt or answer, unless the operator asked for it."""

    id: str
    at: float  # seconds since 1970, UTC
    target: str
    variant: str
    artifact: str  # digest
    answered_by: str  # the variant whose answer left; another than ``variant`` after an escalation; empty: none did
    cohort: Cohort
    share: float
    side: Side = ""
    odds: float = 0.0
    against: str = ""  # digest of the other side's bytes; empty where there is no side
    draw: str = ""  # which draw gave it its side: another one with each canary, the same through its ramp
    revision: int
    rule: str = ""
    shadow: bool = False
    route: Route
    key: str  # public id
    session: str  # keyed hash
    told_session: bool
    stream: bool
    structured: bool
    status: int  # of HTTP
    error: str = ""  # code of the error object, also of one in mid-stream
    finish: str = ""
    step: str = ""  # how the answer got through the guard: passed, repaired, corrected, escalated, failed
    faults: tuple[str, ...] = ()  # kinds, in the order met
    repairs: tuple[str, ...] = ()
    refusal: bool = False  # the answer declines, by the message's own field
    disconnected: bool = False
    retry: int = 0
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    stages: dict[str, float] = {}  # seconds
    broke: str = ""  # the stage that broke its budget
    ttft_s: float | None = None
    total_s: float = 0.0
    overhead_s: float = 0.0  # of total_s, spent in the gateway itself
    prompt_hash: int | None = Field(default=None, description="64-bit SimHash of the last user turn, keyed")
    marks: dict[str, float] = Field(default={}, description="what signals read from its texts, by their names")
    unread: tuple[str, ...] = Field(default=(), description="signals that failed on its texts: not the same as no mark")
    text: dict[str, Any] | None = Field(default=None, description="prompt and answer, only where the operator asked")


class Sink(Protocol):
    def put(self, exchange: Exchange) -> None:
        """Never waits and never raises: what does not fit is dropped and counted."""
        ...
