"""The three routes as forms of one: responses and completions are chat, converted on the way in and on the way out."""

from __future__ import annotations

from quantgate.serve import Body, Request, Route, wire
from quantgate.serve.refusals import Refused
from quantgate.serve.relay import Chat, Form


def original_of(route: Route, body: Body) -> tuple[Body | None, Body]:
    """The body as it came, where it is not chat, and the chat body. Raises Refused."""
    if route == "chat":
        return None, body
    if route == "responses":
        from quantgate.serve import responses

        return body, responses.to_chat(body)
    from quantgate.serve import completions

    return body, completions.to_chat(body)


def whole_form(request: Request, body: Body, raw: bytes | None) -> bytes:
    """A whole answer as its route writes it: the upstream's own bytes, where nothing changed."""
    if request.original is None:
        return raw if raw is not None else wire.dumps(body)
    if request.route == "responses":
        from quantgate.serve import responses

        return wire.dumps(responses.from_chat(body, request.original))
    from quantgate.serve import completions

    return wire.dumps(completions.from_chat(body, request.original))


def stream_form(request: Request) -> Form:
    if request.original is None:
        return Chat(request.body)
    return Converted(request)


class Converted:
    """A stream of another route, by its converter."""

    def __init__(self, request: Request) -> None:
        from quantgate.serve import completions, responses

        room = responses if request.route == "responses" else completions
        self._stream = room.Stream(request.original)

    def chunk(self, body: Body, raw: bytes | None) -> bytes:
        return self._stream.feed(body)

    def end(self) -> bytes:
        return self._stream.end()

    def error(self, refused: Refused) -> bytes:
        return self._stream.error(refused.body()["error"])
