"""correction: the user's turn after an answer says that it was wrong; thanks that begin with a no say the opposite."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.watch.signals.made import read

from quantgate.manner.rules import fold
from quantgate.watch import Message, Talk
from quantgate.watch.signals._corrections import DENIED, TOLD
from quantgate.watch.signals.correction import mark

HERE = Path(__file__).parent / "corrections"
LANGUAGES = sorted(path.stem for path in HERE.glob("*.txt"))


def after(text: str, answer: str = "The answer is 42.") -> float | None:
    return mark(talk("What is it?", answer, text))


def talk(*turns: str) -> Talk:
    return Talk([{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(turns)], [])


def sentences(language: str) -> list[tuple[float, str]]:
    lines = (HERE / f"{language}.txt").read_text(encoding="utf-8").splitlines()
    return [({"-": 1.0, "+": 0.0}[line[0]], line[2:]) for line in lines]


def test_every_language_has_its_sentences() -> None:
    assert set(LANGUAGES) == set(DENIED) == set(TOLD)
    for language in LANGUAGES:
        values = [value for value, _ in sentences(language)]
        assert values.count(1.0) >= 8 and values.count(0.0) >= 8, language


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_get_their_mark(language: str) -> None:
    assert [text for value, text in sentences(language) if after(text) != value] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_hint_stands_in_all_that_a_pattern_matches(language: str) -> None:
    for one in (DENIED[language], TOLD[language]):
        for _, text in sentences(language):
            assert one.match(fold(text)) == any(clause.pattern.search(fold(text)) for clause in one.clauses), text


def test_only_a_turn_of_the_user_after_an_answer_counts() -> None:
    assert mark(talk("No, that's wrong.")) is None
    assert mark(talk("What is it?", "42")) is None
    assert mark(talk("What is it?", "", "That's wrong.")) is None
    assert mark(talk("What is it?", "42", " ")) is None
    assert mark(Talk([], [])) is None
    asked: list[Message] = [{"role": "user", "content": "a"}, {"role": "user", "content": "That's wrong."}]
    assert mark(Talk(asked, [])) is None
    called: list[Message] = [*talk("Is it?", "Yes.", "That's wrong.").prompt, {"role": "tool", "content": "12"}]
    assert mark(Talk(called, [])) is None


def test_a_no_to_a_question_is_an_answer_to_it() -> None:
    for question in ("Shall I book it?", "要预订吗？", "هل أحجز؟", "**Shall I book it?**"):
        assert after("No.", question) == 0.0
    assert after("No, the window seat.", "Shall I book the aisle?") == 0.0
    assert after("No.", "I booked it.") == 1.0
    assert after("That's not what I asked.", "Shall I book it?") == 1.0


def test_what_the_user_quotes_or_writes_later_is_not_said_of_the_answer() -> None:
    assert after('Translate "that is wrong" into French.') == 0.0
    assert after("Why does it print `wrong answer`?") == 0.0
    assert after("Summarize this letter. " + "It is about a garden. " * 12 + "That is wrong.") == 0.0


def test_parts_of_text_are_read_and_a_picture_alone_is_not() -> None:
    turns = list(talk("What is it?", "42").prompt)
    parts = [{"type": "text", "text": "That's wrong."}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    assert mark(Talk([*turns, {"role": "user", "content": parts}], [])) == 1.0
    assert mark(Talk([*turns, {"role": "user", "content": parts[1:]}], [])) is None


@given(st.text(max_size=300), st.text(max_size=50))
def test_any_turn_has_a_mark(text: str, answer: str) -> None:
    assert after(text, answer) in (None, 0.0, 1.0)


def test_it_is_read_from_its_mark() -> None:
    assert read("correction", marks={"correction": 1.0}) == 1.0
    assert read("correction") is None
