"""Chunks of a chat -> the events of a streamed response, numbered, in the order that OpenAI sends them.

response.created, .in_progress
of every item:      response.output_item.added ... .output_item.done
of a message:       .content_part.added, .output_text.delta ..., .output_text.done, .content_part.done
of a refusal:       the same, with .refusal.delta and .refusal.done
of a call:          .function_call_arguments.delta ..., .function_call_arguments.done
response.completed | .incomplete;   error and response.failed where it broke off
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from quantgate.serve import Body
from quantgate.serve._responses_object import (
    INCOMPLETE,
    call_item,
    close,
    message_item,
    own_id,
    refusal_part,
    response,
    rows,
    text_part,
)

CODES = ("rate_limit_exceeded", "invalid_prompt")  # of a failed response, besides server_error


class Stream:
    """One streamed response. ``body`` is the request as it came."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self._head: Body | None = None  # of the chat; None: nothing was said
        self._number = 0
        self._items = list[_Item]()
        self._message: _Message | None = None  # the one that is open
        self._calls = dict[int, _Call]()  # open ones, by their index in the chat
        self._finish: str | None = None
        self._usage: Any = None
        self._out = list[bytes]()

    def feed(self, chunk: Mapping[str, Any]) -> bytes:
        """The events that a chunk amounts to; often none."""
        if self._head is None:
            self._begin(chunk)
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices") or ():
            if choice.get("index", 0) == 0:
                self._delta(choice.get("delta") or {}, rows(choice.get("logprobs")))
                self._finish = choice.get("finish_reason") or self._finish
        return self._flush()

    def end(self) -> bytes:
        """The last events: the answer is whole, or was cut by its length or a filter."""
        if self._head is None:
            self._begin({})
        if not self._items:
            self._say("text", "", [])
        status = "incomplete" if self._finish in INCOMPLETE else "completed"
        self._close(status)
        made = close(self._response("in_progress"), self._finish, self._usage)
        self._event(f"response.{made['status']}", response=made)
        return self._flush()

    def error(self, error: Mapping[str, Any]) -> bytes:
        """The last events of an answer that broke off; ``error`` is OpenAI's error object."""
        if self._head is None:
            self._begin({})
        said = str(error.get("message") or "the answer broke off")
        code, param = error.get("code"), error.get("param")
        self._event("error", code=code, message=said, param=param)
        made = self._response("failed")
        made["error"] = {"code": code if code in CODES else "server_error", "message": said}
        self._event("response.failed", response=made)
        return self._flush()

    def _begin(self, chunk: Mapping[str, Any]) -> None:
        self._head = {key: chunk[key] for key in ("id", "created", "model") if chunk.get(key) is not None}
        self._event("response.created", response=self._response("in_progress"))
        self._event("response.in_progress", response=self._response("in_progress"))

    def _delta(self, delta: Mapping[str, Any], logprobs: list[Body]) -> None:
        if delta.get("content"):
            self._say("text", delta["content"], logprobs)
        if delta.get("refusal"):
            self._say("refusal", delta["refusal"], [])
        for piece in delta.get("tool_calls") or ():
            self._call(piece)

    def _say(self, kind: str, text: str, logprobs: list[Body]) -> None:
        if self._message is None:
            self._message = _Message(self, len(self._items))
        self._message.say(kind, text, logprobs)

    def _call(self, piece: Mapping[str, Any]) -> None:
        if self._message is not None:
            self._message.close("completed")
            self._message = None
        index = int(piece.get("index") or 0)
        if index not in self._calls:
            self._calls[index] = _Call(self, len(self._items), piece)
        arguments = (piece.get("function") or {}).get("arguments")
        if arguments:
            self._calls[index].add(arguments)

    def _close(self, status: str) -> None:
        """End what is open, in the order in which it began."""
        for item in self._items:
            if not item.closed:
                item.close(status)

    def _response(self, status: str) -> Body:
        return response(self._head or {}, self.body, status, [item.body for item in self._items if item.closed])

    def _event(self, kind: str, **more: Any) -> None:
        data = orjson.dumps({"type": kind, "sequence_number": self._number, **more})
        self._number += 1
        self._out.append(b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n")

    def _flush(self) -> bytes:
        found, self._out = b"".join(self._out), []
        return found


class _Item:
    """One item of the output, from its first event to its last."""

    def __init__(self, stream: Stream, index: int, body: Body) -> None:
        self.index, self.body, self.closed = index, body, False
        self._send = stream._event
        stream._items.append(self)
        self._send("response.output_item.added", output_index=index, item=body)

    def close(self, status: str) -> None:
        self.body["status"], self.closed = status, True
        self._send("response.output_item.done", output_index=self.index, item=self.body)


class _Message(_Item):
    """Text, a refusal, or one after the other."""

    def __init__(self, stream: Stream, index: int) -> None:
        super().__init__(stream, index, message_item(own_id("msg", stream._head or {}, index), [], "in_progress"))
        self._kind = ""  # of the open part
        self._texts = list[str]()
        self._logprobs = list[Body]()

    def say(self, kind: str, text: str, logprobs: list[Body]) -> None:
        if kind != self._kind:
            self._end_part()
            self._kind = kind
            part = text_part("") if kind == "text" else refusal_part("")
            self.body["content"].append(part)
            self._send("response.content_part.added", **self._at(), part=part)
        self._texts.append(text)
        self._logprobs += logprobs
        if text:
            more = {"logprobs": logprobs} if kind == "text" else {}
            self._send(f"{self._name()}.delta", **self._at(), delta=text, **more)

    def close(self, status: str) -> None:
        self._end_part()
        super().close(status)

    def _end_part(self) -> None:
        if not self._kind:
            return
        text, logprobs = "".join(self._texts), self._logprobs
        self._texts, self._logprobs = [], []
        part = text_part(text, logprobs) if self._kind == "text" else refusal_part(text)
        self.body["content"][-1] = part
        more = {"text": text, "logprobs": logprobs} if self._kind == "text" else {"refusal": text}
        self._send(f"{self._name()}.done", **self._at(), **more)
        self._send("response.content_part.done", **self._at(), part=part)
        self._kind = ""

    def _name(self) -> str:
        return "response.output_text" if self._kind == "text" else "response.refusal"

    def _at(self) -> Body:
        return {"item_id": self.body["id"], "output_index": self.index, "content_index": len(self.body["content"]) - 1}


class _Call(_Item):
    """A function call, and its arguments as far as they have come."""

    def __init__(self, stream: Stream, index: int, piece: Mapping[str, Any]) -> None:
        whole = {**piece, "function": {**(piece.get("function") or {}), "arguments": ""}}
        super().__init__(stream, index, call_item(own_id("fc", stream._head or {}, index), whole, "in_progress"))
        self._texts = list[str]()

    def add(self, arguments: str) -> None:
        self._texts.append(arguments)
        self._send("response.function_call_arguments.delta", **self._at(), delta=arguments)

    def close(self, status: str) -> None:
        self.body["arguments"] = "".join(self._texts)
        self._send("response.function_call_arguments.done", **self._at(), name=self.body["name"],
                   arguments=self.body["arguments"])  # fmt: skip
        super().close(status)

    def _at(self) -> Body:
        return {"item_id": self.body["id"], "output_index": self.index}
