"""What OpenTelemetry calls the facts of an exchange: attributes of its span, metrics with their buckets.

The buckets are the conventions' own, so that other programs' dashboards fit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from quantgate.serve import Exchange, Request

PROVIDER = "quantgate"
OPERATIONS = {"chat": "chat", "responses": "chat", "completions": "text_completion"}
SECONDS = tuple(round(0.01 * 2**power, 2) for power in range(14))  # 0.01 to 81.92
FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = tuple(4.0**power for power in range(14))  # 1 to 67,108,864
MODELS = 100  # names of models in metrics: clients choose them, and each makes a series
NUMBERS = {  # a request's key -> its attribute
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
}
Attributes = dict[str, Any]


def span_name(exchange: Exchange, request: Request | None) -> str:
    """``chat {model}``, with the model that was asked for."""
    return f"{OPERATIONS[exchange.route]} {_model(request) or exchange.variant}"


def span_attributes(exchange: Exchange, request: Request | None, *, content: bool) -> Attributes:
    """All that is known of an exchange and no text of it, unless ``content``."""
    told: Attributes = {
        "gen_ai.operation.name": OPERATIONS[exchange.route],
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": _model(request) or None,
        "gen_ai.response.model": exchange.answered_by or exchange.variant,
        "gen_ai.response.finish_reasons": (exchange.finish,) if exchange.finish else None,
        "gen_ai.response.time_to_first_chunk": exchange.ttft_s if exchange.stream else None,
        "gen_ai.usage.input_tokens": exchange.prompt_tokens,
        "gen_ai.usage.output_tokens": exchange.answer_tokens,
        "gen_ai.output.type": "json" if exchange.structured else "text",
        "gen_ai.request.stream": True if exchange.stream else None,
        "gen_ai.conversation.id": exchange.session if exchange.told_session else None,
        "error.type": exchange.error or None,
        "http.response.status_code": exchange.status,
        "quantgate.variant.id": exchange.artifact,
        "quantgate.variant.name": exchange.variant,
        "quantgate.target": exchange.target,
        "quantgate.revision": exchange.revision,
        "quantgate.cohort": exchange.cohort,
        "quantgate.rule": exchange.rule or None,
        "quantgate.request.id": exchange.id,
        "quantgate.key": exchange.key,
        "quantgate.guard.step": exchange.step or None,
        "quantgate.guard.faults": exchange.faults or None,
        "quantgate.guard.repairs": exchange.repairs or None,
        "quantgate.refusal": True if exchange.refusal else None,
        "quantgate.disconnected": True if exchange.disconnected else None,
        "quantgate.shadow": True if exchange.shadow else None,
        "quantgate.retry": exchange.retry or None,
        "quantgate.stage.broken": exchange.broke or None,
        "quantgate.overhead": exchange.overhead_s,
    }
    told |= {f"quantgate.stage.{name}": seconds for name, seconds in exchange.stages.items()}
    if request is not None:
        told |= _asked(request.body)
        if content:
            told |= _content(exchange, request)
    return {name: value for name, value in told.items() if value is not None}


def _model(request: Request | None) -> str:
    asked = request.body.get("model") if request else None
    return asked[:200] if isinstance(asked, str) else ""


def _asked(body: Mapping[str, Any]) -> Attributes:
    told: Attributes = {}
    for key, name in NUMBERS.items():
        value = body.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            told[name] = value
    stop, choices = body.get("stop"), body.get("n")
    stops = [stop] if isinstance(stop, str) else stop
    if isinstance(stops, list) and stops and all(isinstance(one, str) for one in stops):
        told["gen_ai.request.stop_sequences"] = tuple(stops)
    if isinstance(choices, int) and choices != 1:
        told["gen_ai.request.choice.count"] = choices
    return told


def _content(exchange: Exchange, request: Request) -> Attributes:
    """Messages in the conventions' form, as JSON. What was answered is there where the gateway keeps text."""
    told: Attributes = {}
    messages = request.body.get("messages")
    if isinstance(messages, list):
        told["gen_ai.input.messages"] = _json([_message(one) for one in messages if isinstance(one, dict)])
    answers = (exchange.text or {}).get("answer") or []
    if isinstance(answers, str | Mapping):
        answers = [answers]
    said = [{"role": "assistant", "content": one} if isinstance(one, str) else one for one in answers]
    if said:
        told["gen_ai.output.messages"] = _json(
            [{**_message(one), "finish_reason": exchange.finish} for one in said if isinstance(one, Mapping)]
        )
    return told


def _message(one: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's message -> role and parts."""
    parts: list[dict[str, Any]] = []
    content = one.get("content")
    if isinstance(content, str) and content:
        parts.append({"type": "text", "content": content})
    elif isinstance(content, Sequence) and not isinstance(content, str):
        texts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
        parts += [{"type": "text", "content": text} for text in texts]
    for call in one.get("tool_calls") or ():
        function = call.get("function", {}) if isinstance(call, dict) else {}
        parts.append({
            "type": "tool_call", "id": call.get("id"), "name": function.get("name"),
            "arguments": function.get("arguments"),
        })  # fmt: skip
    return {"role": str(one.get("role", "assistant")), "parts": parts}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


class Metrics:
    """The conventions' histograms. No session and no key is an attribute: each value of one makes a series."""

    def __init__(self, meter: Any) -> None:
        def histogram(name: str, unit: str, about: str, buckets: Sequence[float]) -> Any:
            return meter.create_histogram(name, unit, about, explicit_bucket_boundaries_advisory=buckets)

        self._duration = histogram(
            "gen_ai.server.request.duration", "s", "Time to the last byte of an answer.", SECONDS
        )
        self._first = histogram(
            "gen_ai.server.time_to_first_token", "s", "Time to the first token of an answer.", FIRST_TOKEN
        )
        self._each = histogram(
            "gen_ai.server.time_per_output_token", "s", "Time per token after the first one.", PER_TOKEN
        )
        self._tokens = histogram("gen_ai.client.token.usage", "{token}", "Tokens of prompt and answer.", TOKENS)
        self._models: set[str] = set()

    def record(self, exchange: Exchange, request: Request | None) -> None:
        told: Attributes = {
            "gen_ai.operation.name": OPERATIONS[exchange.route],
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": self._known(_model(request), exchange),
            "gen_ai.response.model": exchange.answered_by or exchange.variant,
            "quantgate.variant.id": exchange.artifact,
            "quantgate.cohort": exchange.cohort,
            "quantgate.guard.step": exchange.step or "none",
        }
        if exchange.shadow:
            told["quantgate.shadow"] = True
        if exchange.error:
            self._duration.record(exchange.total_s, {**told, "error.type": exchange.error})
        else:
            self._duration.record(exchange.total_s, told)
            self._speed(exchange, told)
        for kind, count in (("input", exchange.prompt_tokens), ("output", exchange.answer_tokens)):
            if count is not None:
                self._tokens.record(count, {**told, "gen_ai.token.type": kind})

    def _speed(self, exchange: Exchange, told: Attributes) -> None:
        """Of answers alone: the conventions leave failures out."""
        first, tokens = exchange.ttft_s, exchange.answer_tokens
        if first is not None:
            self._first.record(first, told)
            if exchange.stream and tokens is not None and tokens > 1:
                self._each.record(max(0.0, exchange.total_s - first) / (tokens - 1), told)

    def _known(self, model: str, exchange: Exchange) -> str:
        """The model that was asked for, while there are few of them."""
        if model in self._models:
            return model
        if not model or exchange.status >= 400 or len(self._models) >= MODELS:
            return "other"
        self._models.add(model)
        return model
