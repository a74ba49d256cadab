"""long_context: every answer stands in the list where the question leads, and nothing short of reading it scores."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.evaluate import scorers
from quantgate.evaluate.suites import Difficulty, Draft, cases
from quantgate.evaluate.suites.long_context import (
    BANDS,
    HARD_RECORDS,
    HOP_RULE,
    RECORDS,
    band,
    deal_names,
    draw,
    draw_many,
)

EXACT = scorers.get("exact")
LEVELS: tuple[Difficulty, ...] = ("default", "hard")


def some(difficulty: Difficulty, count: int = 300) -> list[Draft]:
    rng = random.Random(f"long_context test {difficulty}")
    return [draw(rng, difficulty) for _ in range(count)]


def value(draft: Draft, answer: str) -> float:
    assert draft.scorer == "exact"
    made = EXACT(answer, draft.reference)
    assert isinstance(made, scorers.Score), made
    return made.value


def read(text: str) -> tuple[dict[str, str], str]:
    """The list and the question of a prompt, read back by plain string work; the shown codes, not the resolved ones."""
    lines = text.split("\n")
    return dict(line.split(": ") for line in lines[1:-1]), lines[-1]


def asked_in(question: str, names: Iterable[str]) -> list[str]:
    """The names that a question holds as whole words, in its order ("old cat" is not in "gold cat")."""
    words = re.findall(r"\w+", question)
    pairs = [f"{first} {second}" for first, second in itertools.pairwise(words)]
    return [pair for pair in pairs if pair in set(names)]


def solve(table: dict[str, str], question: str) -> str:
    """A solver that shares nothing with the suite but the prompt."""
    codes = {
        name: table[shown.removeprefix("same as ")] if "same as" in shown else shown for name, shown in table.items()
    }
    reverse = re.search(r"the code (.+?)[?.]", question)
    if "name" in question and reverse:
        [name] = [name for name, code in codes.items() if code == reverse.group(1)]
        return name
    return ", ".join(codes[name] for name in asked_in(question, codes))


@pytest.mark.parametrize("difficulty", LEVELS)
def test_the_answer_is_what_an_independent_reader_finds_and_it_scores_one(difficulty: Difficulty) -> None:
    for draft in some(difficulty):
        assert solve(*read(draft.messages[0][1])) == draft.answer
        assert value(draft, draft.answer) == 1.0


@pytest.mark.parametrize("difficulty", LEVELS)
def test_degenerate_answers_score_below_a_tenth(difficulty: Difficulty) -> None:
    drafts = some(difficulty)
    tables = [read(draft.messages[0][1])[0] for draft in drafts]
    wrong = {
        "nothing": ["" for _ in drafts],
        "abc": ["abc" for _ in drafts],
        "echo": [draft.messages[0][1] for draft in drafts],
        "first code": [next(iter(table.values())) for table in tables],
        "last code": [list(table.values())[-1] for table in tables],
        "first name": [next(iter(table)) for table in tables],
        "all codes": [", ".join(table.values()) for table in tables],
    }
    for name, answers in wrong.items():
        mean = sum(value(draft, answer) for draft, answer in zip(drafts, answers, strict=True)) / len(drafts)
        assert mean < 0.1, name


def test_both_words_of_the_asked_name_stand_in_other_names_too() -> None:
    for draft in some("hard", 100):
        if draft.slices["kind"] not in ("lookup", "hop"):
            continue
        table, question = read(draft.messages[0][1])
        [asked] = asked_in(question, table)
        adjective, noun = asked.split()
        assert sum(name.startswith(adjective + " ") for name in table) >= 2
        assert sum(name.endswith(" " + noun) for name in table) >= 2


@given(seed=st.integers(0, 2**32), count=st.integers(4, 400))
@settings(max_examples=60, deadline=None)
def test_names_are_as_many_as_asked_and_different(seed: int, count: int) -> None:
    assert len(set(deal_names(random.Random(seed), count))) == count


def test_every_declared_slice_occurs_and_depth_is_even() -> None:
    default, hard = some("default", 1000), some("hard", 300)
    assert {draft.slices["records"] for draft in default} == {str(count) for count in RECORDS}
    assert {draft.slices["records"] for draft in hard} == {str(count) for count in HARD_RECORDS}
    assert {draft.slices["kind"] for draft in hard} == {"lookup", "hop", "reverse", "pair"}
    depths = Counter(draft.slices["depth"] for draft in default)
    assert set(depths) == set(BANDS)
    assert all(150 < depths[one] < 250 for one in BANDS)  # 200 each, sd 12.6


def test_band_is_the_fifth_that_a_line_stands_in() -> None:
    assert [band(line, 10) for line in range(10)] == [one for one in BANDS for _ in range(2)]


def test_the_identity_is_free_of_wording_and_changes_with_the_list() -> None:
    by_identity: dict[str, set[str]] = {}
    for draft in some("hard"):
        by_identity.setdefault(draft.identity, set()).add(draft.messages[0][1])
        _, question = read(draft.messages[0][1])
        assert question not in draft.identity
        assert not any(word in draft.identity for word in ("Answer", "list", "code"))
        assert draft.answer in draft.identity
    assert len(by_identity) == 300


def test_the_same_seed_draws_the_same_draft() -> None:
    assert some("hard", 20) == some("hard", 20)


@pytest.mark.parametrize("difficulty", LEVELS)
def test_a_list_stays_below_the_context_at_ten_tokens_a_line(difficulty: Difficulty) -> None:
    """Counts a token per word, digit, mark and space: what a tokenizer spends that knows just the words."""
    for draft in some(difficulty):
        assert len(re.findall(r"[A-Za-z]+|\d|[^\w ]|\s", draft.messages[0][1])) < 2000


@pytest.mark.parametrize("difficulty", LEVELS)
def test_many_questions_about_one_list_are_all_answered_right(difficulty: Difficulty) -> None:
    rng = random.Random(5)
    for records in (4, 8, 30, 128):
        for _ in range(10):
            messages = draw_many(rng, difficulty, 6, records=records)
            assert len(messages) == 2 * min(6, records)
            assert [role for role, _ in messages] == ["user", "assistant"] * (len(messages) // 2)
            table, first = read(messages[0][1])
            assert len(table) == records
            assert ("same as" in "".join(table.values())) == (HOP_RULE in messages[0][1])
            questions = [first] + [content for _, content in messages[2::2]]
            for question, (_, answer) in zip(questions, messages[1::2], strict=True):
                assert solve(table, question) == answer


def test_questions_about_one_list_ask_different_lines() -> None:
    for seed in range(30):
        messages = draw_many(random.Random(seed), "default", 8, records=8)
        assert sorted(answer for _, answer in messages[1::2]) == sorted(read(messages[0][1])[0].values())


def test_a_list_of_an_impossible_length_is_refused() -> None:
    for records in (0, 3, 401):
        with pytest.raises(ValueError, match=f"{records} records; choose from 4 to 400"):
            draw_many(random.Random(0), "default", 1, records=records)


@pytest.mark.parametrize("difficulty", LEVELS)
def test_the_gate_gets_its_cases(difficulty: Difficulty) -> None:
    made = cases("long_context", "gate", 60, difficulty=difficulty)
    assert len({case.id for case in made}) == 60


def test_names_of_an_easy_list_share_no_word() -> None:
    for count in (8, 30):
        names = deal_names(random.Random(count), count, 1)
        assert len(names) == count
        assert all(len({name.split()[part] for name in names}) == count for part in (0, 1))
        assert len({name.split()[0] for name in deal_names(random.Random(count), count, 2)}) < count
