"""Where the time of one request went, as its engine reports it. What it does not report is not there.

Three dialects: llama.cpp's ``timings`` (in every answer), vLLM's ``metrics`` (with ``--enable-per-request-metrics``),
and ``server-timing`` (W3C, Server Timing) as a header or, since a stream's last stages come after its headers, as a
comment of the stream: ``: server-timing: decode;dur=812.4, validate;dur=0.3``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from quantgate.loadtest import Stage

NAMES: dict[str, Stage] = {
    "parse": "parse", "context": "context", "assembly": "context", "assemble": "context", "template": "context",
    "tokenize": "context", "cache": "cache", "lookup": "cache", "queue": "queue", "queued": "queue", "wait": "queue",
    "prefill": "prefill", "prompt": "prefill", "decode": "decode", "generation": "decode", "generate": "decode",
    "validate": "validate", "validation": "validate", "stream": "stream",
}  # fmt: skip
TIMING = re.compile(r"([!#$%&'*+.^_`|~\w-]+)((?:\s*;[^,;]*)*)")


def from_body(timings: Mapping[str, Any] | None) -> dict[Stage, float]:
    """Seconds by stage out of llama.cpp's ``timings`` or vLLM's ``metrics``.

    vLLM's time to first token begins when the request came, so the prompt's share is what is left without the queue.

    >>> from_body({"time_to_first_token_ms": 30.0, "queue_time_ms": 10.0, "generation_time_ms": 500})
    {'queue': 0.01, 'prefill': 0.02, 'decode': 0.5}
    """
    given = timings or {}
    found: dict[Stage, float] = {}
    queue, first = _number(given, "queue_time_ms"), _number(given, "time_to_first_token_ms")
    if queue is not None:
        found["queue"] = queue / 1e3
    prefill = _number(given, "prompt_ms")
    if prefill is None and queue is not None and first is not None:
        prefill = max(0.0, first - queue)
    if prefill is not None:
        found["prefill"] = prefill / 1e3
    decode = _number(given, "predicted_ms")
    decode = _number(given, "generation_time_ms") if decode is None else decode
    if decode is not None:
        found["decode"] = decode / 1e3
    return found


def from_header(value: str) -> dict[Stage, float]:
    """Seconds by stage out of one ``server-timing`` value; a metric without a duration, or of no stage, is left out.

    >>> from_header('queue;dur=12.5, prefill;desc="x";dur=40, db;dur=3, validate')
    {'queue': 0.0125, 'prefill': 0.04}
    """
    found: dict[Stage, float] = {}
    for name, parameters in TIMING.findall(re.sub(r'"[^"]*"', '""', value)):
        stage = NAMES.get(name.lower().removesuffix("_ms"))
        given = re.search(r";\s*dur\s*=\s*\"?(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)", parameters)
        if stage is not None and given is not None:
            found[stage] = found.get(stage, 0.0) + float(given[1]) / 1e3
    return found


def from_comment(comment: str) -> dict[Stage, float]:
    """The same of a stream's comment that begins with ``server-timing``.

    >>> from_comment("server-timing: decode;dur=2"), from_comment("ping")
    ({'decode': 0.002}, {})
    """
    name, _, value = comment.partition(":")
    return from_header(value) if name.strip().lower() == "server-timing" else {}


def _number(given: Mapping[str, Any], key: str) -> float | None:
    value = given.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return None
    return float(value)
