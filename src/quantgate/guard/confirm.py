"""The confirmation gate: tool calls of high value leave only after a person has approved exactly them.

An answer that calls such a tool is withheld whole. In its place leaves a message that says so, with ``finish_reason``
"stop" and ``{"quantgate": {"pending_approval": {"id", "tools", "hash", "expires"}}}`` in the message. Somebody with the
right to decide reads the proposal and approves it by id and hash, or denies it. The client then asks again with the
header ``x-quantgate-approval: <id>`` and gets the withheld calls, once, exactly as approved.

An approval is bound to caller, tools, arguments (in canonical JSON), rules, a nonce and an expiry. Whatever differs is
refused; no answer by the expiry means no; a clock that is set back gains nobody time.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import Field, field_validator

from quantgate.errors import ApprovalRefused
from quantgate.guard import Message
from quantgate.guard.conditions import condition, met
from quantgate.guard.proposals import OPEN, Event, HeldCall, Proposal, Proposals, State, Status
from quantgate.guard.reading import NotJson, read
from quantgate.records import Record, digest_of

TOOL = re.compile(r"[\w?*-]{1,64}", re.ASCII)
SHOWN = 400  # characters of a call in the preview


class Rule(Record):
    """Which calls a person must approve."""

    tool: str = Field(description="name of the tool; * stands for any letters, ? for one")
    when: tuple[str, ...] = Field(
        default=(), description="of the arguments, all of them: '/amount > 100'; none: always"
    )
    canary: tuple[str, ...] | None = Field(
        default=None, description="instead of when, while the variant is a canary; []: always; null: the same"
    )

    @field_validator("tool")
    @classmethod
    def _named(cls, tool: str) -> str:
        if not TOOL.fullmatch(tool):
            raise ValueError(f"no tool is named '{tool}'; give letters, digits, _ and -, and * or ? for any of them")
        return tool

    @field_validator("when", "canary")
    @classmethod
    def _parsed(cls, conditions: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for one in conditions or ():
            condition(one)
        return conditions

    def holds(self, tool: str, arguments: Any, *, canary: bool) -> bool:
        return fnmatch.fnmatchcase(tool, self.tool) and all(met(one, arguments) for one in self._of(canary))

    def why(self, tool: str, *, canary: bool) -> str:
        return " and ".join([tool, *self._of(canary)])

    def _of(self, canary: bool) -> tuple[str, ...]:
        return self.canary if canary and self.canary is not None else self.when


class Rules(Record):
    """A route's gate. Its digest is the version that approvals are bound to."""

    rules: tuple[Rule, ...] = Field(min_length=1, description="a call is held as soon as one of them says so")
    expires: float = Field(default=900.0, ge=1.0, le=7 * 86400.0, description="seconds to approve, and to fetch")
    waiting: int = Field(default=100, ge=1, description="open proposals of one caller; more are refused")
    other_person: bool = Field(default=False, description="nobody approves what was asked with their own key")


