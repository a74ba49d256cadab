"""Pieces of an answer -> OpenAI's chat completion, whole or in chunks.

A model writes a call as text: one JSON object ``{"name", "arguments"}``, bare or in ``<tool_call>`` tags, as the suites
of ``evaluate`` read it. While a text may still become one it is held back; what turns out to be none leaves as content.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from quantgate.engines._sampling import Logprob
from quantgate.models.tools import call_of

BEGIN = "<tool_call>"
TAGGED = re.compile(r"<tool_call>.*?</tool_call>", re.DOTALL)
Json = dict[str, Any]


class Said:
    """One answer as far as it was written. ``calls`` is filled by ``end``."""

    def __init__(self, tools: bool) -> None:
        self.tools = tools
        self.calls: list[Json] = []
        self._held = ""
        self._begun = False  # whether something that is no blank has left as content

    def push(self, text: str) -> str:
        """The content that may leave."""
        if not self.tools:
            return text
        text, self._held = self._held + text, ""
        if not self._begun and (not text.strip() or text.lstrip().startswith("{")):
            self._held = text
            return ""
        at = text.find(BEGIN)
        if at < 0:
            most = min(len(BEGIN) - 1, len(text))
            at = len(text) - next((n for n in range(most, 0, -1) if text.endswith(BEGIN[:n])), 0)
        text, self._held = text[:at], text[at:]
        self._begun = self._begun or bool(text.strip())
        return text

    def end(self) -> str:
        """The rest of the content; what was held back is now a call, or none."""
        held, self._held = self._held, ""
        found = TAGGED.findall(held) or [held]
        calls = [call_of(one) for one in found]
        if not held or None in calls or TAGGED.sub("", held).strip() not in ("", held.strip()):
            return held
        self.calls = [_call(one) for one in calls if one is not None]
        return ""


def _call(call: Json) -> Json:
    arguments = json.dumps(call["arguments"], ensure_ascii=False, separators=(",", ":"))
    function = {"name": call["name"], "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def logprobs(chances: Sequence[Logprob], spell: Callable[[int], str]) -> Json:
    """OpenAI's ``logprobs`` of some tokens."""
    rows = [
        {**_row(one.token, one.logprob, spell), "top_logprobs": [_row(*pair, spell) for pair in one.top]}
        for one in chances
    ]
    return {"content": rows, "refusal": None}


def _row(token: int, logprob: float, spell: Callable[[int], str]) -> Json:
    text = spell(token)
    raw = None if "\N{REPLACEMENT CHARACTER}" in text else list(text.encode())
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": raw}
