"""An answer in pieces: what may leave now, by the policy of its route. Fed chunk by chunk, no clock and no socket.

Under every policy: a piece leaves after the text so far was found to be the beginning of something allowed, and the
chunk that ends a choice leaves after the whole answer was checked. So what could complete a structured answer (the
closing bracket of its JSON) waits for the next piece or for that check: nothing invalid ever leaves whole.

    passthrough  each piece leaves as it comes
    holdback     the same, but nothing leaves before the first piece that says something
    window       the newest ``window`` pieces wait, and at least as many characters as a validator looks back
    buffer       nothing leaves before the end; the prefix check is off, because what it stops could be repaired
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quantgate.errors import UsageError
from quantgate.guard import Contract, Fault, Policy, Prefix
from quantgate.guard.assembly import CHOICES, Assembly, Body, Broken, Draft, Piece, unfinished
from quantgate.guard.known import CHOICE
from quantgate.guard.pieces import NEVER, Entry, Lane, Text
from quantgate.guard.validators import NOTHING, Context, Validator
from quantgate.guard.validators import check as judge

CHUNK = 16  # characters that a chunk counts for, whatever it holds
BESIDES = ("tool_calls", "refusal", "function_call", "reasoning_content", "reasoning")  # what a delta may hold as well
QUIET = frozenset({"role", "content", *BESIDES})
PIECES: Sequence[Policy] = ("passthrough", "holdback", "window")

Hold = Callable[[Body], Body | None]
"""A whole message -> the message that leaves instead of it; None: it may leave (``confirm.Gate.hold``)."""


class StreamGuard:
    """Guards one answer. Raises Broken, once, and then it is over."""

    def __init__(
        self,
        contract: Contract,
        policy: Policy,
        *,
        window: int = 16,
        validators: Sequence[Validator] = (),
        context: Context = NOTHING,
        hold: Hold | None = None,
        max_chars: int = 4 << 20,
        choices: int = CHOICES,
    ) -> None:
        """``window``: pieces; ``choices``: as many as were asked for."""
        blind = contract.structured and not contract.checks_prefixes
        needed: Policy = "buffer" if blind else least(validators)
        stricter = needed == "buffer" or (needed == "window" and policy in ("passthrough", "holdback"))
        self.policy: Policy = needed if stricter else policy
        self.forced = self.policy != policy  # a stricter policy than was asked for, because that one would check less
        self.released = False  # whether anything has left
        self._strict = bool(validators) or hold is not None
        self.assembly = Assembly(choices=choices, strict=self._strict, tokens=hold is None)
        self._contract, self._validators, self._context, self._hold = contract, validators, context, hold
        self._window = max(1, window)
        self._reach = max((one.reach or 0 for one in validators), default=0)
        self._lanes: dict[int, Lane] = {}
        self._loose: list[Body] = []  # chunks of no choice before anything left
        self._tail: list[Body] = []  # chunks of no choice behind the end of one
        self._orders, self._room = 0, max_chars
        self._broken: Broken | None = None
        self._plain: list[str] | None = None  # pieces of the only content, while nothing waits and nothing else came
        self._held: Text | None = None  # of that content, where there is something to hold it against

    def feed(self, chunk: Body) -> list[Body]:
        """The chunks that may leave now. Raises Broken."""
        plain = self._plain
        if plain is not None and (text := _only_content(chunk, self._strict)) is not None and self._room > len(text):
            held = self._held
            if held is None or (text and not held.closes(text)):
                self._room -= len(text)
                plain.append(text)
                if held is not None and (fault := held.feed(text)):
                    raise self._break(fault)
                return [chunk]
        if self._broken is not None:
            raise self._broken
        try:
            leaving = [entry for piece in self.assembly.add(chunk) for entry in self._take(piece)]
        except Broken as broken:
            raise self._break(broken.fault) from None
        return self._go(leaving)

    def end(self) -> list[Body]:
        """The last chunks, after the whole answer was checked. Raises Broken."""
        if self._broken is not None:
            raise self._broken
        if not self._lanes:
            raise self._break(Fault("empty", "choices", "the answer ended without a single choice"))
        for lane in self._lanes.values():
            if fault := self._whole(lane.draft):
                raise self._break(fault)
        waiting = [entry for lane in self._lanes.values() for entry in self._last(lane)]
        left = self._go(sorted(waiting, key=lambda one: one.order))
        self._plain = None
        return [*left, *self._tail]

    def _break(self, fault: Fault) -> Broken:
        self._plain, self._broken = None, Broken(fault, self.released)
        return self._broken

    def _whole(self, draft: Draft) -> Fault | None:
        if draft.finish is None:
            return unfinished(draft).fault
        message = draft.message()
        return self._contract.check(message, draft.finish) or judge(self._validators, message, self._context)

    def _take(self, piece: Piece) -> list[Entry]:
        if piece.draft is None:
            return self._stray(piece.chunk)
        lane = self._lanes.get(piece.draft.index) or self._lanes.setdefault(piece.draft.index, Lane(piece.draft))
        self._orders += 1
        entry = Entry(self._orders, piece.chunk, sum(map(len, piece.texts.values())))
        lane.says = lane.says or piece.says
        for key, text in piece.texts.items():
            self._read(lane, entry, key, key, text)
        for call in piece.calls:
            entry.chars += len(call["function"]["arguments"])
            self._call(lane, entry, call)
        self._take_room(entry.chars)
        if piece.finish is not None:
            lane.final = min(lane.final, entry.order)
        lane.queue.append(entry)
        lane.chars += entry.chars
        return self._leaving(lane)

    def _take_room(self, chars: int) -> None:
        """A chunk takes room by itself, too: a server that sends empty ones without end is stopped as well."""
        self._room -= chars + CHUNK
        if self._room < 0:
            raise Broken(Fault("malformed", "choices", "is longer than any answer may be"))

    def _stray(self, chunk: Body) -> list[Entry]:
        """A chunk of no choice: usage behind the end, or what a server puts in front."""
        self._take_room(0)
        if any(lane.draft.finish is not None for lane in self._lanes.values()):
            self._tail.append(chunk)
        elif self.released or self.policy == "passthrough":
            self._orders += 1
            return [Entry(self._orders, chunk, 0)]
        else:
            self._loose.append(chunk)
        return []

    def _read(self, lane: Lane, entry: Entry, key: str, where: str, text: str) -> None:
        """Hold a piece of one of the answer's texts against what may come of it."""
        held = lane.texts.get(where)
        if held is None:
            held = lane.texts[where] = self._text(where, self._contract.prefix() if key == "content" else None)
        if fault := held.feed(text):
            raise Broken(fault)
        self._close(lane, entry, held, text)

    def _call(self, lane: Lane, entry: Entry, call: Body) -> None:
        """The same for a piece of a tool call's arguments; a call that begins lets the texts before it go."""
        at, text = call["index"], call["function"]["arguments"]
        where = f"tool_calls[{at}].function.arguments"
        begun = lane.draft.calls[at]
        if where not in lane.texts:
            self._before(lane, at)
            lane.cut = len(lane.draft.text()) if lane.cut is None else lane.cut
            if self._hold is not None:
                lane.final = min(lane.final, entry.order)
            lane.texts[where] = self._text(where, self._contract.prefix(begun.name))
        if text and (fault := lane.texts[where].feed(text)):
            raise Broken(fault)
        self._close(lane, entry, lane.texts[where], text)

    def _text(self, where: str, prefix: Prefix | Fault | None) -> Text:
        if isinstance(prefix, Fault):
            raise Broken(prefix)
        live = self.policy != "buffer"
        watches = [one.watch(where, self._context) for one in self._validators if live and one.reach is not None]
        return Text(where, prefix if live else None, watches)

    def _close(self, lane: Lane, entry: Entry, held: Text, text: str) -> None:
        """What may complete a structured text waits; a later piece of the same text that is no blank lets it go."""
        if held.prefix is None or not text or text.isspace():
            return
        if held.closes(text):
            lane.closing[held.where] = entry.order
        else:
            lane.closing.pop(held.where, None)

    def _before(self, lane: Lane, at: int) -> None:
        """Call ``at`` begins: what was whole before it leaves if that much of the answer keeps the contract."""
        if lane.closing:
            message = lane.draft.message()
            message["tool_calls"] = message["tool_calls"][:at]
            if self._contract.check(message, "tool_calls" if at else "stop"):
                lane.final = min(lane.final, *lane.closing.values())  # it may still go on: the end will say
            lane.closing.clear()

    def _leaving(self, lane: Lane) -> list[Entry]:
        """What of a lane may leave now, taken off its queue."""
        leaving: list[Entry] = []
        if self.policy == "buffer" or (self.policy != "passthrough" and not lane.says):
            return leaving
        limit, windowed = lane.limit(), self.policy == "window"
        while lane.queue and (entry := lane.queue[0]).order < limit:
            if windowed and (len(lane.queue) <= self._window or lane.chars - entry.chars < self._reach):
                break
            leaving.append(lane.queue.popleft())
            lane.chars -= entry.chars
        return leaving

    def _go(self, leaving: list[Entry]) -> list[Body]:
        self._plain = self._quick()
        if not leaving:
            return []
        self.released = True
        loose, self._loose = self._loose, []
        return [*loose, *(entry.chunk for entry in leaving)]

    def _quick(self) -> list[str] | None:
        """The pieces of the content where a further piece of it can go the short way: one choice, nothing waits."""
        if self.policy not in ("passthrough", "holdback") or len(self._lanes) != 1 or 0 not in self._lanes:
            return None
        lane = self._lanes[0]
        text = lane.texts.get("content")
        if text is None:
            return None
        self._held = text if text.prefix is not None or text.watches else None
        return None if lane.queue or lane.final != NEVER or lane.draft.finish else lane.draft.texts["content"]

    def _last(self, lane: Lane) -> list[Entry]:
        """What waits of a choice that is whole and good, or what leaves instead of its tool calls."""
        waiting = list(lane.queue)
        lane.queue.clear()
        instead = self._hold(lane.draft.message()) if self._hold and lane.draft.calls else None
        if instead is None:
            return waiting
        kept = [entry for entry in waiting if entry.order < lane.final]
        delta = {key: value for key, value in instead.items() if key != "role"}
        delta["content"] = (instead.get("content") or "")[lane.cut or 0 :]
        calls = [call | {"index": at} for at, call in enumerate(instead.get("tool_calls") or ())]
        delta |= {"tool_calls": calls} if calls else {}
        head = self.assembly.head | {"object": "chat.completion.chunk"}
        ends: tuple[tuple[Body, str | None], ...] = ((delta, None), ({}, "tool_calls" if calls else "stop"))
        for order, (said, finish) in enumerate(ends, lane.final):
            choice = {"index": lane.draft.index, "delta": said, "finish_reason": finish}
            kept.append(Entry(order, head | {"choices": [choice]}, 0))
        return kept


