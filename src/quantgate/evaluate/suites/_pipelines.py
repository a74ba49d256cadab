"""Pipelines for the suite ``code_gen``: small steps over a list of ints or a string, their words, code and meaning.

A step knows three things that are written down apart: the words of the prompt, the code of the gold answer, and what it
does as a plain Python function. The expected outputs come from the function, so a scorer that runs the gold code and
agrees has checked one against the other.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Shape = Literal["numbers", "text", "words", "number"]


@dataclass(frozen=True)
class Step:
    """One kind of step. ``code`` is over ``{x}`` (one number) for filters and maps, else over ``{e}`` (the whole)."""

    name: str
    takes: Shape
    gives: Shape
    form: Literal["filter", "map", "whole"]
    code: str
    words: tuple[str, ...]
    run: Callable[[Any, Any], Any]  # value, constant -> value; ValueError where it is not defined
    draw: Callable[[random.Random], Any] | None = None  # its constant


@dataclass(frozen=True)
class Use:
    """A step with its constant."""

    step: Step
    k: Any = None

    @property
    def name(self) -> str:
        return self.step.name if self.k is None else f"{self.step.name} {self.k}"


def _between(low: int, high: int) -> Callable[[random.Random], int]:
    return lambda rng: rng.randint(low, high)


def _two_letters(rng: random.Random) -> str:
    return "".join(rng.sample(string.ascii_lowercase, 2))


def _letter(rng: random.Random) -> str:
    return rng.choice(string.ascii_lowercase)


def _filter(name: str, code: str, words: tuple[str, ...], keep: Callable[[int, Any], bool], k: Any = None) -> Step:
    return Step(name, "numbers", "numbers", "filter", code, words, lambda v, c: [x for x in v if keep(x, c)], k)


def _map(name: str, code: str, words: tuple[str, ...], to: Callable[[int, Any], int], k: Any = None) -> Step:
    return Step(name, "numbers", "numbers", "map", code, words, lambda v, c: [to(x, c) for x in v], k)


def _whole(
    takes: Shape,
    gives: Shape,
    name: str,
    code: str,
    words: tuple[str, ...],
    run: Callable[[Any, Any], Any],
    k: Any = None,
) -> Step:
    return Step(name, takes, gives, "whole", code, words, run, k)


FILTERS = (
    _filter("even", "{x} % 2 == 0", ("keep the even numbers", "keep only even numbers"), lambda x, k: x % 2 == 0),
    _filter("odd", "{x} % 2 == 1", ("keep the odd numbers", "keep only odd numbers"), lambda x, k: x % 2 == 1),
    _filter(
        "greater",
        "{x} > {k}",
        ("keep the numbers greater than {k}", "keep what is greater than {k}"),
        lambda x, k: x > k,
        _between(1, 20),
    ),
    _filter(
        "less",
        "{x} < {k}",
        ("keep the numbers less than {k}", "keep what is less than {k}"),
        lambda x, k: x < k,
        _between(1, 20),
    ),
    _filter(
        "divisible",
        "{x} % {k} == 0",
        ("keep the numbers divisible by {k}", "keep only numbers divisible by {k}"),
        lambda x, k: x % k == 0,
        _between(3, 9),
    ),
)
MAPS = (
    _map("add", "{x} + {k}", ("add {k} to each", "add {k} to each number"), lambda x, k: x + k, _between(1, 20)),
    _map(
        "subtract",
        "{x} - {k}",
        ("subtract {k} from each", "take {k} away from each"),
        lambda x, k: x - k,
        _between(1, 20),
    ),
    _map(
        "multiply",
        "{x} * {k}",
        ("multiply each by {k}", "multiply each number by {k}"),
        lambda x, k: x * k,
        _between(2, 9),
    ),
    _map("square", "{x} ** 2", ("square each", "square each number"), lambda x, k: x**2),
    _map("negate", "-{x}", ("negate each", "change the sign of each"), lambda x, k: -x),
)
LISTS = (
    _whole(
        "numbers", "numbers", "sort", "sorted({e})", ("sort them", "sort from small to large"), lambda v, k: sorted(v)
    ),
    _whole(
        "numbers",
        "numbers",
        "sort down",
        "sorted({e}, reverse=True)",
        ("sort from large to small", "sort them from large to small"),
        lambda v, k: sorted(v, reverse=True),
    ),
    _whole(
        "numbers", "numbers", "reverse", "{e}[::-1]", ("reverse the order", "reverse the list"), lambda v, k: v[::-1]
    ),
    _whole(
        "numbers",
        "numbers",
        "first",
        "{e}[:{k}]",
        ("take the first {k} numbers", "keep the first {k} numbers"),
        lambda v, k: v[:k],
        _between(2, 5),
    ),
    _whole(
        "numbers",
        "numbers",
        "last",
        "{e}[-{k}:]",
        ("take the last {k} numbers", "keep the last {k} numbers"),
        lambda v, k: v[-k:],
        _between(2, 5),
    ),
    _whole(
        "numbers",
        "numbers",
        "drop",
        "{e}[{k}:]",
        ("drop the first {k} numbers", "remove the first {k} numbers"),
        lambda v, k: v[k:],
        _between(1, 4),
    ),
    _whole(
        "numbers",
        "numbers",
        "unique",
        "sorted(set({e}))",
        ("drop duplicates and sort", "remove duplicates and sort them"),
        lambda v, k: sorted(set(v)),
    ),
)
LIST_ENDS = (
    _whole("numbers", "number", "sum", "sum({e})", ("sum them", "give the sum"), lambda v, k: sum(v)),
    _whole("numbers", "number", "max", "max({e})", ("take the largest", "give the largest"), lambda v, k: max(v)),
    _whole("numbers", "number", "min", "min({e})", ("take the smallest", "give the smallest"), lambda v, k: min(v)),
    _whole("numbers", "number", "count", "len({e})", ("count them", "count how many there are"), lambda v, k: len(v)),
)
TEXTS = (
    _whole(
        "text",
        "text",
        "upper",
        "{e}.upper()",
        ("make it upper case", "change it to upper case"),
        lambda v, k: v.upper(),
    ),
    _whole(
        "text",
        "text",
        "lower",
        "{e}.lower()",
        ("make it lower case", "change it to lower case"),
        lambda v, k: v.lower(),
    ),
    _whole("text", "text", "backwards", "{e}[::-1]", ("reverse it", "reverse the string"), lambda v, k: v[::-1]),
    _whole(
        "text",
        "text",
        "first",
        "{e}[:{k}]",
        ("take the first {k} characters", "keep the first {k} characters"),
        lambda v, k: v[:k],
        _between(2, 9),
    ),
    _whole(
        "text",
        "text",
        "last",
        "{e}[-{k}:]",
        ("take the last {k} characters", "keep the last {k} characters"),
        lambda v, k: v[-k:],
        _between(2, 9),
    ),
    _whole(
        "text",
        "text",
        "drop",
        "{e}[{k}:]",
        ("drop the first {k} characters", "remove the first {k} characters"),
        lambda v, k: v[k:],
        _between(1, 6),
    ),
    _whole(
        "text",
        "text",
        "replace",
        '{e}.replace("{k[0]}", "{k[1]}")',
        ('replace "{k[0]}" by "{k[1]}"', 'change each "{k[0]}" to "{k[1]}"'),
        lambda v, k: v.replace(k[0], k[1]),
        _two_letters,
    ),
    _whole(
        "text",
        "text",
        "no spaces",
        '{e}.replace(" ", "")',
        ("remove all spaces", "drop all spaces"),
        lambda v, k: v.replace(" ", ""),
    ),
    _whole(
        "text",
        "text",
        "strip",
        "{e}.strip()",
        ("strip both ends", "strip the spaces at both ends"),
        lambda v, k: v.strip(),
    ),
)
SPLIT = _whole(
    "text", "words", "split", "{e}.split()", ("split it into words", "split it at spaces"), lambda v, k: v.split()
)
WORDS = (
    _whole("words", "words", "sort", "sorted({e})", ("sort the words", "sort them"), lambda v, k: sorted(v)),
    _whole(
        "words",
        "words",
        "reverse",
        "{e}[::-1]",
        ("reverse the order of the words", "reverse the list of words"),
        lambda v, k: v[::-1],
    ),
    _whole(
        "words",
        "words",
        "first words",
        "{e}[:{k}]",
        ("take the first {k} words", "keep the first {k} words"),
        lambda v, k: v[:k],
        _between(1, 4),
    ),
    _whole(
        "words",
        "words",
        "last words",
        "{e}[-{k}:]",
        ("take the last {k} words", "keep the last {k} words"),
        lambda v, k: v[-k:],
        _between(1, 4),
    ),
)
JOIN = _whole(
    "words",
    "text",
    "join",
    '"{k}".join({e})',
    ('join the words with "{k}"', 'join them with "{k}"'),
    lambda v, k: k.join(v),
    lambda rng: rng.choice("-_+,;:"),
)
TEXT_ENDS = (
    _whole(
        "text",
        "number",
        "count letter",
        '{e}.count("{k}")',
        ('count the letter "{k}"', 'count how often "{k}" is in it'),
        lambda v, k: v.count(k),
        _letter,
    ),
    _whole(
        "text",
        "number",
        "length",
        "len({e})",
        ("count the characters", "give its length"),
        lambda v, k: len(v),
    ),
)
WORD_ENDS = (
    _whole(
        "words",
        "number",
        "count words",
        "len({e})",
        ("count the words", "count how many words there are"),
        lambda v, k: len(v),
    ),
)


def run(uses: list[Use], value: Any) -> Any:
    """The pipeline's value; raises ValueError where a step is not defined (the largest of nothing)."""
    for use in uses:
        value = use.step.run(value, use.k)
    return value


def code_of(uses: list[Use], variable: str) -> str:
    """The gold expression: neighboring filters, then maps, share one comprehension; all else nests."""
    whole, item, tests = variable, "x", list[str]()

    def closed() -> str:
        if item == "x" and not tests:
            return whole
        return f"[{item} for x in {whole}{' if ' + ' and '.join(tests) if tests else ''}]"

    for use in uses:
        if use.step.form == "map":
            item = use.step.code.format(x=item if item == "x" else f"({item})", k=use.k)
        elif use.step.form == "filter":
            if item != "x":
                whole, item, tests = closed(), "x", []
            tests.append(use.step.code.format(x="x", k=use.k))
        else:
            whole, item, tests = use.step.code.format(e=closed(), k=use.k), "x", []
    return closed()


def words_of(rng: random.Random, uses: list[Use]) -> str:
    steps = [rng.choice(use.step.words).format(k=use.k) for use in uses]
    return ", ".join(steps[:-1]) + ", then " + steps[-1]
