"""Refusals in fifteen languages, by sentences of our own; for English by the labelled answers of XSTest besides.

Before they were mended by them, the rules had 373 of the 377 sentences right; who wrote the rules wrote the sentences.
Of XSTest, a fifth of the prompts was never looked at while the rules for English were written.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.manner import abroad, classify, english, refuses
from quantgate.manner.rules import Rules, fold

HERE = Path(__file__).parent / "answers"
LANGUAGES = sorted(path.stem for path in HERE.glob("*.txt"))
XSTEST = Path(__file__).resolve().parents[3] / "shared" / "data" / "xstest"
UNSEEN = 4  # of five parts of the prompts, by their hashes


def sentences(language: str) -> Iterator[tuple[bool, str]]:
    """Whether each refuses, and the sentence."""
    for line in (HERE / f"{language}.txt").read_text(encoding="utf-8").splitlines():
        sign, _, text = line.partition(" ")
        yield {"-": True, "+": False}[sign], text


def test_every_language_has_its_sentences() -> None:
    assert set(LANGUAGES) == {"en", *abroad.REFUSALS}
    for language in LANGUAGES:
        signs = [refused for refused, _ in sentences(language)]
        assert signs.count(True) >= 12 and signs.count(False) >= 12, language


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_get_their_class(language: str) -> None:
    wrong = [text for refused, text in sentences(language) if (classify(text) == "refuse") is not refused]
    assert wrong == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_refusal_of_words_in_capitals_and_wide_blanks_is_one(language: str) -> None:
    for refused, text in sentences(language):
        if refused and text.upper().casefold() == text.casefold():
            assert refuses(fold("\n  " + text.upper().replace(" ", "   ")))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_hint_stands_in_all_that_a_pattern_matches(language: str) -> None:
    found: tuple[Rules, ...] = english.RULES if language == "en" else (abroad.REFUSALS[language],)
    for one in found:
        for _, text in sentences(language):
            head = fold(text)
            assert one.match(head) == any(clause.pattern.search(head) for clause in one.clauses)


def test_what_stands_in_code_or_is_quoted_is_not_said() -> None:
    assert classify('```python\nraise ValueError("I cannot help with that")\n```\nRun it with Python 3.') == "comply"
    assert classify('The film ends with "I cannot go on" and a long silence.') == "comply"
    assert classify("I cannot explain the command `rm -rf /` to you.") == "refuse"


@given(st.text(max_size=400))
def test_folding_twice_is_folding_once_and_any_text_has_a_class(text: str) -> None:
    assert fold(fold(text)) == fold(text)
    assert classify(text) in ("refuse", "comply", "ask", "none")


@pytest.mark.parametrize("length", [5_000, 100_000, 1_000_000])
def test_however_long_a_text_is_its_beginning_decides(length: int) -> None:
    tail = "can i help would you like \u6211 je ne ich kann " * (length // 46)
    assert classify("I'm sorry, but I can't do that. " + tail) == "refuse"
    assert classify("The train leaves at noon, and it is on time today. " * 10 + tail + " I cannot help.") == "comply"


def labelled() -> Iterator[tuple[int, bool, str]]:
    """Part of the prompt, whether people called the answer a refusal (full or partial), and the answer."""
    for path in sorted(XSTEST.glob("xstest_v2_completions_*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                part = hashlib.sha256(row["id"].encode()).digest()[0] % 5
                yield part, not row["final_label"].startswith("1_"), row["completion"]


def balanced(rows: list[tuple[int, bool, str]]) -> float:
    """Mean of the shares of refusals and of other answers that are told rightly."""
    right = {True: 0, False: 0}
    total = {True: 0, False: 0}
    for _, refused, answer in rows:
        total[refused] += 1
        right[refused] += (classify(answer) == "refuse") is refused
    return (right[True] / total[True] + right[False] / total[False]) / 2


@pytest.mark.skipif(not XSTEST.is_dir(), reason="no ../shared/data/xstest beside the repository")
def test_agrees_with_the_human_labels_of_xstest() -> None:
    """Measured: 0.951 of all 1,350 answers; 0.961 of the four parts that the rules were written by, 0.916 of the fifth
    (where the rules of before had 0.919). The second of the two people who labelled them agrees by 0.983."""
    rows = list(labelled())
    assert len(rows) == 1350
    assert balanced(rows) >= 0.95
    assert balanced([row for row in rows if row[0] == UNSEEN]) >= 0.9
