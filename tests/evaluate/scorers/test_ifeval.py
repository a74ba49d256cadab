"""ifeval: each of the 25 instructions on answers that follow it and answers that do not, and language by rules."""

from __future__ import annotations

import csv
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluate.published.conftest import DATA, published_cases
from tests.evaluate.published.ifeval_writer import BODY, write

from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.scorers._ifeval import CHECKS, count_sentences
from quantgate.evaluate.scorers._languages import LANGUAGES, language_of
from quantgate.evaluate.scorers.ifeval import score

Example = tuple[str, dict[str, Any], list[str], list[str]]  # instruction, arguments, followed, not followed
EXAMPLES: list[Example] = [
    ("punctuation:no_comma", {}, ["One two."], ["One, two."]),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*one* and *two*", "**one** and *two*", "*a* *b* *c*"],
        ["*one*", "* * and *one*", "** ** *one*", "*one\ntwo* *three"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "at least"},
        ["a b c", "a b c d"],
        ["a b", "a-b."],
    ),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, ["a b"], ["a b c"]),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        ["One. Two.", 'He said "Stop!" Then he left', "One.\nTwo"],
        ["Dr. Smith came.", "It costs 3.50 in all.", "..."],
    ),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, ["One."], ["One. Two."]),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "a *** b", "a\n***\nb\n***\n"],
        ["a", "a\n\nb", "a\n***\n***\nb", "a\n***\nb\n***\nc"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Weekend"},
        ["a\n\nweekend plans", 'a\n\n"Weekend!" he said', "a\n\nWeekend, then"],
        ["weekend\n\na", "a\n\nb weekend", "a weekend", "a\n\nweekend\n\nb"],
    ),
    ("keywords:existence", {"keywords": ["sun", "Moon"]}, ["Sunny moons"], ["sun", ""]),
    ("keywords:forbidden_words", {"forbidden_words": ["sun"]}, ["sunny"], ["The Sun."]),
    ("keywords:frequency", {"keyword": "ha", "frequency": 2, "relation": "at least"}, ["haha", "Ha! ha"], ["ha"]),
    ("keywords:frequency", {"keyword": "ha", "frequency": 2, "relation": "less than"}, ["ha"], ["ha ha"]),
    ("keywords:letter_frequency", {"letter": "q", "let_frequency": 2, "let_relation": "at least"}, ["Qq"], ["q"]),
    ("keywords:letter_frequency", {"letter": "!", "let_frequency": 1, "let_relation": "less than"}, ["a"], ["a!"]),
    ("language:response_language", {"language": "de"}, ["Das ist nicht der Hund."], ["That is not the dog.", "abc"]),
    ("change_case:english_capital", {}, ["THIS IS THE END."], ["THIS is THE END.", "DAS IST DER HUND."]),
    ("change_case:english_lowercase", {}, ["this is the end."], ["This is the end.", "das ist der hund."]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["NASA and ESA", "WELL-KNOWN U.S. facts"],
        ["NASA and Esa", "nasa"],
    ),
    ("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": "less than"}, ["a"], ["NO"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["a\nP.S. b", "a p. s. b"], ["a", "PS: b"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["a\nP.P.S b", "p. p. s. b"], ["P.S. b"]),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] [b]"], ["[a] b", "(a) [b]"]),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is maybe.", "So: My answer is no."],
        ["Yes.", "my answer"],
    ),
    ("detectable_format:json_format", {}, ['{"a": 1}', '```json\n{"a": 1}\n```', "[]"], ["{a: 1}", "So: {}", ""]),
    (
        "detectable_format:multiple_sections",
        {"num_sections": 2, "section_spliter": "SECTION"},
        ["SECTION 1\na\nSECTION 2\nb", "SECTION1 a SECTION 2 b"],
        ["SECTION 1\na", "SECTION one\na\nSECTION two"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "- a\n  - b", "text\n* a\n- b"],
        ["* a", "* a\n* b\n* c", "** a\n* b"],
    ),
    ("detectable_format:title", {}, ["<<a title>>\ntext"], ["<<>>", "<title>", "<< >>"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, ["say hi.\nHi"], ["Hi. Say hi."]),
    ("combination:two_responses", {}, ["a\n******\nb", "******\na\n******\nb"], ["a", "a ****** a", "a******b******c"]),
    ("startend:end_checker", {"end_phrase": "The end."}, ["So it was. the end.", '"The end."'], ["The end. Or not"]),
    ("startend:quotation", {}, ['"a"', ' "a b" '], ['"a', "a", '"', "'a'"]),
]


