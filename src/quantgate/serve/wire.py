"""What crosses HTTP: bodies in; answers, error objects and server-sent events out.

The form of events is WHATWG's "Server-sent events" (HTML Living Standard, 9.2.6) as OpenAI writes it: ``data: {json}``,
an empty line, ``data: [DONE]`` at the end. A line that begins with a colon is a comment, which every client skips.
"""

from __future__ import annotations

from asyncio import timeout
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, cast

import orjson

from quantgate.serve import Body
from quantgate.serve.refusals import Refused, bad
from quantgate.serve.settings import Headers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = (b"content-type", b"application/json")
STREAM: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
DONE = b"data: [DONE]\n\n"
BRACKETS = 2**17  # of a body: eight megabytes of them would take the gateway seconds to walk through
BODY_S = 60.0  # for a body to come
PING = b": keep-alive\n\n"


class Gone(Exception):
    """The client left before its body had come whole: nobody is there to answer."""


def headers_of(scope: Scope) -> dict[str, str]:
    """Lower case; of a header that comes twice, the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def read_body(headers: Mapping[str, str], receive: Receive, limit: int, within_s: float | None = BODY_S) -> bytes:
    """The whole body. Raises Refused 413 beyond ``limit`` bytes, at the announcement if there is one, 408 where it has
    not come ``within_s``; Gone."""
    told = headers.get("content-length", "")
    if told.isdecimal() and told.isascii() and int(told[:20]) > limit:
        raise _too_large(limit)
    try:
        async with timeout(within_s):
            return await _read(receive, limit)
    except TimeoutError:
        raise Refused(
            408, "request_timeout", f"the body did not come within {within_s:g} s", headers=((b"connection", b"close"),)
        ) from None


async def _read(receive: Receive, limit: int) -> bytes:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Gone
    body = cast(bytes, message.get("body", b""))
    if not message.get("more_body"):
        if len(body) > limit:
            raise _too_large(limit)
        return body
    return await _rest(receive, [body], limit)


async def _rest(receive: Receive, parts: list[bytes], limit: int) -> bytes:
    size, more = len(parts[0]), True
    while more:
        if size > limit:
            raise _too_large(limit)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = bool(message.get("more_body"))
    if size > limit:
        raise _too_large(limit)
    return b"".join(parts)


def _too_large(limit: int) -> Refused:
    return Refused(
        413,
        "request_too_large",
        f"the body is larger than the {limit:,} bytes that this gateway takes",
        headers=((b"connection", b"close"),),
    )


def parse(raw: bytes, headers: Mapping[str, str], depth: int) -> Body:
    """The JSON object of a request. Raises Refused: 415 for another type of content, 400 for what is no such object."""
    kind = headers.get("content-type", "")
    if kind != "application/json" and kind.partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "unsupported_media_type", f"content-type: expected application/json, found '{kind[:80]}'")
    if headers.get("content-encoding", "identity") != "identity":
        raise Refused(415, "unsupported_media_type", "content-encoding: this gateway takes bodies as they are only")
    brackets = raw.count(b"{") + raw.count(b"[")
    if brackets > BRACKETS and _brackets(raw) > BRACKETS:
        raise bad(None, f"the body holds more than {BRACKETS:,} objects and lists", "too_many_values")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise bad(None, f"the body is not JSON: {error}", "invalid_json") from None
    if not isinstance(body, dict):
        raise bad(None, "the body is JSON, but not an object", "invalid_json")
    if brackets > depth and _deeper(body, depth):
        raise bad(None, f"the body nests deeper than {depth} levels", "too_deep")
    return body


def _brackets(raw: bytes) -> int:
    """Brackets that open, outside of texts.

    >>> _brackets(rb'{"a[": [1, "\\"[", "b\\\\"], "c": []}')
    3
    """
    outside = raw.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2]
    return sum(part.count(b"{") + part.count(b"[") for part in outside)


def _deeper(body: Any, limit: int) -> bool:
    level: list[Any] = [body]
    for _ in range(limit):
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def dumps(value: Any) -> bytes:
    return orjson.dumps(value)


def event(value: Any) -> bytes:
    """One server-sent event.

    >>> event({"a": 1})
    b'data: {"a":1}\\n\\n'
    """
    return b"data: " + orjson.dumps(value) + b"\n\n"


def comment(text: str) -> bytes:
    return b": " + text.encode() + b"\n\n"


async def respond(send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = (JSON,)) -> None:
    """A whole answer."""
    fields = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, refused: Refused, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """OpenAI's error object, with what says whether to ask again."""
    await respond(send, refused.status, dumps(refused.body()), [JSON, *headers, *refused.headers()])


def retries(headers: Mapping[str, str]) -> int:
    told = headers.get("x-stainless-retry-count", "")
    return int(told) if told.isascii() and told.isdecimal() and len(told) < 4 else 0


def deadline(headers: Mapping[str, str], started: float, timeout_s: float | None) -> float | None:
    """The nearer of the gateway's own limit and the time that an official client says it will wait."""
    told = headers.get("x-stainless-read-timeout")
    if told is not None:
        with suppress(ValueError):
            seconds = float(told)
            if 0 < seconds < (timeout_s or float("inf")):
                timeout_s = seconds
    return None if timeout_s is None else started + timeout_s
