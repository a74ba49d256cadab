"""What a request may ask of its answer; whatever else is refused with the key at fault, before anybody works on it."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.errors import SchemaRefused
from quantgate.guard import Fault
from quantgate.guard.admission import Admission, admit
from quantgate.guard.limits import DEFAULT, Limits

KEYWORDS = [
    "$ref",
    "$defs",
    "$id",
    "$schema",
    "$anchor",
    "type",
    "enum",
    "const",
    "properties",
    "patternProperties",
    "required",
    "additionalProperties",
    "items",
    "prefixItems",
    "additionalItems",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "if",
    "then",
    "else",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "maxProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "format",
    "dependencies",
    "dependentSchemas",
    "propertyNames",
    "contains",
    "unevaluatedProperties",
    "junk",
]
SCHEMA = "response_format.json_schema.schema"


def demand(schema: Any, **more: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **more}}}


def tool(name: Any = "f", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def refusal(body: Any, limits: Limits = DEFAULT) -> SchemaRefused:
    with pytest.raises(SchemaRefused) as told:
        admit(body, limits)
    assert len(str(told.value)) < 320 and "\n" not in str(told.value)
    return told.value


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"response_format": None, "tools": None, "tool_choice": None},
        {"response_format": {"type": "text"}},
        {"tool_choice": "none"},
        {"tool_choice": "auto"},
    ],
)
def test_free_text_is_not_structured(body):
    contract = admit(body)
    assert not contract.structured and contract.prefix() is None
    assert contract.check({"role": "assistant", "content": "anything {"}, "stop") is None


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": {"type": "json_object"}},
        demand({"type": "object"}, strict=True),
        demand(True),
        demand({}),
        demand({"$ref": "#"}),
        demand({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}),
        demand({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        demand({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}}),
        demand({"const": {"$ref": "http://elsewhere.example/x"}}),
        demand({"properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}}}),
        demand({"pattern": "^(a+)+$"}),
        demand({"format": "made-up"}),
        demand({"anyOf": [{"type": "string"}, False]}),
        {"tools": [tool(), tool("g-2_X", parameters={"type": "object"}, strict=True)], "tool_choice": "required"},
        {"tools": [tool()], "tool_choice": tool()},
        {
            "tools": [tool()],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [tool()]}},
        },
        {"tools": [tool(parameters={"properties": {"a": {"type": "integer"}}})], "parallel_tool_calls": False},
    ],
)
def test_these_demands_are_taken(body):
    assert admit(body).structured


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format.json_schema.name",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}},
            "response_format.json_schema.name",
        ),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, SCHEMA),
        (demand({}, strict="yes"), "response_format.json_schema.strict"),
        (demand([]), SCHEMA),
        (demand("{}"), SCHEMA),
        (demand(False), SCHEMA),
        (demand({"not": {}}), SCHEMA),
        (demand({"not": True}), SCHEMA),
        (demand({"enum": []}), SCHEMA),
        (demand({"allOf": [{"type": "string"}, {"type": "object"}]}), SCHEMA),
        (demand({"type": "object", "required": ["a"], "additionalProperties": False}), SCHEMA),
        (demand({"type": "text"}), SCHEMA),
        (demand({"properties": {"a": {"minimum": "1"}}}), SCHEMA),
        (demand({"pattern": "("}), SCHEMA),
        (demand({"pattern": "(?=a)b"}), SCHEMA),
        (demand({"pattern": "(a)\\1"}), SCHEMA),
        (demand({"pattern": "((a{1000}){1000}){10}"}), SCHEMA),
        (demand({"patternProperties": {"(?<!a)b": {}}}), SCHEMA),
        (demand({"$defs": {"unused": {"pattern": "(?!x)"}}}), SCHEMA),
        (demand({"$ref": "#/$defs/none"}), SCHEMA),
        (demand({"$ref": "http://127.0.0.1:1/schema.json"}), SCHEMA),
        (demand({"items": {"$ref": "file:///etc/passwd"}}), SCHEMA),
        (demand({"$ref": "other.json"}), SCHEMA),
        (demand({"$dynamicRef": "https://elsewhere.example/s"}), SCHEMA),
        (demand({"$schema": "http://127.0.0.1:1/meta"}), SCHEMA),
        (demand({"$schema": 4}), SCHEMA),
        ({"tools": []}, "tools"),
        ({"tools": {}}, "tools"),
        ({"tools": ["f"]}, "tools[0].type"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [tool("a.b")]}, "tools[0].function.name"),
        ({"tools": [tool("x" * 65)]}, "tools[0].function.name"),
        ({"tools": [tool("ok\n")]}, "tools[0].function.name"),
        ({"tools": [tool(), tool("g"), tool()]}, "tools[2].function.name"),
        ({"tools": [tool(strict=1)]}, "tools[0].function.strict"),
        ({"tools": [tool(parameters=[])]}, "tools[0].function.parameters"),
        ({"tools": [tool(parameters={"type": "string"})]}, "tools[0].function.parameters"),
        ({"tools": [tool(), tool("g", parameters={"type": 3})]}, "tools[1].function.parameters"),
        ({"tools": [tool()], "tool_choice": "always"}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": tool("g")}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": 3}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": tool()}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
        ({"tools": [tool()], "parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
    ],
)
def test_these_are_refused_with_the_key_at_fault(body, param):
    assert refusal(body).param == param
    assert refusal(body).param == param, "also when it was met before"


def test_nothing_is_fetched():
    """A server on this machine that a schema points to never hears of it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for key in ("$ref", "$dynamicRef", "$schema", "$id"):
            try:
                admit(demand({key: f"http://127.0.0.1:{port}/{key[1:]}", "items": {"$ref": "elsewhere.json"}}))
            except SchemaRefused as refused:
                assert "fetched" in str(refused) or "$schema" in str(refused)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"description": "x" * 140_000}, "bytes"),
        (nested(80), "nested deeper"),
        (nested(240), "nested deeper"),
        ({"allOf": [{"anyOf": [{"type": "string"}, {"minLength": n}]} for n in range(20)]}, "branches"),
        (
            {
                "$defs": {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(22)} | {"d22": {}},
                "$ref": "#/$defs/d0",
                "unevaluatedProperties": False,
            },
            "branches",
        ),
        (
            {
                "$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(2000)} | {"d2000": {}},
                "$ref": "#/$defs/d0",
            },
            "references within",
        ),
        ({"properties": {f"p{n}": {"pattern": f"^x{n}$"} for n in range(201)}}, "patterns"),
    ],
)
def test_a_schema_that_costs_too_much_is_refused_before_it_is_compiled(schema: dict[str, Any], word: str):
    assert word in str(refusal(demand(schema)))
    assert word in str(refusal({"tools": [tool(parameters={"type": "object", **schema})]}))