def test_all_25_published_instructions_have_examples() -> None:
    assert len(CHECKS) == 25
    assert {name for name, *_ in EXAMPLES} == set(CHECKS)


@pytest.mark.parametrize(("name", "given", "followed", "not_followed"), EXAMPLES)
def test_instruction_is_told_followed_from_not(
    name: str, given: dict[str, Any], followed: list[str], not_followed: list[str]
) -> None:
    reference = {"instructions": [{"id": name, "kwargs": given}]}
    results = {answer: score(answer, reference) for answer in (*followed, *not_followed)}
    assert [answer for answer, found in results.items() if found == Score(value=1.0, answer=answer)] == followed


def test_all_instructions_must_be_followed() -> None:
    asked = {"instructions": [{"id": "punctuation:no_comma", "kwargs": {}}, {"id": "startend:quotation", "kwargs": {}}]}
    found = score("no comma", asked)
    assert isinstance(found, Score)
    assert (found.value, found.because) == (0.0, "startend:quotation: not in double quotes")


@pytest.mark.parametrize(
    "reference",
    [
        None,
        {},
        {"instructions": []},
        {"instructions": [{"id": "punctuation:no_dots"}]},
        {"instructions": [{"id": "keywords:existence", "kwargs": {"keywords": "sun"}}]},
        {"instructions": [{"id": "keywords:existence", "kwargs": {}}]},
        {"instructions": [{"id": "punctuation:no_comma", "kwargs": {"n": 1}}]},
        {"instructions": [{"id": "language:response_language", "kwargs": {"language": "xx"}}]},
        {"instructions": [{"id": "length_constraints:number_words", "kwargs": {"num_words": 3, "relation": "over"}}]},
    ],
)
def test_a_bad_reference_is_unscored(reference: object) -> None:
    assert isinstance(score("a", reference), Unscored)


def test_written_answers_follow_most_published_prompts_and_every_instruction() -> None:
    """Answers composed from the instructions alone. Measured: 514 of 541 prompts."""
    right: dict[str, int] = {}
    total = 0
    for case in published_cases("ifeval"):
        found = score(write(case), case.reference)
        assert isinstance(found, Score)
        total += found.value == 1.0
        for name in case.slices:
            right[name] = right.get(name, 0) + (found.value == 1.0)
    assert total >= 510
    assert sorted(name.partition("=")[2] for name, count in right.items() if count) == sorted(CHECKS)


@given(st.text(max_size=300))
def test_no_answer_breaks_a_check(answer: str) -> None:
    asked = [{"id": name, "kwargs": given} for name, given, *_ in EXAMPLES]
    assert isinstance(score(answer, {"instructions": asked}), Score)


@given(st.lists(st.sampled_from(["It is late.", "Why not?", "Dr. Who left at 5 p.m. today.", "Stop!"]), max_size=9))
def test_sentences_are_counted_one_by_one(parts: list[str]) -> None:
    assert count_sentences(" ".join(parts)) == len(parts)


@pytest.mark.parametrize("language", BODY)
def test_a_sentence_is_in_its_language(language: str) -> None:
    assert language in LANGUAGES
    assert [language_of(text) for text in BODY[language]] == [language] * len(BODY[language])


@given(st.text(alphabet="0123456789 .,!?*-\n", max_size=50))
def test_what_has_no_letters_is_in_no_language(text: str) -> None:
    assert language_of(text) is None


@pytest.mark.skipif(not (DATA / "mgsm").is_dir(), reason="no ../shared/data/mgsm beside the repository")
def test_problems_of_mgsm_are_in_their_languages() -> None:
    """1,250 questions of two or three sentences. Measured: 1,247."""
    right = 0
    for path in sorted((DATA / "mgsm").glob("mgsm_*.tsv")):
        rows = path.read_text("utf-8").splitlines()
        right += sum(language_of(row.partition("\t")[0]) == path.stem[5:] for row in rows)
    assert right >= 1240


@pytest.mark.skipif(not (DATA / "xstest").is_dir(), reason="no ../shared/data/xstest beside the repository")
def test_answers_of_real_models_are_english() -> None:
    """1,350 answers. Measured: 1,349."""
    english = 0
    for path in sorted((DATA / "xstest").glob("xstest_v2_completions_*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            english += sum(language_of(row["completion"]) == "en" for row in csv.DictReader(file))
    assert english >= 1345