class Gate:
    """Holds calls back, and lets go of what was approved. Any number of processes may share its proposals."""

    def __init__(
        self,
        rules: Rules,
        proposals: Proposals,
        *,
        now: Callable[[], float] = time.time,
        token: Callable[[], str] = lambda: secrets.token_urlsafe(18),
    ) -> None:
        """``now``: seconds since 1970; ``token``: a text that nobody guesses."""
        self.rules, self.proposals, self._now, self._token = rules, proposals, now, token
        self.version = rules.digest

    def hold(self, message: Message, *, caller: str, canary: bool) -> dict[str, Any] | None:
        """The message that leaves instead, its calls proposed; None where nothing needs a person.

        Raises ApprovalRefused where the caller has too many open proposals, DiskFull; then nothing may leave.
        """
        calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()]
        held = [
            rule.why(tool, canary=canary)
            for tool, text in calls
            for rule in self.rules.rules
            if rule.holds(tool, value_of(text), canary=canary)
        ]
        if not held:
            return None
        proposal = self._propose(calls, held, caller=caller, canary=canary)
        until = datetime.fromtimestamp(proposal.expires, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        tools = list(dict.fromkeys(tool for tool, _ in calls))
        said = f"Not called yet: {', '.join(tools)}. A person must approve it ({proposal.id}) until {until}."
        content = message.get("content")
        return {
            "role": "assistant",
            "content": f"{content}\n\n{said}" if content else said,
            "quantgate": {
                "pending_approval": {
                    "id": proposal.id,
                    "tools": tools,
                    "hash": proposal.hash,
                    "expires": proposal.expires,
                }
            },
        }

    def _propose(self, calls: Sequence[tuple[str, str]], held: Sequence[str], *, caller: str, canary: bool) -> Proposal:
        waiting = sum(one.proposal.caller == caller for one in self.waiting())
        if waiting >= self.rules.waiting:
            raise ApprovalRefused(
                "approval_full", f"{waiting} tool calls of this key wait for approval; decide on some of them first"
            )
        id, nonce = f"ap_{self._token()}", self._token()
        preview = "\n".join(f"{tool} {text[:SHOWN]}{'...' * (len(text) > SHOWN)}" for tool, text in calls)

        def propose(state: State | None, latest: float) -> Event:
            if state is not None:
                raise ApprovalRefused("approval_twice", f"the id {id} was given before; ask again")
            at = max(self._now(), latest)
            proposal = Proposal(
                id=id,
                caller=caller,
                calls=tuple(HeldCall(tool=tool, arguments=text) for tool, text in calls),
                held=tuple(dict.fromkeys(held)),
                hash=hash_of(nonce, caller, self.version, calls),
                policy=self.version,
                nonce=nonce,
                preview=preview,
                canary=canary,
                at=at,
                expires=at + self.rules.expires,
            )
            return Event(id=id, status="proposed", at=at, by=caller, proposal=proposal)

        return self.proposals.change(id, propose).proposal

    def waiting(self) -> list[State]:
        """Open proposals, oldest first; what has run out is put down as expired on the way."""
        now = self._now()
        for one in self.proposals.all():
            if one.status in OPEN and one.proposal.expires <= now:
                with contextlib.suppress(ApprovalRefused):  # somebody was quicker
                    self.proposals.change(one.proposal.id, self._expire)
        return [one for one in self.proposals.all() if one.status in OPEN]

    def approve(self, id: str, *, by: str, hash: str) -> State:
        """``hash`` is the one that was read with the calls: nobody approves what they have not seen."""
        return self._decide(id, "approved", by, hash)

    def deny(self, id: str, *, by: str) -> State:
        return self._decide(id, "denied", by, None)

    def _decide(self, id: str, status: Status, by: str, hash: str | None) -> State:
        def decide(state: State | None, latest: float) -> Event:
            found = self._found(id, state, None)
            at = max(self._now(), latest)
            if found.status in OPEN and found.proposal.expires <= at:
                return Event(id=id, status="expired", at=at)
            if found.status != "proposed":
                raise ApprovalRefused("approval_decided", f"{id} is {found.status} already; nothing changed")
            if hash is not None and not secrets.compare_digest(hash.encode(), found.proposal.hash.encode()):
                raise ApprovalRefused("approval_edited", f"{id} is not what that hash stands for; read it again")
            if status == "approved" and self.rules.other_person and by == found.proposal.caller:
                raise ApprovalRefused("approval_own", f"{id} was asked with this key; another person must approve it")
            return Event(id=id, status=status, at=at, by=by)

        return self._unexpired(self.proposals.change(id, decide), status)

    def redeem(self, id: str, *, caller: str, calls: Sequence[tuple[str, Any]] | None = None) -> dict[str, Any]:
        """The approved message, once. ``calls``: (tool, arguments) that must be those that were approved."""
        approved: list[Proposal] = []  # as it was before the store tidied it

        def execute(state: State | None, latest: float) -> Event:
            found = self._found(id, state, caller)
            at = max(self._now(), latest)
            if found.status in OPEN and found.proposal.expires <= at:
                return Event(id=id, status="expired", at=at)
            if found.status != "approved":
                raise _not_now(id, found.status)
            proposal = found.proposal
            approved.append(proposal)
            if proposal.policy != self.version:
                raise ApprovalRefused("approval_stale", f"{id} was approved under other rules; ask for it anew")
            wanted = calls if calls is not None else [(one.tool, one.arguments) for one in proposal.calls]
            if hash_of(proposal.nonce, caller, self.version, wanted) != proposal.hash:
                raise ApprovalRefused("approval_edited", f"{id} was approved with other arguments; ask for it anew")
            return Event(id=id, status="executed", at=at, by=caller)

        self._unexpired(self.proposals.change(id, execute), "executed")
        return _message(approved[0])

    def _found(self, id: str, state: State | None, caller: str | None) -> State:
        if state is None or (caller is not None and state.proposal.caller != caller):
            raise ApprovalRefused("approval_unknown", f"no approval {id} is known for this key")
        return state

    def _unexpired(self, state: State, wanted: Status) -> State:
        if state.status != wanted:
            raise _not_now(state.proposal.id, state.status)
        return state

    def _expire(self, state: State | None, latest: float) -> Event:
        if state is None or state.status not in OPEN:
            raise ApprovalRefused("approval_decided", "it was decided meanwhile")
        return Event(id=state.proposal.id, status="expired", at=max(self._now(), latest))


def value_of(arguments: Any) -> Any:
    """Arguments as a value; a text that is no JSON stands for itself, and meets every condition."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return read(arguments)
    except NotJson:
        return arguments


def hash_of(nonce: str, caller: str, policy: str, calls: Sequence[tuple[str, Any]]) -> str:
    """Of calls in canonical JSON: keys in order, no blanks (as RFC 8785, but 1 and 1.0 differ).

    The nonce keeps anybody from trying out arguments against a hash in a log.
    """
    return digest_of([nonce, caller, policy, [[tool, value_of(arguments)] for tool, arguments in calls]])


def _not_now(id: str, status: Status) -> ApprovalRefused:
    codes = {
        "proposed": ("approval_pending", "nobody has approved it yet; ask again later"),
        "approved": ("approval_pending", "it is approved, but was not fetched"),
        "denied": ("approval_denied", "it was denied"),
        "executed": ("approval_used", "it was fetched before, and counts once"),
        "expired": ("approval_expired", "nobody approved and fetched it in time, and that means no"),
    }
    code, told = codes[status]
    return ApprovalRefused(code, f"{id}: {told}")


def _message(proposal: Proposal) -> dict[str, Any]:
    calls = [
        {
            "id": f"call_{proposal.id}_{at}",
            "type": "function",
            "function": {"name": one.tool, "arguments": one.arguments},
        }
        for at, one in enumerate(proposal.calls)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls, "quantgate": {"approved": proposal.id}}
