"""Overlap: what is the same item is found however it was changed, and what only looks like it does not block."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.errors import DataError, Overlap, UsageError
from quantgate.evaluate.overlap import Overlaps, Sample, find, refuse
from quantgate.evaluate.overlap.traffic import read_samples
from quantgate.evaluate.suites import Case, Message

LONG = "The baker of Lyon sold forty loaves before noon, gave six to the school kitchen and kept the burnt ones herself"


def case(text: str, name: str = "a", **more: Any) -> Case:
    messages = more.pop("messages", (Message(role="user", content=text),))
    fields = {"suite": "support", "scorer": "exact", "reference": "yes"} | more
    return Case(id=name, messages=messages, **fields)


def samples(*turns: Any) -> list[Sample]:
    return [Sample(at, one) for at, one in enumerate(turns, 1)]


def asked(text: str) -> tuple[tuple[str, str]]:
    return (("user", text),)


OTHERS = [case(f"Question {at} about subject number {at * 37}?", f"o{at}") for at in range(6)]


def items(found: Overlaps) -> set[tuple[int, str]]:
    return {(pair.sample, pair.case) for pair in found.blocking}


@pytest.mark.parametrize(
    "sample",
    [
        (("user", "Is it open?"),),
        (("user", "Is it open?"), ("assistant", "yes")),
        (("user", " IS it\topen\uff1f"),),  # a full-width question mark is the same character to NFKC
        (("user", "Is it open?"), ("assistant", "yes"), ("user", "Until when?"), ("assistant", "six")),
    ],
)
def test_sample_that_is_a_gate_case_is_refused_with_both_named(sample: Any) -> None:
    found = find(samples(asked("Hello"), sample), [case("Is it open?"), *OTHERS])
    with pytest.raises(Overlap) as told:
        refuse(found, "overlap.json")
    assert str(told.value).startswith("calibration overlaps with the gate: sample 2 ('")
    assert str(told.value).endswith(
        "is 'a' of support (the same conversation), all listed in overlap.json; a gate must ask what calibration has "
        "not seen: remove them from one of the two, or name what you accept under calibration: allow_overlap"
    )


@pytest.mark.parametrize(
    "sample",
    [
        (("user", "Is it open today?"),),
        (("system", "Be brief."), ("user", "Is it open?")),  # so short a question is nobody's
        (("user", "Hello"), ("assistant", "Is it open?")),
    ],
)
def test_other_samples_do_not_overlap(sample: Any) -> None:
    assert find(samples(sample), [case("Is it open?"), *OTHERS]).items == 0


def test_question_is_found_behind_another_system_prompt_and_inside_a_longer_one() -> None:
    told = samples((("system", "Be brief."), ("user", LONG)), asked(f"Tell me. {LONG}. What is it worth?"))
    assert items(find(told, [case(LONG), *OTHERS])) == {(1, "a"), (2, "a")}


def test_typing_errors_do_not_hide_a_case() -> None:
    typed = LONG.replace("baker", "bakker").replace("loaves", "loavs").replace("kitchen", "kichen")
    found = find(samples(asked(typed)), [case(LONG), *OTHERS])
    assert items(found) == {(1, "a")}
    assert found.pairs[0].check in ("minhash", "n-gram")


def test_same_words_about_other_numbers_are_one_source_and_do_not_block() -> None:
    text = "A train leaves the station of Bern at {} and drives {} kilometers at a speed of {} until it stops at night"
    found = find(samples(asked(text.format(815, 420, 95))), [case(text.format(640, 377, 88)), *OTHERS])
    assert (found.items, found.sources) == (0, 1)
    assert "other numbers" in found.pairs[0].because


def test_template_of_a_suite_counts_for_nothing() -> None:
    preamble = (
        "You are asked by a customer of the northern branch. Answer in one short and friendly sentence, please.\n"
    )
    cases = [case(f"{preamble}Where is the {what}?", what) for what in ("bank", "shop", "lake", "park", "mill", "inn")]
    assert find(samples(asked(f"{preamble}Who is your director?")), cases).pairs == ()


def test_examples_that_a_suite_shows_are_held_against_its_cases() -> None:
    shown = (Message(role="user", content=LONG), Message(role="assistant", content="thirty"))
    own = [
        case("", f"c{at}", messages=(*shown, Message(role="user", content=f"Question {at} of {at * 31}?")))
        for at in range(5)
    ]
    found = find([], [*own, case(LONG, "leaked")])
    assert items(found) == {(0, "leaked")}
    assert "an example shown with the cases" in found.pairs[0].sentence


def test_what_is_allowed_by_name_is_counted_and_does_not_block() -> None:
    cases = [case(LONG), *OTHERS]
    found = find(samples(asked(LONG)), cases, allowed=["support/a"])
    assert (found.items, found.allowed, found.pairs) == (0, 1, ())
    assert find(samples(asked(LONG)), cases, allowed=["support"]).items == 0
    with pytest.raises(UsageError, match="'support/b' is no suite and no case"):
        find(samples(asked(LONG)), cases, allowed=["support/b"])


CODE = """def total(xs, limit):
    result = 0
    for x in xs:
        if x < limit:
            result += x * x
    return result
