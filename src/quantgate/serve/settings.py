"""All that a gateway is made of, in one frozen object: what ``open.py`` builds and ``app.py`` runs.

Each part is a Protocol, small enough for a stand-in of three lines; ``None`` and the defaults switch a part off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from quantgate.guard import Contract, Policy
from quantgate.serve import Arm, Caller, Choice, Exchange, Keys, Ledger, Request, Sink, Upstream

Headers = list[tuple[bytes, bytes]]
Application = Callable[..., Awaitable[None]]
"""Of ASGI: scope, receive, send."""


class Router(Protocol):
    """Which variant answers a request. Swapping what is live is its own affair, and one reference assignment."""

    def choose(self, request: Request) -> Choice:
        """Raises refusals.Refused: 404 for a model that nobody serves, 403 for a pin that the caller may not have."""
        ...

    def models(self) -> Sequence[Mapping[str, Any]]:
        """What ``/v1/models`` lists: OpenAI's model objects, with the variant's digest beside the name."""
        ...

    def arms(self) -> Sequence[Arm]:
        """What is live now, each arm once."""
        ...

    def trouble(self) -> str | None:
        """Why the gateway is not ready as far as releases go, such as a registry that never answered; None: ready."""
        ...


class Sessions(Protocol):
    def name(self, body: Mapping[str, Any], headers: Mapping[str, str], caller: Caller, id: str) -> tuple[str, bool]:
        """The keyed hash of what names the session, hex, and whether the client named one."""
        ...


class Watch(Protocol):
    """Spans and metrics of OpenTelemetry, off the path of the request."""

    def begin(self, request: Request) -> Any: ...

    def end(self, exchange: Exchange) -> None: ...


class Shadow(Protocol):
    def offer(self, request: Request, choice: Choice) -> None:
        """Copy the request to a variant nobody hears, if there is room. Never waits, never raises."""
        ...


class Gate(Protocol):
    """Tool calls that a person must approve first (guard.confirm)."""

    def hold(self, message: Mapping[str, Any], *, caller: str, canary: bool) -> dict[str, Any] | None:
        """The message that leaves instead, its held calls proposed; None where nothing needs approval."""
        ...

    def redeem(self, id: str, *, caller: str) -> dict[str, Any]:
        """The approved message, once. Raises refusals.Refused or a QuantgateError of the gate."""
        ...


class Admit(Protocol):
    def __call__(self, body: Mapping[str, Any]) -> Contract:
        """Raises SchemaRefused."""
        ...


class Attached(Protocol):
    """What somebody above puts beside a gateway: a sink before its own, and pages. The watch is one."""

    sink: Sink  # gets every exchange, and hands it on to the gateway's own
    reads_text: (
        bool  # whether exchanges are to come with prompt and answer; it alone sees to it that they go no further
    )
    apps: Mapping[str, Application]  # by the first word of their path

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Once the gateway is up. Raises QuantgateError."""
        ...

    def close(self) -> None:
        """While the gateway's own sink is still open; also of what never started."""
        ...

    def warnings(self) -> Sequence[str]:
        """What is not as it should be, while requests are answered all the same."""
        ...


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """What the answers of some requests are held to."""

    stream: Policy = "holdback"
    window: int = 16  # tokens held back, where the policy is ``window``
    corrections: int = 1  # turns in which the variant may mend its answer
    escalate: bool = True  # whether the baseline is asked when the variant's answer fails
    validators: Sequence[Any] = ()  # guard.validators; of a request that is not the canary's
    canary_validators: Sequence[Any] | None = None  # stricter ones for a canary; None: the same
    gate: Gate | None = None
    budgets_ms: Mapping[str, float] = field(default_factory=dict)  # by stage of serve.STAGES, each a deadline
    keep_alive_s: float | None = 10.0  # a comment into a stream that was silent for so long; None: never


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may cost the gateway before anybody is asked."""

    body_bytes: int = 8 * 2**20
    body_s: float = 60.0  # for the body to come
    depth: int = 64  # of the body's JSON
    in_flight: int = 1024  # requests at once; more are shed with 503
    per_arm: int = 256  # asked at once of one upstream
    waiting: int = 1024  # for one upstream; more are shed
    answer_chars: int = 4 * 2**20  # of one answer
    answer_tokens: int = 1024  # reserved, and asked for, where a caller with a budget names no maximum
    timeout_s: float | None = 600.0  # of a whole request
    unread_s: float = 60.0  # that a client may leave a stream unread which is more than the buffers hold
    grace_s: float = 30.0  # for answers in flight when the gateway ends


@dataclass(frozen=True, slots=True)
class Settings:
    """A gateway. ``upstreams`` by the name of the arm; they may outlive a swap of what is live."""

    upstreams: Mapping[str, Upstream]
    router: Router
    admit: Admit
    sessions: Sessions
    keys: Keys | None = None  # None: open to whoever reaches it, as the caller ``anonymous``
    ledger: Ledger | None = None
    sink: Sink | None = None
    watch: Watch | None = None
    shadow: Shadow | None = None
    policy: Callable[[Request], RoutePolicy] = lambda _request, _same=RoutePolicy(): _same  # type: ignore[misc]
    limits: Limits = Limits()
    target: str = ""
    keep_text: bool = False  # whether the sink gets exchanges with prompt and answer
    openapi: Callable[[], Mapping[str, Any]] | None = None
    admin: Application | None = None  # for what begins with /admin
    apps: Mapping[str, Application] = field(default_factory=dict)  # more of the kind, by the first word of their path
    proven: Callable[[], bool] = lambda: True  # whether the guards' proof at start went well
    dead: Callable[[], str | None] = lambda: None  # other reasons not to be ready, such as a ledger that is closed
