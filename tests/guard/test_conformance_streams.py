"""No invalid structured answer is delivered: the suite's schemas and values through every policy of a stream.

What is valid arrives as it was written; of what is not, no finish leaves, and what left of it is never whole JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, get_args

import pytest
from tests.guard.made_schemas import pieces
from tests.guard.test_conformance import KNOWN, SUITE, groups

from quantgate.errors import SchemaRefused
from quantgate.guard import Contract, Policy
from quantgate.guard.admission import Admission
from quantgate.guard.assembly import Broken
from quantgate.guard.limits import Limits
from quantgate.guard.streams import StreamGuard

ADMISSION = Admission(Limits(compile_s=10.0, remembered=4))
SIZES = {"passthrough": [1], "holdback": [3, 1], "window": [2], "buffer": [50]}
Form = Literal["content", "arguments"]


def demand(schema: Any, form: Form) -> Contract | None:
    body: dict[str, Any]
    if form == "content":
        body = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    else:
        body = {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}
    try:
        return ADMISSION.admit(body)
    except SchemaRefused:
        return None


def chunks(text: str, form: Form, sizes: list[int]) -> Iterator[dict[str, Any]]:
    """As an upstream sends them: a role, the pieces, a finish."""
    yield _chunk({"role": "assistant"})
    for number, piece in enumerate(pieces(text, sizes)):
        if form == "content":
            yield _chunk({"content": piece})
        else:
            head = {} if number else {"id": "call_1", "type": "function"}
            function = {"arguments": piece} | ({} if number else {"name": "f"})
            yield _chunk({"tool_calls": [{"index": 0, **head, "function": function}]})
    yield _chunk({}, "stop" if form == "content" else "tool_calls")


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def delivered(contract: Contract, text: str, form: Form, policy: Policy) -> tuple[str, bool]:
    """What a client hears of an answer, and whether it heard that the answer is finished."""
    guard = StreamGuard(contract, policy, window=4)
    left: list[dict[str, Any]] = []
    try:
        for chunk in chunks(text, form, SIZES[policy]):
            left += guard.feed(chunk)
        left += guard.end()
    except Broken:
        pass
    choices = [choice for chunk in left for choice in chunk["choices"]]
    said = "".join(choice["delta"].get("content") or "" for choice in choices)
    for choice in choices:
        for call in choice["delta"].get("tool_calls") or ():
            said += call["function"].get("arguments") or ""
    return said, any(choice["finish_reason"] for choice in choices)


def held(contract: Contract, text: str, form: Form, policy: Policy, valid: bool) -> None:
    said, finished = delivered(contract, text, form, policy)
    if valid:
        assert (said, finished) == (text, True), (policy, text)
        return
    assert not finished and text.startswith(said), (policy, text, said)
    if said and policy != "buffer":
        assert not _whole(said), (policy, text, "it left whole, only without a finish")


def _whole(text: str) -> bool:
    """Whether it is JSON in brackets: a number that is cut is a number, too, and no client can tell."""
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False


@pytest.mark.parametrize("policy", get_args(Policy))
@pytest.mark.parametrize(("raw", "right", "wrong"), KNOWN, ids=[json.dumps(one[0])[:40] for one in KNOWN])
def test_known_answers_through_every_policy(raw, right, wrong, policy):
    contract = demand(raw, "content")
    assert contract is not None
    for text in right:
        held(contract, text, "content", policy, True)
    for text in wrong:
        held(contract, text, "content", policy, False)


@pytest.mark.skipif(not SUITE.is_dir(), reason="make schema-suite fetches the JSON Schema Test Suite")
@pytest.mark.parametrize("policy", get_args(Policy))
@pytest.mark.parametrize("form", get_args(Form))
def test_the_suites_values_through_every_policy(form, policy):
    counted = {True: 0, False: 0}
    for _, raw, tests in groups("draft2020-12"):
        contract = demand(raw, form) if form == "content" or _of_objects(raw) else None
        if contract is None:
            continue
        for one in tests:
            text = json.dumps(one["data"])
            message = _message(text, form)
            valid = contract.check(message, "stop") is None
            assert form == "arguments" or valid == one["valid"] or "format" in json.dumps(raw)
            held(contract, text, form, policy, valid)
            counted[valid] += 1
    assert min(counted.values()) > 100, counted


def _of_objects(raw: Any) -> bool:
    return isinstance(raw, dict) and raw.get("type", "object") == "object"


def _message(text: str, form: Form) -> dict[str, Any]:
    if form == "content":
        return {"role": "assistant", "content": text}
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": text}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}
