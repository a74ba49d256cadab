"""json_schema: the answer is one JSON value that a schema allows, by the check that the gateway guards with.

The reference is ``{"schema": {...}}`` with any JSON schema (draft 2020-12 where ``$schema`` names none), and optionally
``equals``: the value itself, compared as ``tool_call`` compares arguments. A schema that points elsewhere, or that the
gateway would refuse, is a bad reference: nothing is fetched.
"""

from __future__ import annotations

from typing import Any

from quantgate.errors import SchemaRefused
from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.scorers._json import difference, read, unfenced
from quantgate.guard.limits import Limits
from quantgate.guard.schemas import Schema

PATIENT = Limits(compile_s=60.0)  # a busy machine may not make a case unscored


def score(answer: str, reference: Any) -> Score | Unscored:
    """1 when the answer's JSON keeps the schema, else 0 with the first violated path; a bad schema is unscored.

    >>> schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    >>> score('{"age": 7}', {"schema": schema}).value
    1.0
    >>> score('{"age": "7"}', {"schema": schema}).because
    '\\'age\\': "7" is not of type "integer"'
    """
    if not isinstance(reference, dict) or "schema" not in reference or set(reference) - {"schema", "equals"}:
        return Unscored(reason='json_schema: the reference is not {"schema": {...}} with an optional equals')
    try:
        schema = Schema(reference["schema"], "schema", PATIENT)
    except SchemaRefused as bad:
        return Unscored(reason=f"json_schema: the schema cannot be used: {bad}")
    text = unfenced(answer)
    fault = schema.fault(text, "answer")
    because = fault.sentence if fault else ""
    if not because and "equals" in reference:
        because = difference(read(text), reference["equals"])
    return Score(value=0.0 if because else 1.0, answer=answer.strip() or None, because=because)


SCORER = score