"""


def test_renamed_function_is_the_same_function_and_another_one_is_not() -> None:
    problem = case("Write a function that adds the squares below a limit.", reference={"code": CODE})
    names = {"total": "f", "xs": "values", "limit": "top", "result": "acc"}
    renamed = CODE
    for old, new in names.items():
        renamed = renamed.replace(old, new)
    documented = renamed.replace("top):\n", 'top: int) -> int:\n    """Add squares."""\n')
    other = renamed.replace("x * x", "x + x")
    text = "Please look at this.\n```python\n{}```"
    found = find(samples(*(asked(text.format(one)) for one in (renamed, documented, other))), [problem, *OTHERS])
    assert [(pair.sample, pair.check) for pair in found.blocking] == [(1, "code"), (2, "code")]


def test_traffic_file_is_read_with_its_tools_and_a_broken_line_is_numbered(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "completion": "b"},
        {"question": "c"},
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "d"}]}, {"role": "assistant"}],
            "tools": [{"type": "function", "function": {"name": "f"}}],
        },
    ]
    path = tmp_path / "traffic.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second, third = read_samples(path)
    assert first.turns == (("user", "a"), ("assistant", "b"))
    assert second.turns == (("user", "c"),)
    assert (third.turns, len(third.tools)) == ((("user", "d"), ("assistant", "")), 1)
    path.write_text('{"prompt": "a"}\n{"text": "a"}\n')
    with pytest.raises(DataError, match="line 2: expected 'messages'"):
        list(read_samples(path))
    path.write_text("\n")
    with pytest.raises(DataError, match="holds no conversation"):
        list(read_samples(path))


TEXTS = st.text(min_size=1, max_size=200)


@given(st.lists(TEXTS, min_size=1, max_size=6, unique=True), st.data())
def test_whatever_a_case_asks_is_found_again_word_for_word(texts: list[str], data: st.DataObject) -> None:
    cases = [case(text, f"c{at}") for at, text in enumerate(texts)]
    at = data.draw(st.integers(0, len(texts) - 1))
    assert find(samples(asked(texts[at])), cases).items == 1


@given(st.lists(TEXTS, max_size=8), st.lists(TEXTS, min_size=1, max_size=8, unique=True))
def test_counts_and_pairs_tell_the_same_story(traffic: list[str], texts: list[str]) -> None:
    found = find(samples(*map(asked, traffic)), [case(text, f"c{at}") for at, text in enumerate(texts)])
    assert found.items == len({pair.sample for pair in found.blocking})
    assert found.samples == len(traffic) and found.cases == len(texts)
    assert all(1 <= pair.sample <= len(traffic) for pair in found.pairs)
