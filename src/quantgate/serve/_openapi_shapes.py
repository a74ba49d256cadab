"""The shapes that cross the gateway, as JSON schemas: what it takes, what it gives, and its error objects."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
TEXT: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0}
AT_LEAST_ONE: Json = {"type": "integer", "minimum": 1}
NULL: Json = {"type": "null"}
ANY: Json = {"type": "object"}
TYPES = ("string", "integer", "number", "boolean", "object", "array", "null")
CALLS_SAID: Json = {"description": "earlier calls of tools, as an answer holds them; the upstream judges them"}
SOMETHING: Json = {"not": {"enum": [None, False, 0, "", [], {}]}, "description": "the upstream judges it"}
CONTENT: Json = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#/components/schemas/Part"}, "minItems": 1}]
}
NAME = "^[a-zA-Z0-9_-]{1,64}$"  # of a function, a schema


def schemas() -> Json:
    return {**_asked(), **_given(), **_about()}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def one_of(*values: str) -> Json:
    return {"type": "string", "enum": list(values)}


def shape(required: dict[str, Json], optional: dict[str, Json] | None = None, *, closed: bool = False) -> Json:
    """An object. Keys that it does not name may be there, of a ``closed`` one as null alone."""
    made: Json = {"type": "object", "properties": {**required, **(optional or {})}}
    if required:
        made["required"] = list(required)
    if closed:
        made["additionalProperties"] = NULL
    return made


def many(item: Json, *, at_least: int = 0) -> Json:
    return {"type": "array", "items": item, **({"minItems": at_least} if at_least else {})}


def maybe(schema: Json) -> Json:
    return {"anyOf": [schema, NULL]}


def number(low: float, high: float) -> Json:
    return {"type": "number", "minimum": low, "maximum": high}


# --- what is asked ---


def _asked() -> Json:
    return {
        "ChatRequest": _request(
            {"model": ref("ModelName"), "messages": many(ref("Turn"), at_least=1)},
            {
                **_sampling(),
                "max_tokens": AT_LEAST_ONE,
                "max_completion_tokens": AT_LEAST_ONE,
                "n": {"type": "integer", "minimum": 1, "maximum": 128},
                "response_format": ref("Format"),
                "tools": {**many(ref("Tool"), at_least=1), "uniqueItems": True},
                "tool_choice": {"anyOf": [one_of("none", "auto", "required"), ref("NamedTool")]},
                "parallel_tool_calls": {"type": "boolean"},
                "logprobs": {"type": "boolean"},
            },
            "keys that only some upstreams know, such as top_k, pass unread",
        ),
        "CompletionRequest": _request(
            {"model": ref("ModelName"), "prompt": TEXT},
            {**_sampling(), "max_tokens": AT_LEAST_ONE, "response_format": ref("Format")},
            "a chat of one turn: what a chat has no place for (suffix, echo, best_of) is refused",
            closed=True,
        ),
        "ResponseRequest": _request(
            {"model": ref("ModelName"), "input": TEXT},
            {
                "instructions": TEXT,
                "max_output_tokens": AT_LEAST_ONE,
                "temperature": number(0, 2),
                "top_p": number(0, 1),
                "text": shape({}, {"format": maybe(ref("FlatFormat"))}),
                "store": {"description": "nothing is stored, whatever it says"},
                "user": TEXT,
            },
            "by conversion to chat: tools and earlier items are taken as OpenAI describes them; nothing is stored, so "
            "previous_response_id and conversation are refused",
            closed=True,
            streaming={"stream": {"type": "boolean"}},
        ),
        "ModelName": {**TEXT, "description": "one of /v1/models"},
        "Turn": {"oneOf": [*map(_turn, ("system", "developer", "user", "function")), _assistant(), _tool_turn()]},
        "Part": {"description": "text, an image ...: the upstream judges it", **shape({"type": TEXT})},
        "Call": shape(
            {"id": TEXT, "type": {"const": "function"}, "function": shape({"name": TEXT, "arguments": TEXT})}
        ),
        "Tool": shape(
            {
                "type": {"const": "function"},
                "function": shape({"name": {**TEXT, "pattern": NAME}}, {"parameters": maybe(ref("Arguments"))}),
            }
        ),
        "NamedTool": shape({"type": {"const": "function"}, "function": shape({"name": {**TEXT, "pattern": NAME}})}),
        "Arguments": {
            "description": "a JSON schema of an object, within the limits of the gateway and without remote references",
            **shape(
                {},
                {
                    "type": {"const": "object"},
                    "properties": {"type": "object", "additionalProperties": ref("Leaf")},
                },
            ),
        },
        "Leaf": {"type": ["object", "boolean"], "properties": {"type": one_of(*TYPES)}},
        "Format": {"oneOf": [*_plain_formats(), _schema_format({"json_schema": shape(*_named_schema())})]},
        "FlatFormat": {"oneOf": [*_plain_formats(), _schema_format(*_named_schema())]},
    }


def _request(
    required: dict[str, Json],
    optional: dict[str, Json],
    said: str,
    *,
    closed: bool = False,
    streaming: dict[str, Json] | None = None,
) -> Json:
    """A request that streams or does not; ``null`` is as good as leaving a key out."""
    free = {name: maybe(schema) for name, schema in optional.items()}
    whole = shape(required, {**free, "stream": {"enum": [False, None]}, "stream_options": NULL}, closed=closed)
    usage = shape({}, {"include_usage": {"description": "true: a last chunk tells the usage"}})
    more = streaming or {"stream": {"const": True}, "stream_options": maybe(usage)}
    if streaming:
        return {**shape(required, {**free, **{name: maybe(one) for name, one in more.items()}}, closed=closed),
                "description": said}  # fmt: skip
    streamed = shape({**required, "stream": more["stream"]}, {**free, "stream_options": more["stream_options"]},
                     closed=closed)  # fmt: skip
    return {"description": said, "anyOf": [whole, streamed]}


def _plain_formats() -> list[Json]:
    return [shape({"type": {"const": name}}) for name in ("text", "json_object")]


def _schema_format(required: dict[str, Json], optional: dict[str, Json] | None = None) -> Json:
    return shape({"type": {"const": "json_schema"}, **required}, optional)


def _named_schema() -> tuple[dict[str, Json], dict[str, Json]]:
    return (
        {"name": {**TEXT, "pattern": NAME}, "schema": ref("Arguments")},
        {"strict": maybe({"type": "boolean"})},
    )


def _turn(role: str) -> Json:
    return shape({"role": {"const": role}, "content": CONTENT})


def _assistant() -> Json:
    """Words, or something in their place."""
    said = shape({"role": {"const": "assistant"}, "content": CONTENT}, {"tool_calls": CALLS_SAID})
    instead = [
        shape({"role": {"const": "assistant"}, key: SOMETHING}, {"content": NULL})
        for key in ("tool_calls", "function_call", "refusal", "audio")
    ]
    return {"anyOf": [said, *instead]}


def _tool_turn() -> Json:
    told = {"description": "of the call whose result it is; the upstream judges it"}
    return shape({"role": {"const": "tool"}, "content": CONTENT}, {"tool_call_id": told})


def _sampling() -> dict[str, Json]:
    return {
        "temperature": number(0, 2),
        "top_p": number(0, 1),
        "seed": {"type": "integer", "minimum": -(2**63), "maximum": 2**64 - 1},
        "presence_penalty": number(-2, 2),
        "frequency_penalty": number(-2, 2),
        "stop": {"anyOf": [TEXT, {**many(TEXT), "maxItems": 64}]},
        "user": TEXT,
    }


# --- what is given ---


def _given() -> Json:
    finish = maybe(one_of("stop", "length", "tool_calls", "content_filter", "function_call"))
    spoken = shape(
        {"role": {"const": "assistant"}, "content": maybe(TEXT)},
        {"refusal": maybe(TEXT), "tool_calls": maybe(many(ref("Call")))},
    )
    delta = shape(
        {},
        {
            "role": TEXT,
            "content": maybe(TEXT),
            "refusal": maybe(TEXT),
            "tool_calls": many(shape({"index": COUNT}, {"id": TEXT, "type": {"const": "function"}, "function": ANY})),
        },
    )
    return {
        "Chat": shape(
            {**_head("chat.completion"), "choices": many(
                shape({"index": COUNT, "message": spoken, "finish_reason": finish}), at_least=1)},
            {"usage": maybe(ref("Usage")), "system_fingerprint": maybe(TEXT)},
        ),
        "ChatChunk": shape(
            {**_head("chat.completion.chunk"), "choices": many(
                shape({"index": COUNT, "delta": delta}, {"finish_reason": finish}))},
            {"usage": maybe(ref("Usage")), "system_fingerprint": maybe(TEXT)},
        ),
        "Completion": shape(
            {**_head("text_completion"), "choices": many(
                shape({"index": COUNT, "text": TEXT, "finish_reason": finish}))},
            {"usage": maybe(ref("Usage"))},
        ),
        "Response": shape(
            {
                "id": TEXT,
                "object": {"const": "response"},
                "created_at": {"type": "number"},
                "model": TEXT,
                "status": one_of("completed", "incomplete", "failed", "in_progress"),
                "output": many(shape({"type": TEXT})),
                "parallel_tool_calls": {"type": "boolean"},
                "tool_choice": {"anyOf": [TEXT, ANY]},
                "tools": many(ANY),
            },
            {"usage": maybe(shape({"input_tokens": COUNT, "output_tokens": COUNT, "total_tokens": COUNT}))},
        ),
        "Usage": shape({"prompt_tokens": COUNT, "completion_tokens": COUNT, "total_tokens": COUNT}),
    }  # fmt: skip


def _head(kind: str) -> dict[str, Json]:
    return {"id": TEXT, "object": {"const": kind}, "created": COUNT, "model": TEXT}


# --- the gateway about itself ---


def _about() -> Json:
    return {
        "Models": shape({"object": {"const": "list"}, "data": many(ref("Model"))}),
        "Model": shape({"id": TEXT, "object": {"const": "model"}, "created": COUNT, "owned_by": TEXT}),
        "Health": shape({"status": {"const": "ok"}}),
        "Ready": shape(
            {
                "ready": {"type": "boolean"},
                "reasons": many(TEXT),
                "arms": many(shape({"name": TEXT, "role": TEXT, "digest": TEXT, "serves": maybe(TEXT)})),
            }
        ),
        "Verdict": shape(
            {
                "action": one_of("rollback", "hold", "promote"),
                "pass": {"type": "boolean"},
                "because": TEXT,
                "score": number(0, 1),
                "evidence": {"type": "number", "minimum": 0},
                "signals": many(shape({"signal": TEXT, "direction": one_of("more", "less")})),
            }
        ),
        "Points": shape({"trial": TEXT, "points": many(ANY)}),
        "Alarms": shape({"alarms": many(ANY)}),
        "Error": shape(
            {
                "error": shape(
                    {"message": {**TEXT, "minLength": 1}, "type": TEXT, "param": maybe(TEXT), "code": maybe(TEXT)}
                )
            }
        ),
    }