def _only_content(chunk: Body, strict: bool) -> str | None:
    """The text of a chunk that brings choice 0 a piece of content and nothing else; None: it takes a closer look."""
    try:
        (choice,) = chunk["choices"]
        delta = choice["delta"]
        text = delta["content"]
        index = choice["index"]
        if (
            text.__class__ is str
            and index == 0
            and index.__class__ is int
            and not choice.get("finish_reason")
            and not choice.get("logprobs")
            and "error" not in chunk
            and "message" not in choice
            and (not strict or (choice.keys() <= CHOICE and delta.keys() <= QUIET))
            and (len(delta) == 1 or not any(map(delta.get, BESIDES)))
        ):
            return text
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    return None


def least(validators: Sequence[Validator]) -> Policy:
    """The weakest policy under which every one of them can still refuse what it found."""
    if any(one.reach is None for one in validators):
        return "buffer"
    return "window" if any(one.reach for one in validators) else "passthrough"


def usable(
    policy: str,
    *,
    window: int = 16,
    validators: Sequence[Validator] = (),
    confirm: bool = False,
    where: str = "stream",
) -> None:
    """Refuse, at start, a route whose streams would leave before a guard has judged them. Raises UsageError."""
    if policy not in (*PIECES, "buffer"):
        raise UsageError(f"{where}: unknown policy '{policy}'; expected passthrough, holdback, window or buffer")
    whole = list(dict.fromkeys(one.name for one in validators if one.reach is None))
    if whole and policy != "buffer":
        raise UsageError(
            f"{where}: '{policy}' lets pieces leave before {_names(whole)} can judge the whole answer; choose buffer"
        )
    late = list(dict.fromkeys(one.name for one in validators if one.reach))
    if late and policy in ("passthrough", "holdback"):
        raise UsageError(
            f"{where}: with '{policy}' the beginning of what {_names(late)} refuses has left before it is found; "
            "choose window or buffer"
        )
    if confirm and policy == "passthrough":
        raise UsageError(
            f"{where}: 'passthrough' lets a tool call leave before a person has approved it; choose holdback, window "
            "or buffer"
        )
    if policy == "window" and window < 1:
        raise UsageError(f"{where}: a window of {window} tokens holds nothing back; give 1 or more, or another policy")


def _names(names: Sequence[str]) -> str:
    return " and ".join(f"'{one}'" for one in names)
