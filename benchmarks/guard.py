"""What the guard's checks cost a request: the demand, each piece of an answer, the whole; llguidance beside them.

One answer of each schema is cut into pieces of four characters, and each piece is timed alone, with ours and with
llguidance over a vocabulary of bytes in turns. The keys come in the order of the schema, which llguidance demands.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from benchmarks.result import Result
from quantgate.guard.admission import Admission
from quantgate.guard.prefix import Reader
from quantgate.guard.schemas import Schema

ROUNDS, PIECE = 60, 4
MEDIAN_US, LATE_US = 10.0, 100.0
TEXT = 'the answer is made of plain words with a few ümläuts, "quotes" and\nlines. '
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "maximum": 150},
        "kind": {"enum": ["cat", "dog"]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def run() -> list[Result]:
    schemas = [(schema, json.dumps(value, ensure_ascii=False)) for schema, value in _pairs()]
    ours, theirs = _pieces(schemas)
    return [*_demands(schemas), *_rows("a piece of 4 characters", ours, targets=True),
            *_rows("for comparison: the same by llguidance, keys in order", theirs), *_wholes(schemas)]  # fmt: skip


def _pairs() -> list[tuple[Any, Any]]:
    """Schemas of growing size, and a value that each allows."""
    found: list[tuple[Any, Any]] = []
    for size in range(1, 9):
        text = TEXT * size
        schema = {
            "type": "object",
            "properties": {
                f"field_{n}": [{"type": "string"}, {"type": "number"}, PERSON][n % 3] for n in range(3 * size)
            }
            | {"list": {"type": "array", "items": {"anyOf": [PERSON, {"type": "null"}]}}},
            "required": ["list"],
            "additionalProperties": False,
        }
        one = {"name": text, "age": 33, "kind": "dog"}
        value = {f"field_{n}": [text, n + 0.25, one][n % 3] for n in range(3 * size)} | {"list": [one, None, one]}
        found.append((schema, value))
    return found


def _pieces(schemas: list[tuple[Any, str]]) -> tuple[list[int], list[int]]:
    """Nanoseconds of every piece, ours and llguidance's, in turns."""
    ours: list[int] = []
    theirs: list[int] = []
    for raw, text in schemas:
        schema, start = Schema(raw, "benchmark"), _matcher(raw)
        pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
        for turn in range(ROUNDS):
            for mine in (True, False) if turn % 2 else (False, True):
                if mine:
                    ours += _timed(schema.prefix("content"), pieces)
                else:
                    theirs += _timed_bytes(start.deep_copy(), pieces)
    return ours, theirs


def _timed(reader: Reader, pieces: list[str]) -> list[int]:
    found = []
    for piece in pieces:
        began = time.perf_counter_ns()
        fault = reader.feed(piece)
        found.append(time.perf_counter_ns() - began)
        if fault is not None:
            raise SystemExit(f"guard: the answer that is timed has a fault: {fault.sentence}")
    return found


def _timed_bytes(matcher: Any, pieces: list[str]) -> list[int]:
    found = []
    for piece in pieces:
        began = time.perf_counter_ns()
        passed = matcher.consume_tokens(list(piece.encode()))
        found.append(time.perf_counter_ns() - began)
        if not passed:
            raise SystemExit(f"guard: llguidance refuses the answer that is timed: {matcher.get_error()}")
    return found


def _matcher(schema: Any) -> Any:
    """llguidance's matcher of a schema over 256 bytes and an end."""
    from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

    class Bytes:
        eos_token_id, bos_token_id = 256, None
        tokens = [bytes([one]) for one in range(256)] + [b"<end>"]
        special_token_ids = [256]

        def __call__(self, text: bytes | str) -> list[int]:
            return list(text if isinstance(text, bytes) else text.encode())

    tokens = LLTokenizer(TokenizerWrapper(Bytes()), n_vocab=257)
    return LLMatcher(tokens, LLMatcher.grammar_from_json_schema(schema), log_level=0)


def _rows(what: str, times: list[int], *, targets: bool = False) -> list[Result]:
    times = sorted(times)
    median, late = times[len(times) // 2] / 1000, times[int(0.99 * len(times))] / 1000
    if not targets:
        return [Result(f"{what}: median; 99th percentile", f"{median:.1f} us; {late:.1f} us")]
    return [
        Result(f"{what}: median of {len(times)}", f"{median:.1f} us", f"at most {MEDIAN_US:g} us", median <= MEDIAN_US),
        Result(f"{what}: 99th percentile", f"{late:.1f} us", f"at most {LATE_US:g} us", late <= LATE_US),
    ]


def _demands(schemas: list[tuple[Any, str]]) -> list[Result]:
    bodies = [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": raw}}} for raw, _ in schemas
    ]
    first, again = list[float](), list[float]()
    admission = Admission()
    for body in bodies:
        first.append(_once(lambda body=body: admission.admit(body)))  # type: ignore[misc]
        again.append(_each(lambda body=body: admission.admit(body)))  # type: ignore[misc]
    matchers = [_once(lambda raw=raw: _matcher(raw)) for raw, _ in schemas]  # type: ignore[misc]
    low, high = len(json.dumps(schemas[0][0])), len(json.dumps(schemas[-1][0]))
    sizes = f"schemas of {low:,} to {high:,} bytes"
    return [
        Result(f"a new demand, admitted and compiled: {sizes}", f"{min(first):.0f} to {max(first):.0f} us"),
        Result("the same demand again", f"{min(again):.1f} to {max(again):.1f} us"),
        Result(
            "for comparison: llguidance compiles the same, with its vocabulary",
            f"{min(matchers):.0f} to {max(matchers):.0f} us",
        ),
    ]


def _wholes(schemas: list[tuple[Any, str]]) -> list[Result]:
    rows = []
    for raw, text in (schemas[0], schemas[-1]):
        schema = Schema(raw, "benchmark")
        took = _each(lambda schema=schema, text=text: schema.fault(text, "content"))  # type: ignore[misc]
        rows.append(Result(f"the whole check of an answer of {len(text):,} characters", f"{took:.1f} us"))
    return rows


def _once(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return 1e6 * (time.perf_counter() - began)


def _each(work: Callable[[], Any], times: int = 500) -> float:
    return min(_once(lambda: [work() for _ in range(times)]) / times for _ in range(3))
