"""``/v1/completions`` by conversion: the prompt is the one turn of a chat, and its answer is the text.

    chat = to_chat(body)                       # raises Refused
    completion = from_chat(answer, body)
    stream = Stream(body)
    stream.feed(chunk) ... stream.end()        # bytes of server-sent events; or stream.error(error object)

The model's chat template stands around the prompt: models that are served follow instructions, and that is how they
were judged. What a chat cannot do is refused: a prompt of tokens or of several texts, ``echo``, ``suffix``,
``best_of`` above 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from quantgate.serve import Body
from quantgate.serve.refusals import bad

SAME = (
    "model", "stream", "stream_options", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "n", "max_tokens",
    "presence_penalty", "frequency_penalty", "logit_bias", "metadata", "user", "response_format", "prompt_cache_key",
    "safety_identifier", "service_tier",
)  # fmt: skip
OFF: Mapping[str, tuple[Any, ...]] = {"echo": (False,), "suffix": ("",), "best_of": (1,)}  # only these values
MOST_LOGPROBS = 5


def to_chat(body: Body) -> Body:
    """The chat that a completion asks for. Raises Refused, 400, that names the key."""
    for key, value in body.items():
        if value is not None and key not in SAME and key not in OFF and key not in ("prompt", "logprobs"):
            raise bad(key, f"{key}: this gateway does not know it for /v1/completions; leave it out", UNSUPPORTED)
    for key, fine in OFF.items():
        if body.get(key) is not None and body[key] not in fine:
            raise bad(key, f"{key}: a completion is answered by a chat here, which has none; leave it out", UNSUPPORTED)
    chat: Body = {key: body[key] for key in SAME if body.get(key) is not None}
    chat["messages"] = [{"role": "user", "content": _prompt(body.get("prompt"))}]
    top = body.get("logprobs")
    if top is not None and top is not False:
        if not isinstance(top, int) or not 0 <= top <= MOST_LOGPROBS or top is True:
            raise bad("logprobs", f"logprobs: expected a whole number from 0 to {MOST_LOGPROBS}")
        chat["logprobs"], chat["top_logprobs"] = True, top
    return chat


def _prompt(prompt: Any) -> str:
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise bad("prompt", "prompt: expected one text; token ids and several prompts at once are not answered here")
    return prompt


def named(param: str | None) -> str | None:
    """The key of a completion request that a key of its chat was made of.

    >>> named("messages[0].content"), named("stop")
    ('prompt', 'stop')
    """
    return "prompt" if param is not None and param.startswith("messages") else param


def from_chat(completion: Body, body: Body) -> Body:
    """The text completion that a chat completion is."""
    made = _head(completion)
    made["choices"] = [
        _choice(choice, _said(choice.get("message") or {}), 0) for choice in completion.get("choices") or ()
    ]
    if completion.get("usage") is not None:
        made["usage"] = completion["usage"]
    return made


class Stream:
    """One streamed completion. ``body`` is the request as it came."""

    def __init__(self, body: Body) -> None:
        self._wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self._lengths = dict[int, int]()  # characters of each choice that were sent

    def feed(self, chunk: Mapping[str, Any]) -> bytes:
        """The event of a chunk; none where a client of this API would see nothing in it."""
        made, choices = _head(chunk), []
        for choice in chunk.get("choices") or ():
            index, text = choice.get("index", 0), _said(choice.get("delta") or {})
            if text or choice.get("finish_reason") or choice.get("logprobs"):
                choices.append(_choice(choice, text, self._lengths.get(index, 0)))
                self._lengths[index] = self._lengths.get(index, 0) + len(text)
        told = self._wants_usage and chunk.get("usage") is not None
        if not choices and not told:
            return b""
        made["choices"] = choices
        if self._wants_usage:
            made["usage"] = chunk.get("usage")
        return b"data: " + orjson.dumps(made) + b"\n\n"

    def end(self) -> bytes:
        return b"data: [DONE]\n\n"

    def error(self, error: Mapping[str, Any]) -> bytes:
        """``error`` is OpenAI's error object; no end follows it."""
        return b"data: " + orjson.dumps({"error": error}) + b"\n\n"


def _head(chat: Mapping[str, Any]) -> Body:
    made: Body = {
        "id": "cmpl-" + str(chat.get("id") or "").removeprefix("chatcmpl-"),
        "object": "text_completion",
        "created": chat.get("created") or 0,
        "model": chat.get("model") or "",
    }
    if chat.get("system_fingerprint"):
        made["system_fingerprint"] = chat["system_fingerprint"]
    return made


def _said(message: Mapping[str, Any]) -> str:
    """A refusal is text here: this API has no other place for it."""
    return str(message.get("content") or message.get("refusal") or "")


def _choice(choice: Mapping[str, Any], text: str, offset: int) -> Body:
    return {
        "index": choice.get("index", 0),
        "text": text,
        "finish_reason": choice.get("finish_reason"),
        "logprobs": _logprobs(choice.get("logprobs"), offset),
    }


def _logprobs(logprobs: Any, offset: int) -> Body | None:
    found = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    if found is None:
        return None
    tokens, offsets = [str(one["token"]) for one in found], []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [one["logprob"] for one in found],
        "top_logprobs": [{top["token"]: top["logprob"] for top in one.get("top_logprobs") or ()} for one in found],
        "text_offset": offsets,
    }


UNSUPPORTED = "unsupported_parameter"
