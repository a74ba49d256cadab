"""The events of a stream, out of bytes however they were cut. Nothing here waits."""

from __future__ import annotations

import orjson

from quantgate.serve import Chunk, UpstreamFault

LONGEST = 4 * 2**20  # bytes that one event may have


class Events:
    """``feed`` bytes, get whole chunks; ``done`` after ``data: [DONE]``.

    Borne where the meaning is plain: a missing space, CRLF, comments, ``event:`` names, data over several lines.

    >>> events = Events()
    >>> [chunk.body for chunk in events.feed(b': ping\\n\\ndata: {"a":\\ndata: 1}\\n\\ndata: [DO')]
    [{'a': 1}]
    >>> events.feed(b'NE]\\n\\n'), events.done
    ([], True)
    """

    __slots__ = ("_lines", "_rest", "done")

    def __init__(self) -> None:
        self._rest, self._lines, self.done = b"", list[bytes](), False

    def feed(self, data: bytes) -> list[Chunk]:
        """Raises UpstreamFault: malformed for what is no JSON object, or never ends."""
        lines = (self._rest + data).split(b"\n") if self._rest else data.split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) + (sum(map(len, self._lines)) if self._lines else 0) > LONGEST:
            raise UpstreamFault("malformed", f"one event of the upstream's stream is longer than {LONGEST:,} bytes")
        found = []
        for line in lines:
            if line.endswith(b"\r"):
                line = line[:-1]
            if line.startswith(b"data:"):
                self._lines.append(line)
            elif not line and self._lines:
                chunk = self._event()
                if self.done:
                    break
                found.append(chunk)
        return found

    def _event(self) -> Chunk:
        lines, self._lines = self._lines, []
        raw = lines[0]
        text = raw[5:].lstrip(b" ")
        if len(lines) > 1:
            text = b"\n".join([text, *(line[5:].removeprefix(b" ") for line in lines[1:])])
        if text.startswith(b"[DONE]"):
            self.done = True
            return Chunk(b"", {})
        try:
            body = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise UpstreamFault("malformed", "the upstream's stream holds an event that is not JSON") from None
        if not isinstance(body, dict):
            raise UpstreamFault("malformed", "the upstream's stream holds an event that is not an object")
        return Chunk(raw if len(lines) == 1 else b"data: " + orjson.dumps(body), body)
