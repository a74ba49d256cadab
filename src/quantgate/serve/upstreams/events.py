"""The events of a stream, out of bytes however they were cut. Nothing here waits."""

from __future__ import annotations

import orjson

from quantgate.serve import Chunk, UpstreamFault

MARK = b"\xef\xbb\xbf"
LONGEST = 4 * 2**20  # bytes that one event may have


class Events:
    """``feed`` bytes, get whole chunks; ``done`` after ``data: [DONE]``, ``fault`` after what is no chunk.

    Borne where the meaning is plain: a missing space, CRLF, comments, ``event:`` names, data over several lines.

    >>> events = Events()
    >>> [chunk.body for chunk in events.feed(b': ping\\n\\ndata: {"a":\\ndata: 1}\\n\\ndata: [DO')]
    [{'a': 1}]
    >>> events.feed(b'NE]\\n\\n'), events.done
    ([], True)
    """

    __slots__ = ("_begun", "_lines", "_rest", "done", "fault")

    def __init__(self) -> None:
        self._rest, self._lines, self.done, self._begun = b"", list[bytes](), False, False
        self.fault: UpstreamFault | None = None

    def feed(self, data: bytes) -> list[Chunk]:
        """The chunks that are whole now. ``fault`` tells what stands behind the last good one and is no chunk."""
        if not self._begun:
            data = self._marked(data)
        lines = (self._rest + data).split(b"\n") if self._rest else data.split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) + (sum(map(len, self._lines)) if self._lines else 0) > LONGEST:
            self.fault = UpstreamFault(
                "malformed", f"an event of the upstream's stream is longer than {LONGEST:,} bytes"
            )
            return []
        found: list[Chunk] = []
        for line in lines:
            if line.endswith(b"\r"):
                line = line[:-1]
            if line.startswith(b"data:"):
                self._lines.append(line)
            elif not line and self._lines:
                chunk = self._event()
                if chunk is None:
                    break
                if found:
                    found[-1].more = True
                found.append(chunk)
        return found

    def _marked(self, data: bytes) -> bytes:
        """The first bytes, without the mark that some servers put before them."""
        data, self._rest = self._rest + data, b""
        self._begun = len(data) >= len(MARK) or not MARK.startswith(data)
        return data.removeprefix(MARK)

    def ended(self) -> bool:
        """No byte follows: whether what came last is ``[DONE]``, whose empty line was left out."""
        lines = [*self._lines, self._rest] if self._rest else self._lines
        self.done = self.done or (len(lines) == 1 and lines[0][:5] == b"data:" and lines[0][5:].strip() == b"[DONE]")
        return self.done

    def _event(self) -> Chunk | None:
        """The chunk of the lines so far; None at the end, and for what is none."""
        lines, self._lines = self._lines, []
        raw = lines[0]
        text = raw[5:].lstrip(b" ")
        if len(lines) > 1:
            text = b"\n".join([text, *(line[5:].removeprefix(b" ") for line in lines[1:])])
        if text.startswith(b"[DONE]"):
            self.done = True
            return None
        try:
            body = orjson.loads(text)
        except orjson.JSONDecodeError:
            body = None
        if isinstance(body, dict):
            one = len(lines) == 1 and b"\r" not in raw  # which JSON takes for a blank, and clients for a line's end
            return Chunk(raw if one else b"data: " + orjson.dumps(body), body)
        self.fault = UpstreamFault("malformed", "the upstream's stream holds an event that is not a JSON object")
        return None
