"""Server-sent events, and an answer put together from the chunks that they carry. Nothing here waits or sends.

The form is WHATWG's "Server-sent events" (HTML Living Standard, 9.2.6) as OpenAI-compatible servers write it: a line
``data: {json}``, an empty line, and ``data: [DONE]`` at the end. What real servers get wrong is borne where the
meaning is plain: a missing space, CRLF, comments as pings, tool calls without an index, no ``[DONE]`` after a finish.
"""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass, field
from typing import Any

DONE = "[DONE]"
LONGEST = 16 * 2**20  # characters that one event may have
COMMENTS = 16  # that are kept, the last ones: most are pings


class Malformed(ValueError):
    """What came is not what an OpenAI-compatible server sends; the sentence says how."""


class Told(ValueError):
    """The server broke the answer off with an error of its own."""

    def __init__(self, sentence: str, status: int | None) -> None:
        super().__init__(sentence)
        self.status = status


class Events:
    """Bytes in, however they were cut, data of whole events out.

    >>> Events().feed(b': ping\\n\\ndata: {"a":\\ndata: 1}\\n\\ndata: [DO')
    ['{"a":\\n1}']
    """

    def __init__(self) -> None:
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.rest, self.lines = "", list[str]()
        self.comments: list[str] = []

    def feed(self, data: bytes) -> list[str]:
        """The events that these bytes complete. Raises Malformed for one that never ends."""
        self.rest += self.decoder.decode(data)
        if len(self.rest) + sum(map(len, self.lines)) > LONGEST:
            raise Malformed(f"one event of the stream is longer than {LONGEST:,} characters")
        *whole, last = self.rest.split("\n")
        self.rest = last
        return [event for line in whole for event in self._line(line.removesuffix("\r"))]

    def end(self) -> list[str]:
        """What a last event without its empty line holds."""
        return [*self.feed(b"\n"), *self.feed(b"\n")]

    def _line(self, line: str) -> list[str]:
        if not line:
            done, self.lines = self.lines, []
            return ["\n".join(done)] if done else []
        name, _, value = line.partition(":")
        if name == "data":
            self.lines.append(value.removeprefix(" "))
        elif not name:
            self.comments = [*self.comments[1 - COMMENTS :], value.removeprefix(" ")]
        return []


@dataclass
class Reply:
    """One answer of a server, streamed or whole."""

    text: str = ""
    calls: list[dict[str, str]] = field(default_factory=list)  # {"name", "arguments": as the server wrote them}
    refusal: str = ""
    finish: str | None = None
    model: str = ""  # as the server reports it
    usage: dict[str, Any] | None = None
    timings: dict[str, Any] | None = None  # llama.cpp's "timings", or vLLM's "metrics"
    said: bool = False  # whether anything of the answer has come
    over: bool = False  # whether [DONE] has come


class Stream:
    """Chunks into one reply."""

    def __init__(self) -> None:
        self.reply = Reply()
        self.places: list[object] = []  # index or id of each call, in order
        self.pieces = 0  # chunks that brought something of the answer

    def take(self, event: str) -> None:
        """One event. Raises Malformed for what is no chunk, Told for an error in the middle."""
        if event.strip().startswith(DONE):
            self.reply.over = True
            return
        chunk = decoded(event)
        refuse_error(chunk)
        meta(self.reply, chunk)
        choices = chunk.get("choices")
        if choices == [] or (choices is None and "usage" in chunk):
            return  # a filter's report at the beginning, the usage at the end
        choice = _first(choices)
        delta = choice.get("delta") or {}
        if "text" in choice:  # a completion's chunk
            delta = {"content": choice["text"]}
        if not isinstance(delta, dict):
            raise Malformed("a chunk's 'delta' is no object")
        self._add(delta)
        self.reply.finish = _text(choice, "finish_reason") or self.reply.finish

    def _add(self, delta: dict[str, Any]) -> None:
        content, refusal = _text(delta, "content"), _text(delta, "refusal")
        self.reply.text += content
        self.reply.refusal += refusal
        for piece in _calls(delta):
            self._call(piece)
        self.pieces += bool(content or refusal or delta.get("tool_calls"))
        self.reply.said = self.reply.said or bool(content or refusal or self.reply.calls)

    def _call(self, piece: dict[str, Any]) -> None:
        """A piece of a tool call goes to its index, else to its id, else to the call before it."""
        place = piece.get("index")
        if place is None:
            place = piece.get("id") or (self.places[-1] if self.places else 0)
        function = piece.get("function") or {}
        if not isinstance(function, dict):
            raise Malformed("a tool call's 'function' is no object")
        if place not in self.places:
            self.places.append(place)
            self.reply.calls.append({"name": "", "arguments": ""})
        call = self.reply.calls[self.places.index(place)]
        call["name"] += _text(function, "name")
        call["arguments"] += arguments_of(function)

    def end(self) -> Reply:
        """The whole reply. Raises Malformed where the stream ended before the answer did."""
        if self.reply.finish is None:
            raise Malformed("the stream ended before the answer did")
        return self.reply


