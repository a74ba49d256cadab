"""tool_call: the answer is the right call by value, or says that no tool fits.

The reference is ``{"name": ..., "arguments": {...}}``, or ``{"abstain": true}`` where no tool fits; ``accept`` then
lists the phrases that say so (default ``no_tool``). A call is one JSON object, bare, in a code block or in
``<tool_call>`` tags, and may have the shape of the OpenAI API: ``{"function": {"name": ..., "arguments": "<json>"}}``,
``{"tool_calls": [...]}`` or a list of one.
"""

from __future__ import annotations

import re
from typing import Any

from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.scorers._json import NotJson, difference, read, unfenced

TAGGED = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
NO_TOOL = ["no_tool"]


def score(answer: str, reference: Any) -> Score | Unscored:
    """1 when name and arguments (or the abstention) are right, else 0 with what differs; a bad reference is unscored.

    >>> right = {"name": "get_weather", "arguments": {"city": "Rome"}}
    >>> score('{"arguments": {"city": "Rome"}, "name": "get_weather"}', right).value
    1.0
    >>> score('{"name": "get_weather", "arguments": {"city": "Oslo"}}', right).because
    "argument 'city': 'Oslo' instead of 'Rome'"
    >>> score("no_tool", {"abstain": True}).value
    1.0
    """
    problem = _problem(reference)
    if problem:
        return Unscored(reason=f"tool_call: {problem}")
    because = _abstention(answer, reference) if "abstain" in reference else _call(answer, reference)
    return Score(value=0.0 if because else 1.0, answer=answer.strip() or None, because=because)


def _problem(reference: Any) -> str:
    """Why the reference cannot be read, or nothing."""
    expected = 'expected {"name": ..., "arguments": {...}} or {"abstain": true}'
    if not isinstance(reference, dict):
        return f"the reference is {type(reference).__name__}; {expected}"
    allowed = {"abstain", "accept"} if "abstain" in reference else {"name", "arguments"}
    unknown = sorted(str(key) for key in reference if key not in allowed)
    if unknown:
        return f"unknown key '{unknown[0]}' in the reference; {expected}"
    if "abstain" in reference:
        accept = reference.get("accept", NO_TOOL)
        if reference["abstain"] is not True:
            return f"'abstain' in the reference is not true; {expected}"
        fits = isinstance(accept, list) and accept and all(isinstance(one, str) and one.strip() for one in accept)
        return "" if fits else "'accept' in the reference is not a list of phrases"
    if not isinstance(reference.get("name"), str) or not isinstance(reference.get("arguments"), dict):
        return f"the reference has no name, or no arguments; {expected}"
    return ""


def _abstention(answer: str, reference: dict[str, Any]) -> str:
    if "{" in answer:
        return "calls a tool where none fits"
    accept = reference.get("accept", NO_TOOL)
    if any(re.search(rf"(?<!\w){re.escape(phrase.strip())}(?!\w)", answer, re.IGNORECASE) for phrase in accept):
        return ""
    return f"does not say {' or '.join(repr(phrase) for phrase in accept)}" if answer.strip() else "the answer is empty"


def _call(answer: str, reference: dict[str, Any]) -> str:
    try:
        name, arguments = called(answer)
    except NotJson as broken:
        return str(broken)
    if name != reference["name"]:
        return f"calls {name!r} instead of {reference['name']!r}"
    sentence = difference(arguments, reference["arguments"])
    return f"argument {sentence}" if sentence else ""


def called(answer: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the one call that an answer is. Raises NotJson with why it is none."""
    tagged = TAGGED.findall(answer)
    if len(tagged) > 1:
        raise NotJson(f"{len(tagged)} calls instead of one")
    call = read(tagged[0] if tagged else unfenced(answer))
    if isinstance(call, dict) and "tool_calls" in call:
        call = call["tool_calls"]
    if isinstance(call, list):
        if len(call) != 1:
            raise NotJson(f"{len(call)} calls instead of one")
        call = call[0]
    if isinstance(call, dict) and isinstance(call.get("function"), dict):
        call = call["function"]
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise NotJson("the JSON is not a call: it has no name")
    arguments = call.get("arguments", call.get("parameters"))  # as Llama's own templates call them
    if isinstance(arguments, str):
        arguments = read(arguments)
    if not isinstance(arguments, dict):
        raise NotJson("the call has no object of arguments")
    return call["name"].strip(), arguments


SCORER = score
