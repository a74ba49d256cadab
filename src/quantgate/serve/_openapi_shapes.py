"""The shapes that cross the gateway, as JSON schemas: what it takes, what it gives, and its error objects."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
TEXT: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0}
MONEY_OF_TOKENS: Json = {"type": "integer", "minimum": 1}
NULL: Json = {"type": "null"}
ANY: Json = {"type": "object"}
NAME = "^[a-zA-Z0-9_-]{1,64}$"  # of a function, a schema


def schemas() -> Json:
    return {**_asked(), **_given(), **_about()}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def one_of(*values: str) -> Json:
    return {"type": "string", "enum": list(values)}


def shape(required: dict[str, Json], optional: dict[str, Json] | None = None, *, closed: bool = False) -> Json:
    """An object. Keys that it does not name may be there, unless ``closed``."""
    made: Json = {"type": "object", "properties": {**required, **(optional or {})}}
    if required:
        made["required"] = list(required)
    if closed:
        made["additionalProperties"] = False
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
        "ChatRequest": shape(
            {"model": {**TEXT, "minLength": 1}, "messages": many(ref("Turn"), at_least=1)},
            {
                **_sampling(),
                "max_tokens": maybe(MONEY_OF_TOKENS),
                "max_completion_tokens": maybe(MONEY_OF_TOKENS),
                "n": {"type": "integer", "const": 1},
                "response_format": ref("Format"),
                "tools": many(ref("Tool")),
                "tool_choice": {"anyOf": [one_of("none", "auto"), ref("NamedTool")]},
                "parallel_tool_calls": {"type": "boolean"},
                **_streaming(),
            },
        ),
        "CompletionRequest": shape(
            {"model": {**TEXT, "minLength": 1}, "prompt": {**TEXT, "minLength": 1}},
            {**_sampling(), "max_tokens": MONEY_OF_TOKENS, **_streaming()},
        ),
        "ResponseRequest": shape(
            {"model": {**TEXT, "minLength": 1}, "input": {**TEXT, "minLength": 1}},
            {
                "instructions": TEXT,
                "max_output_tokens": {"type": "integer", "minimum": 16},
                "temperature": number(0, 2),
                "top_p": number(0, 1),
                "stream": {"type": "boolean"},
            },
        ),
        "Turn": {"oneOf": [_turn("system"), _turn("developer"), _turn("user"), _assistant(), _tool_turn()]},
        "Part": shape({"type": {"const": "text"}, "text": TEXT}),
        "Call": shape(
            {"id": TEXT, "type": {"const": "function"}, "function": shape({"name": TEXT, "arguments": TEXT})}
        ),
        "Tool": shape(
            {
                "type": {"const": "function"},
                "function": shape(
                    {"name": {**TEXT, "pattern": NAME}}, {"description": TEXT, "parameters": ref("Arguments")}
                ),
            }
        ),
        "NamedTool": shape(
            {"type": {"const": "function"}, "function": shape({"name": {**TEXT, "pattern": NAME}})},
        ),
        "Arguments": {
            "description": "a JSON schema of an object, within the limits of the gateway and without remote references",
            **shape(
                {"type": {"const": "object"}, "properties": {"type": "object", "additionalProperties": ref("Leaf")}},
                closed=True,
            ),
        },
        "Leaf": shape({"type": one_of("string", "integer", "number", "boolean")}, {"description": TEXT}, closed=True),
        "Format": {
            "oneOf": [
                shape({"type": {"const": "text"}}, closed=True),
                shape({"type": {"const": "json_object"}}, closed=True),
                shape(
                    {
                        "type": {"const": "json_schema"},
                        "json_schema": shape(
                            {"name": {**TEXT, "pattern": NAME}, "schema": ref("Arguments")},
                            {"description": TEXT, "strict": {"type": "boolean"}},
                            closed=True,
                        ),
                    },
                    closed=True,
                ),
            ]
        },
    }


def _turn(role: str) -> Json:
    content = {"anyOf": [TEXT, many(ref("Part"), at_least=1)]}
    return shape({"role": {"const": role}, "content": content}, {"name": TEXT})


def _assistant() -> Json:
    return shape({"role": {"const": "assistant"}, "content": TEXT}, {"tool_calls": many(ref("Call"), at_least=1)})


def _tool_turn() -> Json:
    return shape({"role": {"const": "tool"}, "content": TEXT, "tool_call_id": TEXT})


def _sampling() -> dict[str, Json]:
    return {
        "temperature": number(0, 2),
        "top_p": number(0, 1),
        "seed": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
        "presence_penalty": number(-2, 2),
        "frequency_penalty": number(-2, 2),
        "stop": {"anyOf": [TEXT, {**many(TEXT, at_least=1), "maxItems": 4}]},
        "user": TEXT,
    }


def _streaming() -> dict[str, Json]:
    return {
        "stream": {"type": "boolean"},
        "stream_options": shape({}, {"include_usage": {"type": "boolean"}}, closed=True),
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
        "Ready": shape({"status": TEXT}),
        "Error": shape(
            {
                "error": shape(
                    {"message": {**TEXT, "minLength": 1}, "type": TEXT, "param": maybe(TEXT), "code": maybe(TEXT)}
                )
            }
        ),
    }