def whole(body: object) -> Reply:
    """The reply that a body which was not streamed holds. Raises Malformed and Told."""
    if not isinstance(body, dict):
        raise Malformed(f"the answer is a JSON {type(body).__name__}, not an object")
    refuse_error(body)
    reply = Reply(said=True, over=True)
    meta(reply, body)
    choice = _first(body.get("choices"))
    message = {"content": choice["text"]} if "text" in choice else choice.get("message")
    if not isinstance(message, dict):
        raise Malformed("the first choice has no 'message'")
    reply.text, reply.refusal = _text(message, "content"), _text(message, "refusal")
    for call in _calls(message):
        function = call.get("function")
        if not isinstance(function, dict):
            raise Malformed("a tool call has no 'function'")
        reply.calls.append({"name": _text(function, "name"), "arguments": arguments_of(function)})
    reply.finish = _text(choice, "finish_reason") or None
    if reply.finish is None:
        raise Malformed("the first choice has no 'finish_reason'")
    return reply


def decoded(text: str) -> dict[str, Any]:
    """The JSON object that ``text`` is. Raises Malformed, and says so of a web page."""
    if text.lstrip()[:1] == "<":
        raise Malformed("a web page came instead of JSON")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Malformed(f"broken JSON came, which begins {text[:40]!r}" if text.strip() else "nothing came") from None
    if not isinstance(found, dict):
        raise Malformed(f"a JSON {type(found).__name__} came, not an object")
    return found


def refuse_error(body: dict[str, Any]) -> None:
    """Raises Told where a body or a chunk is an error."""
    error = body.get("error")
    if not error:
        return
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and not isinstance(code, bool) else None
    raise Told(error_sentence(body), status)


def error_sentence(body: dict[str, Any]) -> str:
    """The server's own words of an error, on one line: OpenAI's form, FastAPI's ``detail``, or a bare message.

    >>> error_sentence({"error": {"message": "too long", "code": 400}})
    'too long'
    """
    found: Any = body.get("error") or body.get("detail") or body.get("message") or body
    if isinstance(found, list) and found:
        found = found[0]
    if isinstance(found, dict):
        found = found.get("message") or found.get("msg") or json.dumps(found)
    return " ".join(str(found).split())[:400]


def meta(reply: Reply, body: dict[str, Any]) -> None:
    """What stands beside the choices."""
    reply.model = reply.model or (body["model"] if isinstance(body.get("model"), str) else "")
    for name in ("usage", "timings"):
        found = body.get(name) or (body.get("metrics") if name == "timings" else None)
        if isinstance(found, dict):
            setattr(reply, name, found)


def arguments_of(function: dict[str, Any]) -> str:
    """Arguments as text: servers should write JSON in a string, and some write the object itself."""
    found = function.get("arguments")
    if found is None or isinstance(found, str):
        return found or ""
    return json.dumps(found, ensure_ascii=False)


def _first(choices: object) -> dict[str, Any]:
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Malformed("there is no choice in the answer")
    return choices[0]


def _calls(message: dict[str, Any]) -> list[dict[str, Any]]:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(one, dict) for one in calls):
        raise Malformed("'tool_calls' is no list of calls")
    return calls


def _text(found: dict[str, Any], key: str) -> str:
    value = found.get(key)
    if value is None or isinstance(value, str):
        return value or ""
    raise Malformed(f"'{key}' is a JSON {type(value).__name__}, not a text")
