"""rare_vocabulary: right answers by an independent reading of the prompt, and new words that are new."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest

from quantgate.evaluate import scorers
from quantgate.evaluate.suites import SPLITS, Difficulty, Draft, cases, split_of
from quantgate.evaluate.suites.rare_vocabulary import LETTER, draw, draw_many, twins_of, word_of

TAUGHT = """
spell the word with hyphens between letters how do you put write of from last to first them start at end and it
backwards what is letter which does give many have count are in stands just before second
""".split()  # noqa: SIM905 - a list of strings would fill the page
EXACT = scorers.get("exact")
LEVELS: tuple[Difficulty, ...] = ("default", "hard")


def some(difficulty: Difficulty, count: int = 1000) -> list[Draft]:
    rng = random.Random(f"rare_vocabulary test {difficulty}")
    return [draw(rng, difficulty) for _ in range(count)]


def value(draft: Draft, answer: str) -> float:
    assert draft.scorer == "exact"
    made = EXACT(answer, draft.reference)
    assert isinstance(made, scorers.Score), made
    return made.value


def solve(draft: Draft) -> str:
    """A solver that shares nothing with the suite but the prompt."""
    prompt, kind = draft.messages[0][1], draft.slices["kind"]
    if kind == "copy":
        return prompt.split(": ")[1]
    if kind == "order":
        words = prompt.split(": ")[1].split(". ")[0].split()
        return " ".join(words[::-1])
    if kind == "glossary":
        sentences = re.findall(r"[^.?]+[.?]", prompt)
        entries: dict[str, str] = dict(re.findall(r"(\w+) means (\w+)\.", "".join(sentences[:-2])))
        back = {meaning: word for word, meaning in entries.items()}
        [answer] = [
            entries.get(word) or back[word] for word in re.findall(r"\w+", sentences[-2]) if word in {**entries, **back}
        ]
        return answer
    [word] = [word for word in re.findall(r"[a-z]+", prompt.split(" Answer")[0].lower()) if word not in TAUGHT]
    if kind == "letter":
        if "How many" in prompt or "Count" in prompt:
            return str(len(word))
        before = "second to last" in prompt or "just before" in prompt
        return str(word[-2] if before else word[0] if "first" in prompt or "start" in prompt else word[-1])
    return "-".join(reversed(word) if kind == "backwards" else word)


@pytest.mark.parametrize("difficulty", LEVELS)
def test_the_answer_is_what_an_independent_reader_finds_and_it_scores_one(difficulty: Difficulty) -> None:
    for draft in some(difficulty):
        assert solve(draft) == draft.answer, draft.messages
        assert value(draft, draft.answer) == 1.0


@pytest.mark.parametrize("difficulty", LEVELS)
@pytest.mark.parametrize(
    "answer",
    [
        lambda prompt: "",
        lambda prompt: "abc",
        lambda prompt: prompt,
        lambda prompt: prompt.split()[0],
        lambda prompt: prompt.split(": ")[-1],  # copies what follows the colon, whatever was asked
        lambda prompt: "n",
        lambda prompt: "8",
    ],
    ids=["nothing", "abc", "echo", "first word", "after the colon", "letter n", "number 8"],
)
def test_degenerate_answers_score_below_three_tenths(difficulty: Difficulty, answer: Callable[[str], str]) -> None:
    drafts = some(difficulty)
    assert sum(value(draft, answer(draft.messages[0][1])) for draft in drafts) / len(drafts) < 0.3


def test_capitals_count_where_the_word_itself_was_asked_for() -> None:
    drafts = some("default")
    copies = [draft for draft in drafts if draft.slices["kind"] == "copy" and draft.answer != draft.answer.lower()]
    assert copies
    assert all(value(draft, draft.answer.lower()) == 0.0 for draft in copies)
    spelled = next(draft for draft in drafts if draft.slices["kind"] == "spell")
    assert value(spelled, spelled.answer.upper()) == 0.0
    looked_up = next(draft for draft in drafts if draft.slices["kind"] == "glossary")
    assert value(looked_up, looked_up.answer.capitalize() + ".") == 1.0


def test_one_letter_wrong_is_wrong() -> None:
    for draft in some("hard"):
        if draft.slices["kind"] in ("spell", "backwards", "copy", "order"):
            assert value(draft, draft.answer[:-1]) == 0.0


def test_every_declared_slice_occurs() -> None:
    default, hard = some("default"), some("hard")
    assert {draft.slices["kind"] for draft in default} == {"spell", "copy", "glossary", "letter", "order"}
    assert {draft.slices["kind"] for draft in hard} == {"spell", "backwards", "copy", "glossary", "letter", "order"}
    assert {draft.slices["syllables"] for draft in default} == {"2", "3"}
    assert {draft.slices["syllables"] for draft in hard} == {"4"}


def test_the_identity_is_free_of_wording() -> None:
    prompts: dict[str, set[str]] = {}
    rng = random.Random(1)
    for _ in range(1000):
        draft = draw(rng, "default")
        prompts.setdefault(draft.identity, set()).add(draft.messages[0][1])
        assert not re.search(r"Answer|Repeat|Spell|Write|Which|What|Put|\?", draft.identity)
    assert len(prompts) > 990


def test_hard_glossary_words_differ_in_one_letter() -> None:
    for seed in range(50):
        words = twins_of(random.Random(seed), 8, 4)
        assert len(set(words)) == 8
        assert len({len(word) for word in words}) == 1
        assert any(all(sum(a != b for a, b in zip(base, word, strict=True)) <= 1 for word in words) for base in words)


def test_words_hardly_ever_come_back() -> None:
    rng = random.Random(2)
    assert len({word_of(rng, 2) for _ in range(5000)}) > 4980


def test_the_same_seed_draws_the_same_draft() -> None:
    assert some("hard", 50) == some("hard", 50)


@pytest.mark.parametrize("difficulty", LEVELS)
def test_the_gate_gets_its_cases(difficulty: Difficulty) -> None:
    made = cases("rare_vocabulary", "gate", 400, difficulty=difficulty)
    assert len({case.id for case in made}) == 400


def glossary_of(prompt: str) -> tuple[str, dict[str, str]]:
    """The entries as they stand, and word -> meaning."""
    entries = "".join(re.findall(r"^(?:\w+ means \w+\. )+", prompt)).strip()
    return entries, dict(re.findall(r"(\w+) means (\w+)\.", entries))


def test_conversations_about_one_glossary_are_answered_right_and_leave_out_other_splits() -> None:
    questions = letters = spelled = 0
    for split in SPLITS:
        for seed in range(150):
            turns = draw_many(random.Random(seed), 4, split)
            entries, told = glossary_of(turns[0][1]) if turns else ("", {})
            if turns and "-" in turns[1][1]:
                for (_, asked), (_, answer) in zip(turns[::2], turns[1::2], strict=True):
                    word = answer.replace("-", "")
                    assert word in asked and answer == "-".join(word)
                    spelled += 1
                continue
            if not told:
                assert all(
                    letter_of(asked) == answer for (_, asked), (_, answer) in zip(turns[::2], turns[1::2], strict=True)
                )
                letters += len(turns) // 2
                continue
            for (_, question), (_, answer) in zip(turns[::2], turns[1::2], strict=True):
                last = question.removeprefix(entries)
                assert any(
                    {answer, other} == pair and other in last for pair in map(set, told.items()) for other in pair
                )
                assert split_of("rare_vocabulary", f"glossary {entries} -> {answer}") == split
                questions += 1
    # 150 times 4, shared among the splits
    assert 220 < questions < 330
    assert 100 < letters < 210
    assert 120 < spelled < 240


def letter_of(question: str) -> str:
    """The right answer to a question about a word's first or last letter."""
    asked = {
        text.format(word="(.+)").replace("?", "[?]"): which for which in ("first", "last") for text in LETTER[which]
    }
    which, found = next(
        (which, found) for pattern, which in asked.items() if (found := re.fullmatch(pattern, question))
    )
    return found[1][0] if which == "first" else found[1][-1]


def test_identities_of_conversations_are_those_of_cases() -> None:
    found = [one for one in some("default", 400) if one.slices["kind"] == "glossary"]
    for draft in found:
        assert draft.identity == f"glossary {glossary_of(draft.messages[0][1])[0]} -> {draft.answer}"
    assert len(found) > 50
