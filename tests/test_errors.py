"""Errors are one sentence, and each stands for an exit code."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate import errors

ALL = [one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, errors.QuantgateError)]


def test_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn: list[tuple[str, str | None]] = []
    above: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        name = line.lstrip(" |`-").partition(" ")[0]
        if line.startswith("    ") and name:
            depth = (len(line) - len(line.lstrip(" |`-"))) // 4
            drawn.append((name, above.get(depth - 1)))
            above[depth] = name
    assert set(drawn) == {
        (one.__name__, None if one is errors.QuantgateError else one.__mro__[1].__name__) for one in ALL
    }


def test_exit_codes_are_those_of_the_drawing() -> None:
    assert {one.__name__: one.exit_code for one in ALL if one.exit_code != 4} == {
        "UsageError": 2,
        "UnknownName": 2,
        "MissingExtra": 2,
        "SchemaRefused": 2,
        "WrongBytes": 1,
        "Unsupported": 1,
        "NotPromoted": 1,
        "NoCapacity": 1,
        "Moved": 1,
        "SignatureError": 1,
        "Stopped": 130,
    }


def test_unknown_name_tells_where_and_the_nearest_known() -> None:
    error = errors.UnknownName("method", "gtpq", ["rtn", "gptq"], where="release.yaml")
    assert str(error) == "release.yaml: unknown method 'gtpq'; did you mean 'gptq'? Known: gptq, rtn"
    assert (error.name, error.known) == ("gtpq", ["gptq", "rtn"])


@pytest.mark.parametrize(
    ("name", "known", "sentence"),
    [
        ("maths", ["math", "chat"], "did you mean 'math'? Known: math, chat"),
        ("zzzz", ["math", "chat"], "Known: math, chat"),
        ("math", [], "none are known"),
    ],
)
def test_hint_guesses_only_what_is_near(name: str, known: list[str], sentence: str) -> None:
    assert errors.hint(name, known) == sentence


@given(st.lists(st.text("abcdefgh_", min_size=4, max_size=12), min_size=1, max_size=6, unique=True), st.data())
def test_a_name_with_one_letter_lost_is_answered_with_a_near_one(known: list[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(known))
    place = data.draw(st.integers(0, len(name) - 1))
    assert "did you mean" in errors.hint(name[:place] + name[place + 1 :], known)
