"""json_schema: the answer is one JSON value that a schema allows.

The reference is ``{"schema": {...}}`` with any JSON schema (draft 2020-12 where ``$schema`` names none), and optionally
``equals``: the value itself, compared as ``tool_call`` compares arguments. A schema that points elsewhere is a bad
reference: nothing is fetched.
"""

from __future__ import annotations

from typing import Any

import jsonschema_rs

from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.scorers._json import NotJson, difference, read, unfenced


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
        validator = jsonschema_rs.validator_for(reference["schema"], retriever=_refuse)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, TypeError) as bad:
        return Unscored(reason=f"json_schema: the schema cannot be used: {str(bad).splitlines()[0]}")
    because = _because(answer, validator, reference)
    return Score(value=0.0 if because else 1.0, answer=answer.strip() or None, because=because)


def _refuse(address: str) -> Any:
    raise ValueError(f"it points to {address}, and nothing is fetched")


def _because(answer: str, validator: Any, reference: dict[str, Any]) -> str:
    try:
        value = read(unfenced(answer))
        problem = next(iter(validator.iter_errors(value)), None)
    except NotJson as broken:
        return str(broken)
    except ValueError as unfit:  # a number or a depth that the validator does not take
        return f"the JSON cannot be checked: {unfit}"
    if problem is not None:
        path = ".".join(str(part) for part in problem.instance_path)
        return f"'{path}': {problem.message}" if path else str(problem.message)
    return difference(value, reference["equals"]) if "equals" in reference else ""


SCORER = score