def test_a_demand_deeper_than_json_can_be_written_is_refused():
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"not": schema}
    assert "nested too deeply" in str(refusal(demand(schema)))


def test_compiling_ends_at_its_limit():
    slow = {"properties": {f"p{n}": {"pattern": f"^\\p{{L}}{{1,{n + 10}}}$"} for n in range(150)}}
    assert "longer than" in str(refusal(demand(slow), Limits(compile_s=0.0)))


def test_too_many_tools_are_refused():
    assert refusal({"tools": [tool(f"f{n}") for n in range(129)]}).param == "tools"


def test_equal_demands_share_a_contract_and_the_oldest_is_forgotten():
    admission = Admission(Limits(remembered=2))
    first = admission.admit(demand({"type": "object"}))
    assert admission.admit({**demand({"type": "object"}), "messages": ["other"], "stream": True}) is first
    assert admission.admit(demand({"type": "array"})) is not first
    assert admission.admit(demand({"type": "object"})) is first, "used again, so the other one is the oldest"
    admission.admit(demand({"type": "string"}))
    assert admission.admit(demand({"type": "object"})) is first
    for number in range(3):
        admission.admit(demand({"maximum": number}))
    assert admission.admit(demand({"type": "object"})) is not first


def test_large_demands_are_forgotten_before_they_fill_the_memory():
    admission = Admission(Limits(remembered_bytes=5_000))
    bodies = [demand({"type": "object", "description": f"{number}" * 2_000}) for number in range(3)]
    first = admission.admit(bodies[0])
    assert admission.admit(bodies[1]) and admission.admit(bodies[0]) is first
    admission.admit(bodies[2])
    admission.admit(bodies[1])
    assert admission.admit(bodies[0]) is not first


def test_threads_share_the_contracts():
    admission = Admission(Limits(remembered=3))
    bodies = [demand({"maximum": number}) for number in range(6)]

    def ask(turn: int) -> bool:
        schema = admission.admit(bodies[turn % 6])
        return schema.check({"content": str(turn % 6)}, "stop") is None

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(ask, range(600)))


def test_each_demand_of_a_request_makes_another_contract():
    offered = {"tools": [tool(), tool("g")]}
    demands: list[dict[str, Any]] = [
        {},
        {"tool_choice": "required"},
        {"tool_choice": tool()},
        {"parallel_tool_calls": False},
    ]
    assert len({id(admit({**offered, **one})) for one in demands}) == 4


SCALARS = st.none() | st.booleans() | st.integers(-3, 9) | st.sampled_from([0.5, "", "a", "#", "#/junk", "object"])
KEYS = st.sampled_from([*KEYWORDS, "a"])
JUNK = st.recursive(
    SCALARS,
    lambda within: st.lists(within, max_size=3) | st.dictionaries(KEYS, within, max_size=3),
    max_leaves=6,
)
TEXTS = st.sampled_from(['{"a": [1, "x"]}', "[{}]", "3"])


@given(st.dictionaries(KEYS, JUNK, max_size=4), JUNK, TEXTS, st.sampled_from([{}, {"$ref": "#/junk"}]))
@settings(max_examples=200)
def test_whatever_stands_where_a_schema_is_due_it_is_taken_or_refused_and_nothing_else(schema, junk, text, reference):
    """Also where a reference leads to what no draft looks at: ``#/junk``."""
    try:
        contract = admit(demand({**schema, **reference, "junk": junk}), Limits(remembered=1, compile_s=10.0))
    except SchemaRefused as refused:
        assert refused.param == SCHEMA and "\n" not in str(refused)
        return
    prefix = contract.prefix()
    assert prefix is not None and not isinstance(prefix, Fault)
    told = prefix.feed(text)
    assert told is None or contract.check({"content": text}, "stop") is not None
