"""Proposals: tool calls that wait for a person, and what became of each. One row per step, appended and flushed.

    proposed -> approved -> executed
             -> denied         (or, from proposed or approved, expired)

``Journal`` is a file of JSON lines that several processes share under a lock; it survives kill -9, and a row that was
cut is cut off. The arguments of calls are kept as long as somebody may still decide or fetch them, and go when the
proposal is finished and the file is next tidied; their hash stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from quantgate.errors import DataError, RecordError
from quantgate.records import Record, append_line, canonical, disk_errors, parse, write_whole

Status = Literal["proposed", "approved", "denied", "executed", "expired"]
OPEN: tuple[Status, ...] = ("proposed", "approved")
LAYOUT = 1
TIDY = 64  # finished proposals that still hold arguments
KEEP_S = 90 * 86400.0  # seconds that a finished proposal is remembered


class HeldCall(Record):
    """One tool call as it will leave."""

    tool: str
    arguments: str  # the text as it came; empty once the proposal is finished and tidied


class Proposal(Record):
    """What a person is asked, and to what the answer is bound."""

    id: str
    caller: str  # public id of the key
    calls: tuple[HeldCall, ...]  # all of the answer's: it leaves whole or not at all
    held: tuple[str, ...]  # why: rule by rule
    hash: str  # of nonce, caller, policy and calls in canonical form
    policy: str  # digest of the rules
    nonce: str
    preview: str  # for people, cut where a call is long; the calls stand in full above
    canary: bool
    at: float  # seconds since 1970, UTC
    expires: float


class Event(Record):
    """One step, as it stands in the journal."""

    id: str
    status: Status
    at: float
    by: str = ""  # who approved or denied; who fetched
    proposal: Proposal | None = None  # of the first step alone


class State(Record):
    """A proposal and its newest step."""

    proposal: Proposal
    status: Status
    at: float
    by: str = ""


Move = Callable[[State | None, float], Event]
"""(what is known, time of the newest event) -> the step; raising leaves everything as it is."""


class Proposals(Protocol):
    def change(self, id: str, move: Move) -> State:
        """One step, alone against all other processes, durable when it returns. Raises what ``move`` does, DiskFull."""
        ...

    def all(self) -> Sequence[State]:
        """What is known, oldest first."""
        ...


class Memory:
    """Proposals of one process, gone with it."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}
        self._latest, self._lock = 0.0, threading.Lock()

    def change(self, id: str, move: Move) -> State:
        with self._lock:
            event = move(self._states.get(id), self._latest)
            _apply(self._states, event)
            self._latest = max(self._latest, event.at)
            return self._states[id]

    def all(self) -> Sequence[State]:
        with self._lock:
            return list(self._states.values())


class Journal:
    """Proposals in a file. Raises RecordError where it is broken before its last line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._states: dict[str, State] = {}
        self._latest, self._size = 0.0, 0
        self._generation: int | None = None  # raised whenever the file is written anew; None: not read yet
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self._tidy()

    def change(self, id: str, move: Move) -> State:
        with self._alone():
            event = move(self._states.get(id), self._latest)
            self._append(event.body())
            self._take(event)
            state = self._states[id]
            if sum(one.status not in OPEN and bool(one.proposal.preview) for one in self._states.values()) >= TIDY:
                self._tidy()
            return state

    def all(self) -> Sequence[State]:
        with self._alone():
            return list(self._states.values())

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else reads or writes, and what others wrote is known."""
        with self._lock, disk_errors(self.path):
            handle = os.open(self.path.with_name(f"{self.path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                self._catch_up()
                yield
            finally:
                os.close(handle)

    def _catch_up(self) -> None:
        if not self.path.exists():
            if self._generation is not None:
                raise RecordError(f"{self.path}: the journal of approvals is gone; restore it, or start anew")
            os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
        with self.path.open("rb") as file:
            head = file.readline()
            if not head.endswith(b"\n"):  # new, or its first row was cut: nothing was ever acknowledged
                os.truncate(self.path, 0)
                self._size, self._generation = 0, 1
                return self._append({"approvals": LAYOUT, "generation": 1})
            generation = self._generation_of(head)
            if generation != self._generation:
                self._states, self._size, self._generation = {}, len(head), generation
            file.seek(self._size)
            for line in file:
                if not line.endswith(b"\n"):
                    os.truncate(self.path, self._size)  # a row that was cut: its step was never acknowledged
                    break
                self._take(self._parsed(line))
                self._size += len(line)

    def _generation_of(self, head: bytes) -> int:
        try:
            row = json.loads(head)
            if row["approvals"] == LAYOUT:
                return int(row["generation"])
        except (ValueError, KeyError, TypeError):
            pass
        raise RecordError(f"{self.path}: no journal of approvals of this version; name another file, or start anew")

    def _parsed(self, line: bytes) -> Event:
        where = f"{self.path}, byte {self._size}"
        try:
            return parse(Event, json.loads(line), where=where, error=RecordError)
        except ValueError:
            raise RecordError(f"{where}: no step of an approval; restore the file, or start anew") from None

    def _append(self, row: dict[str, Any]) -> None:
        self._size += append_line(self.path, row, self._size)

    def _take(self, event: Event) -> None:
        _apply(self._states, event)
        self._latest = max(self._latest, event.at)

    def _tidy(self) -> None:
        """Write the file anew: finished proposals without their arguments, and none that is long over."""
        kept = {
            id: state if state.status in OPEN else _silent(state)
            for id, state in self._states.items()
            if state.status in OPEN or state.at > self._latest - KEEP_S
        }
        if kept == self._states:
            return
        generation = (self._generation or 0) + 1
        rows = [event.body() for state in kept.values() for event in _events(state)]
        data = [canonical(row) + b"\n" for row in ({"approvals": LAYOUT, "generation": generation}, *rows)]
        write_whole(self.path, b"".join(data))
        os.chmod(self.path, 0o600)
        self._states, self._size, self._generation = kept, sum(map(len, data)), generation


def _apply(states: dict[str, State], event: Event) -> None:
    if event.proposal is not None:
        states[event.id] = State(proposal=event.proposal, status=event.status, at=event.at, by=event.by)
    elif event.id not in states:
        raise DataError(f"the approval {event.id} is {event.status}, but nobody proposed it")
    else:
        states[event.id] = State(proposal=states[event.id].proposal, status=event.status, at=event.at, by=event.by)


def _events(state: State) -> Iterator[Event]:
    proposal = state.proposal
    yield Event(id=proposal.id, status="proposed", at=proposal.at, by=proposal.caller, proposal=proposal)
    if state.status != "proposed":
        yield Event(id=proposal.id, status=state.status, at=state.at, by=state.by)


def _silent(state: State) -> State:
    calls = tuple(call.model_copy(update={"arguments": ""}) for call in state.proposal.calls)
    proposal = state.proposal.model_copy(update={"calls": calls, "preview": ""})
    return state.model_copy(update={"proposal": proposal})
