"""The three routes as forms of one: responses and completions are chat, converted on the way in and on the way out."""

from __future__ import annotations

from quantgate.serve import Body, Request, Route, completions, responses, wire
from quantgate.serve.refusals import Refused, of
from quantgate.serve.relay import Chat, Form


def original_of(route: Route, body: Body) -> tuple[Body | None, Body]:
    """The body as it came, where it is not chat, and the chat body. Raises Refused."""
    match route:
        case "chat":
            return None, body
        case "responses":
            return body, responses.to_chat(body)
        case "completions":
            return body, completions.to_chat(body)


def renamed(route: Route, error: Exception) -> Exception:
    """An error about a key of the chat, as one about the key that the client wrote."""
    refused = of(error) if route != "chat" else None
    if refused is None or refused.param is None:
        return error
    refused.param = (responses if route == "responses" else completions).named(refused.param)
    return refused


def whole_form(request: Request, body: Body, raw: bytes | None) -> bytes:
    """A whole answer as its route writes it: the upstream's own bytes, where nothing changed."""
    if request.original is None:
        return raw if raw is not None else wire.dumps(body)
    room = responses if request.route == "responses" else completions
    return wire.dumps(room.from_chat(body, request.original))


def stream_form(request: Request) -> Form:
    return Chat(request.body) if request.original is None else Converted(request, request.original)


class Converted:
    """A stream of another route, by its converter."""

    def __init__(self, request: Request, original: Body) -> None:
        self._stream: responses.Stream | completions.Stream
        self._stream = (responses if request.route == "responses" else completions).Stream(original)

    def chunk(self, body: Body, raw: bytes | None) -> bytes:
        return self._stream.feed(body)

    def end(self) -> bytes:
        return self._stream.end()

    def error(self, refused: Refused) -> bytes:
        return self._stream.error(refused.body()["error"])
