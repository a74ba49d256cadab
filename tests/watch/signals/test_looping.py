"""looping: over and over, letter by letter or nearly so; tables, code and long lists of their own are none."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path

import pytest
from tests.watch.signals.made import calling, marked, said

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
PARAGRAPH = (
    "The harbour lies west of the town, and its oldest warehouse was built before the railway came. Boats leave at "
    "seven and at noon for the island, where a path leads from the pier through the dunes to the lighthouse. "
)
STORY = " ".join(
    f"In the year {1900 + at} the {name} of the town decided about {at * 7} things, most of which concerned {what}."
    for at, (name, what) in enumerate(
        (
            *(("mayor", "boats"), ("baker", "bread and ovens"), ("doctor", "cold rooms"), ("teacher", "old maps")),
            *(("miller", "stones"), ("smith", "hinges for gates"), ("tailor", "coats"), ("captain", "weather in May")),
        )
    )
)
LOOPS = {
    "a word": "the " * 60,
    "a sentence": "The cat sat on the mat. " * 12,
    "a paragraph": PARAGRAPH * 6,
    "signs": "ab" * 200,
    "Japanese": "それはいい考えです。" * 30,
    "loops at last": STORY + "and so on and on, " * 40,
    "loops and ends": "and so on and on, " * 40 + STORY,
    "numbered": " ".join(f"{at}. You should always check the oil of the car before driving." for at in range(40)),
}
GOOD = {
    "a story": STORY,
    "a paragraph twice": PARAGRAPH * 2,
    "a table": "| name | age |\n| --- | --- |\n" + "".join(f"| person {at} | {at * 13 % 71} |\n" for at in range(60)),
    "JSON": str([{"id": at, "name": f"n{at * 7919 % 1000}", "tags": [at % 3, at % 7]} for at in range(40)]),
    "a rule": "Title\n" + "=" * 80 + "\nText of the section follows here.",
    "one word": "yes",
    "numbers": ", ".join(str(at * at) for at in range(300)),
}


@pytest.mark.parametrize("text", LOOPS.values(), ids=list(LOOPS))
def test_the_same_over_and_over(text: str) -> None:
    assert marked("looping", said(text)) == 1.0
    assert marked("looping", said({"content": "Done.", "reasoning_content": text})) == 1.0
    assert marked("looping", said(calling(arguments=text))) == 1.0


@pytest.mark.parametrize("text", GOOD.values(), ids=list(GOOD))
def test_what_merely_has_a_form_is_no_loop(text: str) -> None:
    assert marked("looping", said(text)) == 0.0


def test_a_loop_at_the_end_of_a_very_long_text_is_found() -> None:
    long = " ".join(f"word{at * 7919 % 100_003}" for at in range(20_000))
    assert marked("looping", said(long)) == 0.0 and marked("looping", said(long + " again" * 60)) == 1.0


def test_data_of_one_form_is_no_loop_where_data_was_asked_for() -> None:
    things = ", ".join(f'{{"name": "a thing of some length", "count": {at}, "open": true}}' for at in range(60))
    assert marked("looping", said(f"[{things}]", structured=True)) == 0.0
    assert marked("looping", said('{"a": [' + "0, " * 200, structured=True)) == 1.0


@pytest.fixture(scope="module")
def written() -> list[str]:
    """Answers of models, of people, and prose, as they were published."""
    if not DATA.is_dir():
        pytest.skip("the published answers are not beside the repository")
    found = [json.loads(line)["answer"] for line in (DATA / "gsm8k" / "test.jsonl").read_text("utf-8").splitlines()]
    for path in sorted((DATA / "xstest").glob("*completions*.csv")):
        found += [row["completion"] for row in csv.DictReader(io.StringIO(path.read_text("utf-8"), newline=""))]
    prose = (DATA / "wikitext2" / "wikitext2_raw_test.txt").read_text("utf-8")
    found += [prose[at : at + 3000] for at in range(0, len(prose), 3000)]
    assert len(found) > 3000
    return found


def test_no_published_answer_loops(written: list[str]) -> None:
    assert [text for text in written if marked("looping", said(text))] == []


def test_published_answers_that_go_round_at_last_are_found(written: list[str]) -> None:
    """Each goes on with its own last words, 3 to 40 of them, again and again."""
    chance, missed = random.Random(8), 0
    for text in written:
        words = text.split()
        again = " ".join(words[-chance.randint(3, 40) :])
        missed += not marked("looping", said(text + (" " + again) * (4 + 400 // max(len(again), 1))))
    assert missed <= 0.001 * len(written)
