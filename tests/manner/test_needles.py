"""What is looked for before a pattern is tried stands in all that it matches, and many rules at once find the first."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.manner import abroad, english
from quantgate.manner.needles import divided, needles
from quantgate.manner.rules import Bank, Clause, rules
from quantgate.watch.signals import _corrections, _harms

EVERY = {
    **english.NAMED,
    **abroad.REFUSALS,
    **{f"denied {name}": one for name, one in _corrections.DENIED.items()},
    **{f"told {name}": one for name, one in _corrections.TOLD.items()},
    **_harms.HARMS,
}
CLAUSES = [clause for one in EVERY.values() for clause in one.clauses]


@given(st.data())
def test_needles_stand_in_whatever_a_pattern_matches(data: st.DataObject) -> None:
    clause = data.draw(st.sampled_from(CLAUSES))
    text = data.draw(st.from_regex(clause.pattern, alphabet=st.characters(codec="utf-8")))
    assert clause.match(text)


def test_nearly_every_pattern_has_something_to_look_for() -> None:
    assert sum(not one.needles for one in CLAUSES) <= len(CLAUSES) // 50


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("abc", (("abc",),)),
        ("ab?c", (("ac", "abc"),)),
        ("ab*c", (("a",), ("c",))),
        ("ab+c", (("a",), ("b",))),
        (r"\w+", ()),
        ("a|b*", ()),
        ("[ab]c", (("ac", "bc"),)),
        ("[^a]c", (("c",),)),
        ("[a-z]c", (("c",),)),
        ("(?!not)yes(?= sir)", (("yes",),)),
        ("(?:one|two) (?:three|x+)", (("one ", "two "), ("x", "three"))),
        ("a{2}", (("a",),)),
        ("a{2,5}b", (("a",), ("b",))),
        ("(?i:abc)d", (("d",),)),
    ],
)
def test_needles_of_small_patterns(pattern: str, found: tuple[tuple[str, ...], ...]) -> None:
    assert set(needles(pattern)) == set(found)


@pytest.mark.parametrize("pattern", ["(?i)a|b", "(a)|b", "(?P<x>a)|(?P=x)", "(?i:a)|b", "(?x) a | b"])
def test_a_pattern_whose_parts_need_each_other_is_not_divided(pattern: str) -> None:
    assert divided(pattern) == []
    assert rules("", pattern).clauses == (Clause((), re.compile(pattern)),)


@pytest.mark.parametrize("pattern", [r"a\|b|c", "[]|]|c", "[^]|]|c", "(?:a|b)|c", r"[\]|]|c"])
def test_only_an_outer_bar_divides(pattern: str) -> None:
    assert len(divided(pattern)) == 2 and divided(pattern)[1] == "c"


WORDS = [
    "ich kann",
    "nicht",
    "i can't",
    "no",
    "не могу",
    "我",
    "无法",
    "ai",
    "kill",
    "how do i",
    "a",
    "\ud800",
    "that is wrong",
]


@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=9), max_size=9), st.sampled_from(["", " ", ", "]))
def test_many_rules_at_once_find_what_one_after_the_other_does(parts: list[str], blank: str) -> None:
    text = blank.join(parts)
    one_by_one = (
        name
        for name, one in EVERY.items()
        if any(hint in text for hint in one.hints) and any(clause.pattern.search(text) for clause in one.clauses)
    )
    assert BANK.first(text) == next(one_by_one, None)


BANK = Bank(EVERY)
