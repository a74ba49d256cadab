"""What a demand on an answer may cost, before anything is compiled, and what an answer may."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """All are upper bounds; what is beyond one is refused with a sentence that names it."""

    schema_bytes: int = 131_072  # of one schema, as compact JSON
    schema_depth: int = 64  # brackets within brackets
    branches: int = 4_096  # of anyOf, oneOf and allOf at one place, multiplied
    patterns: int = 200  # different regular expressions
    tools: int = 128
    compile_s: float = 0.25  # for all schemas of a request
    depth: int = 128  # of an answer's brackets
    whitespace: int = 256  # blanks in a run, between the tokens of an answer's JSON
    remembered: int = 512  # contracts kept compiled
    remembered_bytes: int = 4_194_304  # of their demands as JSON; compiled they take some twenty times as much


DEFAULT = Limits()
