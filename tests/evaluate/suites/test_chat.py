"""chat: gold answers keep every instruction, spoiled ones do not, identities carry no wording."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest

from quantgate.evaluate import suites
from quantgate.evaluate.scorers import Score
from quantgate.evaluate.scorers.instructions import score
from quantgate.evaluate.suites import Difficulty, Draft, Role, chat

LEVELS: tuple[Difficulty, ...] = ("default", "hard")


def drawn(level: Difficulty, count: int = 2000) -> list[Draft]:
    rng = random.Random(5)
    return [chat.draw(rng, level) for _ in range(count)]


def value_of(answer: str, draft: Draft) -> float:
    made = score(answer, draft.reference)
    assert isinstance(made, Score)
    return made.value


@pytest.mark.parametrize("level", LEVELS)
def test_the_gold_answer_keeps_every_instruction(level: Difficulty) -> None:
    for draft in drawn(level, 4000):
        assert value_of(draft.answer, draft) == 1.0, draft
        assert draft.answer == draft.answer.strip()


@pytest.mark.parametrize("level", LEVELS)
def test_degenerate_answerers_fail(level: Difficulty) -> None:
    made = drawn(level, 1000)
    for answer in ("", "abc", "The fox is nice.", "dog, cat"):
        assert sum(value_of(answer, draft) for draft in made) / len(made) < 0.05
    assert sum(value_of(draft.messages[-1][1], draft) for draft in made) / len(made) < 0.05


@pytest.mark.parametrize("level", LEVELS)
def test_an_answer_with_a_word_too_many_or_in_other_capitals_fails(level: Difficulty) -> None:
    for draft in drawn(level):
        names = {check["check"] for check in draft.reference["checks"]}
        assert value_of(draft.answer + " also", draft) == 0.0
        assert value_of("Answer: " + draft.answer, draft) == 0.0
        if names & {"all_upper", "all_lower"}:
            assert value_of(draft.answer.swapcase(), draft) == 0.0
        if draft.answer[0] in '[("' and names & {"wrapped", "quoted"}:
            assert value_of(draft.answer[1:-1], draft) == 0.0


@pytest.mark.parametrize("level", LEVELS)
def test_every_task_and_number_of_constraints_occurs(level: Difficulty) -> None:
    made = drawn(level)
    tasks = Counter(draft.slices["task"] for draft in made)
    assert {task: count / len(made) for task, count in tasks.items()} == pytest.approx(chat.TASKS, abs=0.04)
    assert {draft.slices["constraints"] for draft in made} == ({"3"} if level == "hard" else {"1", "2"})


@pytest.mark.parametrize("level", LEVELS)
def test_the_words_of_the_answer_stand_in_the_prompt(level: Difficulty) -> None:
    for draft in drawn(level):
        if draft.slices["task"] != "sentence":
            asked = set(re.findall(r"\w+", draft.messages[-1][1].casefold()))
            assert set(re.findall(r"[a-z]+", draft.answer.casefold())) <= asked


@pytest.mark.parametrize("level", LEVELS)
def test_a_problem_has_one_answer_in_all_its_wordings(level: Difficulty) -> None:
    prompts: dict[str, set[str]] = defaultdict(set)
    answers: dict[str, set[str]] = defaultdict(set)
    for draft in drawn(level, 10000):
        prompts[draft.identity].add(draft.messages[0][1])
        answers[draft.identity].add(draft.answer)
    assert all(len(group) == 1 for group in answers.values())
    assert sum(len(group) > 1 for group in prompts.values()) > 50


@pytest.mark.parametrize("level", LEVELS)
def test_there_are_enough_different_problems_for_every_split(level: Difficulty) -> None:
    assert len({draft.identity for draft in drawn(level, 26000)}) >= 20000
    for split in suites.SPLITS:
        assert len(suites.cases("chat", split, 400, difficulty=level)) == 400


def test_no_word_belongs_to_two_kinds() -> None:
    assert len(set(chat.ALL)) == len(chat.ALL) == 72
    assert not set(chat.ALL) & set(chat.EXTRA)


@pytest.mark.parametrize("number", sorted(chat.FRAMES))
def test_a_frame_has_as_many_words_as_it_says_and_the_second_has_no_e(number: int) -> None:
    for frame in chat.FRAMES[number]:
        assert len(frame.split()) == number
    assert "e" not in re.sub(r"\{\w+\}", "", chat.FRAMES[number][1]).casefold()
    assert not [word for word in (*chat.NO_E_NOUNS, *chat.NO_E_ADJECTIVES) if "e" in word]


def conversations(about: str) -> Iterator[list[tuple[Role, str]]]:
    """Those whose first question has the words ``about``; with "", those on one list."""
    forms = ("Write only the", "Write them all.")
    for seed in range(180):
        turns = chat.draw_many(random.Random(seed), 5)
        assert [role for role, _ in turns] == ["user", "assistant"] * 5
        if about in turns[0][1] if about else not any(form in turns[0][1] for form in forms):
            yield turns


def test_conversations_about_kinds_of_words_name_them_all_and_no_other() -> None:
    count = 0
    for turns in conversations("Write only the"):
        for (_, question), (_, answer) in zip(turns[::2], turns[1::2], strict=True):
            found = re.match(r"(?:Words: )?(.+?)(?:\. Write only the |: )(\w+)", question)
            assert found is not None
            kind = chat.WORDS[found[2]]
            assert answer.split(", ") == [word for word in found[1].split(", ") if word.lower() in kind]
            count += 1
    assert count > 150


def test_conversations_about_capitals_change_nothing_else() -> None:
    count = 0
    for turns in conversations("Write them all."):
        for (_, question), (_, answer) in zip(turns[::2], turns[1::2], strict=True):
            listed = question.removeprefix("Words: ").partition(".")[0]
            assert answer in (listed.upper(), listed.lower()) and answer != listed
            count += 1
    assert count > 150


def test_conversations_ask_for_operations_that_no_case_has_alone() -> None:
    asked = set[str]()
    for turns in conversations(""):
        listed = turns[0][1].removeprefix("Words: ").partition(".")[0].split(", ")
        for (_, question), (_, answer) in zip(turns[::2], turns[1::2], strict=True):
            items = answer.split(", ")
            assert set(items) <= set(listed)
            if "last to first" in question or "Reverse" in question:
                assert items == listed[::-1]
            if "Sort" in question:
                assert items == sorted(listed)
            if "Write the first" in question:
                assert items == listed[: len(items)] and chat.COUNTS[len(items)] in question
            if "Write the last" in question:
                assert items == listed[-len(items) :] and chat.COUNTS[len(items)] in question
            if "longest" in question:
                assert len(items[0]) == max(map(len, listed)) and len(items) == 1
            if "starts with" in question:
                assert items == [one for one in listed if one[0].lower() == question.rstrip(" .").split("with ")[1][0]]
            asked |= {verb for verb in ("Reverse", "last to first", "Sort", "first", "starts with") if verb in question}
    assert asked == {"Reverse", "last to first", "Sort", "first", "starts with"}
