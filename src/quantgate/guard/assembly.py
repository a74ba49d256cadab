"""Chunks of a chat completion -> whole messages, and back: what is assembled is normalised on the way.

What servers get wrong in tool calls, and what comes out here: each call has one index, counted from 0 in the order of
appearance; id, type and name stand in its first piece alone. Missing indexes, indexes that start again with every
call, ids and names that are repeated (or new with every piece), missing ids, arguments that are objects instead of
text: all of these are put right. What no rule can put right is ``Broken``.

A chunk in which nothing is amiss comes out as the object that came in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quantgate.errors import InvalidAnswer
from quantgate.guard import Fault
from quantgate.guard.known import CHOICE, known, logprobs_of

Body = dict[str, Any]
TEXTS = ("content", "refusal", "reasoning_content", "reasoning")  # keys of a delta that hold text
CALLS = 128  # of one choice
CHOICES = 128  # of one answer
HEAD = ("id", "created", "model", "system_fingerprint", "service_tier")


class Broken(InvalidAnswer):
    """An answer in pieces that may not go on. ``released``: whether some of it has left already."""

    def __init__(self, fault: Fault, released: bool = False) -> None:
        super().__init__(f"{fault.where}: {fault.sentence}")
        self.fault, self.released = fault, released


@dataclass(slots=True)
class Call:
    """One tool call as far as it has come."""

    id: str
    name: str
    parts: list[str] = field(default_factory=list)  # of its arguments

    def body(self) -> Body:
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": "".join(self.parts)}}


@dataclass(slots=True)
class Draft:
    """One choice as far as it has come."""

    index: int
    texts: dict[str, list[str]] = field(default_factory=dict)  # of TEXTS: their pieces
    calls: list[Call] = field(default_factory=list)
    finish: str | None = None
    logprobs: dict[str, list[Any]] = field(default_factory=dict)
    _places: dict[int, int] = field(default_factory=dict)  # the upstream's index of a call -> ours

    def text(self, key: str = "content") -> str:
        return "".join(self.texts.get(key, ()))

    def message(self) -> Body:
        """As a chat completion would hold it; ``content`` is None where no piece of it came."""
        message: Body = {"role": "assistant", "content": None}
        message |= {key: "".join(parts) for key, parts in self.texts.items()}
        if self.calls:
            message["tool_calls"] = [call.body() for call in self.calls]
        return message

    def take_calls(self, pieces: Any) -> list[Body]:
        """Pieces of tool calls, normalised. Raises Broken."""
        if not isinstance(pieces, list) or not all(isinstance(one, dict) for one in pieces):
            raise malformed("tool_calls", "is not a list of tool calls")
        return [self._take(one) for one in pieces]

    def _take(self, piece: Body) -> Body:
        told, given = piece.get("index"), piece.get("id") or ""
        function = piece.get("function") or {}
        if not isinstance(function, dict) or not isinstance(given, str):
            raise malformed("tool_calls", "a piece of a tool call is none: expected id and function")
        if told is not None and (not isinstance(told, int) or told < 0):
            raise malformed("tool_calls", "a tool call's index is no number from 0 on")
        name, arguments = function.get("name") or "", _text(function.get("arguments"))
        at = self._place(told, given, name, arguments)
        if at is None:
            return self._begin(told, given, name, arguments)
        self.calls[at].parts.append(arguments)
        if told == at and not given and not name and isinstance(function.get("arguments"), str) and "type" not in piece:
            return piece
        return {"index": at, "function": {"arguments": arguments}}

    def _place(self, told: int | None, given: str, name: str, arguments: str) -> int | None:
        """Which call a piece goes on with; None: it begins one."""
        if told is None:
            at = next((at for at, call in enumerate(self.calls) if given and call.id == given), None)
            if at is not None or given or name:
                return at
            return len(self.calls) - 1 if self.calls else None
        at = self._places.get(told)
        if at is None or not name or given == self.calls[at].id:
            return at
        begun = "".join(self.calls[at].parts)  # a name where one was given before: an index used again, or repeated
        if given and (not begun or _whole(begun)):
            return None
        if name == self.calls[at].name and not (_whole(begun) and _whole(arguments)):
            return at
        return None

    def _begin(self, told: int | None, given: str, name: str, arguments: str) -> Body:
        at = len(self.calls)
        if at == CALLS:
            raise malformed("tool_calls", f"more than {CALLS} tools are called at once")
        if not isinstance(name, str) or not name:
            raise malformed(f"tool_calls[{at}]", "a tool call begins without the name of its function")
        call = Call(given or f"call_{self.index}_{at}", name, [arguments])
        self.calls.append(call)
        self._places[at if told is None else told] = at
        return {"index": at, "id": call.id, "type": "function", "function": {"name": name, "arguments": arguments}}


@dataclass(slots=True)
class Piece:
    """One chunk, normalised, of one choice at most, and what it adds."""

    draft: Draft | None  # None: of no choice (usage, a keep-alive)
    chunk: Body
    texts: Mapping[str, str]  # of TEXTS, what it adds; none of them empty
    calls: Sequence[Body] = ()  # of tool calls, normalised
    finish: str | None = None

    @property
    def says(self) -> bool:
        """Whether a client would see anything of it."""
        return bool(self.texts or self.calls)


class Assembly:
    """One answer in pieces."""

    def __init__(self, *, choices: int = CHOICES, strict: bool = False, tokens: bool = True) -> None:
        """``choices``: as many as were asked for; ``strict``: without keys that no guard looks into; ``tokens``: with
        log probabilities, which tell the words that they are of."""
        self._most, self._strict, self._tokens = choices, strict, tokens
        self.drafts: dict[int, Draft] = {}
        self.usage: Body | None = None
        self.head: Body = {}

    def add(self, chunk: Body) -> list[Piece]:
        """The pieces of a chunk, one per choice; one without a draft where it has none. Raises Broken."""
        if not isinstance(chunk, dict) or chunk.get("error"):
            raise malformed("choices", "a chunk is no piece of an answer, or reports an error")
        if not self.head:
            self.head = {key: chunk[key] for key in HEAD if chunk.get(key) is not None}
        if isinstance(chunk.get("usage"), dict):
            self.usage = chunk["usage"]
        choices = chunk.get("choices")
        if not choices and (choices is None or isinstance(choices, list)):
            return [Piece(None, chunk if choices is not None else chunk | {"choices": []}, {})]
        if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
            raise malformed("choices", "is not a list of choices")
        return [self._piece(chunk, choice, alone=len(choices) == 1) for choice in choices]

    def _piece(self, chunk: Body, choice: Body, *, alone: bool) -> Piece:
        index = choice.get("index")
        if index is not None and (not isinstance(index, int) or isinstance(index, bool) or index < 0):
            raise malformed("choices", "a choice's index is no number from 0 on")
        if (index or 0) >= self._most:
            raise malformed("choices", f"there are more choices than the {self._most} that were asked for")
        given, choice = choice, self._bare(choice)
        draft = self.drafts.get(index or 0) or self.drafts.setdefault(index or 0, Draft(index or 0))
        delta = choice.get("delta")
        if delta is None:
            delta = {}
        if not isinstance(delta, dict) or "message" in choice or delta.get("function_call"):
            raise malformed("choices", "a piece holds something other than a delta of content and tool calls")
        texts = dict(_texts(delta))
        calls: list[Body] = draft.take_calls(delta["tool_calls"]) if delta.get("tool_calls") else []
        finish = choice.get("finish_reason") or None
        if finish is not None and not isinstance(finish, str):
            raise malformed("finish_reason", "is no text")
        if draft.finish is not None and (finish or texts or calls):
            raise malformed("finish_reason", "something follows behind the end of the answer")
        for key, text in texts.items():
            draft.texts.setdefault(key, []).append(text)
        _join(draft.logprobs, choice.get("logprobs"))
        draft.finish = finish or draft.finish
        same = alone and index is not None and calls == (delta.get("tool_calls") or []) and given.get("delta") is delta
        if not same or choice is not given:
            chunk = chunk | {"choices": [choice | {"index": draft.index, "delta": _with(delta, calls)}]}
        return Piece(draft, chunk, texts, calls, finish)

    def _bare(self, choice: Body) -> Body:
        """A choice without what may not leave with it; the same object where there is nothing such."""
        if self._strict:
            choice = known(choice, CHOICE)
            delta = choice.get("delta")
            if isinstance(delta, dict) and (bare := known(delta)) is not delta:
                choice = choice | {"delta": bare}
        told = choice.get("logprobs")
        if told is not None and (not self._tokens or logprobs_of(told) is None):
            choice = choice | {"logprobs": None}
        return choice

    def completion(self) -> Body:
        """The whole answer as one chat completion. Raises Broken where it is not whole."""
        if not self.drafts:
            raise Broken(Fault("empty", "choices", "the answer ended without a single choice"))
        for draft in self.drafts.values():
            if draft.finish is None:
                raise unfinished(draft)
        choices = [
            {
                "index": draft.index,
                "message": draft.message(),
                "logprobs": draft.logprobs or None,
                "finish_reason": draft.finish,
            }
            for draft in sorted(self.drafts.values(), key=lambda one: one.index)
        ]
        whole = {**self.head, "object": "chat.completion", "choices": choices}
        return whole | ({"usage": self.usage} if self.usage else {})


def replay(completion: Mapping[str, Any]) -> Iterator[Body]:
    """A whole chat completion as the chunks of a stream: role, texts, calls, end of each choice; the usage last."""
    head = {key: completion[key] for key in HEAD if completion.get(key) is not None}
    head["object"] = "chat.completion.chunk"

    def chunk(choice: Mapping[str, Any], delta: Body, finish: str | None = None, **more: Any) -> Body:
        return head | {"choices": [{"index": choice["index"], "delta": delta, **more, "finish_reason": finish}]}

    for choice in completion["choices"]:
        message = choice["message"]
        more = {"logprobs": choice["logprobs"]} if choice.get("logprobs") else {}
        said = {key: value for key, value in message.items() if key not in ("role", "tool_calls") and value is not None}
        yield chunk(choice, {"role": "assistant", "content": ""})
        if said:
            yield chunk(choice, said, **more)
        for at, call in enumerate(message.get("tool_calls") or ()):
            function = call["function"]
            begun = {"index": at, "id": call["id"], "type": "function"}
            yield chunk(choice, {"tool_calls": [begun | {"function": {"name": function["name"], "arguments": ""}}]})
            yield chunk(choice, {"tool_calls": [{"index": at, "function": {"arguments": function["arguments"]}}]})
        yield chunk(choice, {}, choice["finish_reason"])
    if completion.get("usage"):
        yield head | {"choices": [], "usage": completion["usage"]}


def malformed(where: str, sentence: str) -> Broken:
    return Broken(Fault("malformed", where, sentence))


def unfinished(draft: Draft) -> Broken:
    return malformed("finish_reason", f"choice {draft.index} ended without saying why")


def _texts(delta: Body) -> Iterator[tuple[str, str]]:
    for key in TEXTS:
        text = delta.get(key)
        if text is not None and not isinstance(text, str):
            raise malformed(key, "is no text")
        if text:
            yield key, text


def _text(arguments: Any) -> str:
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _whole(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _with(delta: Body, calls: list[Body]) -> Body:
    return delta | {"tool_calls": calls} if calls else delta


def _join(held: dict[str, list[Any]], more: Any) -> None:
    for key, values in more.items() if isinstance(more, dict) else ():
        if isinstance(values, list):
            held.setdefault(key, []).extend(values)
