"""What the gateway understands and answers, as an OpenAPI 3.1 document, which it serves at ``/openapi.json``.

The shapes stand in ``_openapi_shapes.py``; here are the routes. Clients of OpenAI's API need none of this: it is for
whoever reads, generates or tests clients. schemathesis tries it against a started gateway in our own tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from quantgate.serve import _openapi_shapes as shapes

Json = dict[str, Any]
REFUSALS = {
    400: "The request says something that cannot be answered; ``param`` names the key at fault.",
    401: "No key, or one that is not known.",
    403: "The key may not do this.",
    404: "No such model, or no such route.",
    413: "The body is larger than this gateway takes.",
    415: "The body is not JSON by its content-type.",
    422: "No variant gave an answer that keeps what was asked of it, or the upstream will not take this request.",
    429: "The key has spent what it may for now; ``retry-after`` tells when it may again, where waiting helps.",
    502: "No variant answered: none could be reached, or each broke off.",
    503: "Overloaded, shutting down, or the ledger cannot be reached; ``retry-after`` tells when to try again.",
    504: "A stage took longer than the route allows it, or than the client waits.",
}
TOLD = {
    "x-request-id": "names this request in the gateway's records",
    "x-quantgate-variant": "digest of the variant that answered",
    "x-quantgate-cohort": "stable, canary, holdback or pinned: why the request went there",
    "x-quantgate-revision": "of the release that decided so",
    "server-timing": "milliseconds by stage, as far as they are known when the answer begins; a stream tells the rest "
    "in a comment before its end",
}


@cache
def encoded() -> bytes:
    """The document as JSON, made once."""
    import orjson

    return orjson.dumps(document(), option=orjson.OPT_INDENT_2)


def document(models: Sequence[str] = (), *, closed: bool = False, watch: bool = False) -> Json:
    """The whole description; ``models`` that a request may name, and ``closed``: no others, now or later; ``watch``:
    with the routes by which other controllers ask for the verdict."""
    made = shapes.schemas()
    if models:
        made["ModelName"]["enum" if closed else "examples"] = list(models)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "quantgate",
            "version": version("quantgate"),
            "summary": "An OpenAI-compatible gateway that lets no invalid structured answer leave.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}, {}],  # {}: a gateway on loopback without any key is open
        "paths": {
            "/v1/chat/completions": {"post": _chat()},
            "/v1/completions": {"post": _completions()},
            "/v1/responses": {"post": _responses()},
            "/v1/models": {"get": _models()},
            "/v1/models/{model}": {"get": _model()},
            "/health": {"get": _health()},
            "/ready": {"get": _ready()},
            "/metrics": {"get": _metrics()},
            "/openapi.json": {"get": _itself()},
            **(_watched() if watch else {}),
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "made by `quantgate keys`"}},
            "schemas": made,
            "headers": {name: {"description": said, "schema": {"type": "string"}} for name, said in TOLD.items()},
            "responses": {_name(status): _refusal(said) for status, said in REFUSALS.items()},
        },
    }


def _chat() -> Json:
    return _answered(
        "chat",
        "Answers a conversation",
        "ChatRequest",
        {"application/json": _ref("Chat"), "text/event-stream": _events("ChatChunk")},
    )


def _completions() -> Json:
    return _answered(
        "completion",
        "Continues a text",
        "CompletionRequest",
        {"application/json": _ref("Completion"), "text/event-stream": _events("Completion")},
    )


def _responses() -> Json:
    return _answered(
        "response",
        "Answers by the Responses API, by conversion to chat; nothing is stored",
        "ResponseRequest",
        {"application/json": _ref("Response"), "text/event-stream": _events("Response")},
    )


def _answered(name: str, summary: str, request: str, content: dict[str, Json]) -> Json:
    """A route that asks a variant."""
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(request)}}},
        "responses": {
            "200": {
                "description": "The answer, whole or as server-sent events; an event with `error` and no `[DONE]` "
                "tells that a stream broke off",
                "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in TOLD},
                "content": {media: {"schema": schema} for media, schema in content.items()},
            },
            **_refusals(*REFUSALS),
        },
    }


def _models() -> Json:
    return _read("models", "Names that a request may give as its model", "Models", 401, 403)


def _model() -> Json:
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {**_read("model", "One of them", "Model", 401, 403, 404), "parameters": [name]}


def _health() -> Json:
    return {**_read("health", "Whether the process lives", "Health"), "security": []}


def _ready() -> Json:
    made = _read("ready", "Whether requests can be answered: upstreams, ledger, guards", "Ready")
    made["responses"]["503"] = {"description": "Not now; the body tells what is missing", "content": _json("Ready")}
    return {**made, "security": []}


def _metrics() -> Json:
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": "metrics",
        "summary": "What Prometheus reads",
        "security": [],
        "responses": {"200": {"description": "Counters and histograms in Prometheus's format", "content": text}},
    }


def _itself() -> Json:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "operationId": "description",
        "summary": "This document",
        "security": [],
        "responses": {"200": {"description": "OpenAPI 3.1", "content": content}},
    }


def _watched() -> Json:
    """What ``watch.verdicts`` answers."""
    fail_on = {"name": "fail_on", "in": "query", "schema": shapes.one_of("rollback", "hold")}
    hook = {"name": "hook", "in": "query", "schema": shapes.one_of("confirm", "rollback")}
    variant = {"name": "variant", "in": "query", "schema": {"type": "string", "minLength": 1}}
    verdict = {
        **_read("verdict", "Whether the variant on trial may go on, and why", "Verdict", 400, 401, 403),
        "parameters": [fail_on, variant],
    }
    sentence = {"text/plain": {"schema": {"type": "string"}}}
    flagger: Json = {
        "operationId": "flagger",
        "summary": "The verdict as Flagger's webhooks ask: go on, or not",
        "responses": {
            "200": {"description": "Go on; of a hook of type rollback: roll back", "content": sentence},
            "412": {"description": "Do not; the sentence tells why", "content": sentence},
            **_refusals(400, 401, 403),
        },
    }
    flagger["parameters"] = [fail_on, variant, hook]
    return {
        "/watch/verdict": {"get": verdict, "post": {**verdict, "operationId": "verdictByPost"}},
        "/watch/flagger": {"get": flagger, "post": {**flagger, "operationId": "flaggerByPost"}},
        "/watch/points": {"get": _read("points", "Evidence over time", "Points", 400, 401, 403)},
        "/watch/alarms": {"get": _read("alarms", "What moved, or should have", "Alarms", 400, 401, 403)},
    }


def _read(name: str, summary: str, schema: str, *refusals: int) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": _json(schema)}, **_refusals(*refusals)},
    }


def _refusals(*statuses: int) -> Json:
    return {str(status): {"$ref": f"#/components/responses/{_name(status)}"} for status in statuses}


def _refusal(said: str) -> Json:
    return {"description": said, "content": _json("Error")}


def _name(status: int) -> str:
    return f"Refused{status}"


def _json(schema: str) -> Json:
    return {"application/json": {"schema": _ref(schema)}}


def _events(schema: str) -> Json:
    """Of each event, as whoever checks streams reads them."""
    said = f"{schema} as JSON, or at the end [DONE]; an object with `error` where the stream breaks off"
    return {
        "type": "object",
        "properties": {"data": {"type": "string", "description": said}, "event": {"type": "string"}},
        "required": ["data"],
    }


def _ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}
