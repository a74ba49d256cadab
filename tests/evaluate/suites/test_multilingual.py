"""multilingual: one problem, five languages; number words and sentences are right."""

from __future__ import annotations

import ast
import itertools
import random
import re
from collections import Counter

import pytest

from quantgate.evaluate import suites
from quantgate.evaluate.scorers import Score
from quantgate.evaluate.scorers.exact import score
from quantgate.evaluate.suites import SPLITS, Difficulty, Draft, _number_words, multilingual
from quantgate.evaluate.suites._languages import LANGUAGES, NAMES

LEVELS: tuple[Difficulty, ...] = ("default", "hard")


def drawn(level: Difficulty, count: int = 2000) -> list[Draft]:
    rng = random.Random(7)
    return [multilingual.draw(rng, level) for _ in range(count)]


def value_of(answer: str, draft: Draft) -> float:
    made = score(answer, draft.reference)
    assert isinstance(made, Score)
    return made.value


@pytest.mark.parametrize("level", LEVELS)
def test_the_gold_answer_scores_one(level: Difficulty) -> None:
    for draft in drawn(level):
        assert value_of(draft.answer, draft) == 1.0
        assert "{" not in draft.messages[0][1]


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("kind", [name for name, _, _ in multilingual.KINDS])
def test_the_identity_is_free_of_language(kind: str, hard: bool) -> None:
    make = {name: make for name, make, _ in multilingual.KINDS}[kind]
    for seed in range(60):
        made = [make(random.Random(seed), speech, hard) for speech in LANGUAGES.values()]
        assert len({problem.identity for problem in made}) == 1
        assert len({problem.text for problem in made}) == len(LANGUAGES)
        assert len({problem.accept[0].isdigit() for problem in made}) == 1


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("degenerate", ["", "abc", "2", "Tom", "Monday", "rojo"])
def test_degenerate_answers_score_badly(level: Difficulty, degenerate: str) -> None:
    made = drawn(level)
    assert sum(value_of(degenerate, draft) for draft in made) / len(made) < 0.15
    assert sum(value_of(draft.messages[0][1], draft) for draft in made) == 0


def test_words_stand_at_the_same_place_in_every_language() -> None:
    for field in ("colours", "things", "cities", "foods", "goods", "fruits", "events", "days", "months"):
        assert len({len(getattr(speech, field)) for speech in LANGUAGES.values()}) == 1
        for speech in LANGUAGES.values():
            words = getattr(speech, field)
            assert len(set(words)) == len(words)
    assert len({tuple(speech.say) for speech in LANGUAGES.values()}) == 1


@pytest.mark.parametrize(
    ("language", "n", "words"),
    [
        ("en", 63, "sixty-three"),
        ("en", 115, "one hundred and fifteen"),
        ("de", 21, "einundzwanzig"),
        ("de", 77, "siebenundsiebzig"),
        ("de", 301, "dreihunderteins"),
        ("es", 22, "veintid\u00f3s"),
        ("es", 31, "treinta y uno"),
        ("es", 100, "cien"),
        ("es", 555, "quinientos cincuenta y cinco"),
        ("fr", 61, "soixante et un"),
        ("fr", 71, "soixante et onze"),
        ("fr", 80, "quatre-vingts"),
        ("fr", 99, "quatre-vingt-dix-neuf"),
        ("fr", 200, "deux cents"),
        ("fr", 201, "deux cent un"),
        ("it", 23, "ventitr\u00e9"),
        ("it", 28, "ventotto"),
        ("it", 61, "sessantuno"),
        ("it", 180, "centottanta"),
        ("it", 803, "ottocentotr\u00e9"),
    ],
)
def test_number_words_are_spelled_as_in_the_language(language: str, n: int, words: str) -> None:
    assert LANGUAGES[language].number(n) == words


def test_a_number_has_one_word_and_a_word_one_number() -> None:
    for speak in (
        _number_words.english,
        _number_words.german,
        _number_words.spanish,
        _number_words.french,
        _number_words.italian,
    ):
        assert len({speak(n) for n in range(1000)}) == 1000


def test_every_number_word_and_turn_of_the_calendar_is_met_in_training() -> None:
    """What stood only at the gate would be memory, not skill."""
    met: dict[str, set[str]] = {name: set() for name in LANGUAGES}
    turns: set[tuple[str, ...]] = set()
    for draft in itertools.islice(suites.drafts(multilingual.SUITE, "train", 0), 20_000):
        if draft.slices["kind"] == "number":
            met[draft.slices["lang"]].update(re.findall(r"\d+", draft.identity))
        if draft.identity.startswith("day 0"):
            turns.add(tuple(draft.identity.split()[2:4]))
    assert all({str(n) for n in range(100)} <= numbers for numbers in met.values())
    assert len(turns) == 7 * 4


@pytest.mark.parametrize(
    ("name", "moves", "answer"),
    [
        ("day 0 0 2", 2, 2),
        ("day 0 0 3", 3, 3),
        ("day 1 0 10", 10, 4),
        ("day 2 0 10", 10, 2),
        ("day 0 6 1", 1, 0),
        ("month 0 0 -1", -1, 11),
    ],
)
def test_days_and_months_are_counted_from_the_anchor(name: str, moves: int, answer: int) -> None:
    """Today is Monday (0): two, three days on; yesterday was, tomorrow is: ten on; Sunday and January roll over."""
    rng, english = random.Random(1), LANGUAGES["en"]
    table = english.days if name.startswith("day") else english.months
    made = (multilingual.calendar(rng, english, abs(moves) > 2) for _ in range(20_000))
    found = next(problem for problem in made if problem.identity.startswith(f"{name} "))
    assert found.accept == [table[answer]]
    assert f"{abs(moves)} {name.split()[0]}" in found.text


def test_french_elides_before_a_vowel_only() -> None:
    assert LANGUAGES["fr"].of("Anna") == "d'Anna"
    assert LANGUAGES["fr"].of("Tom") == "de Tom"


def test_two_hops_have_one_right_person() -> None:
    hops = [draft for draft in drawn("hard", 4000) if "same colour" in draft.identity or "same city" in draft.identity]
    assert len(hops) > 200
    for draft in hops:
        rows = [tuple(map(int, row)) for row in re.findall(r"\((\d+), (\d+), (\d+)\)", draft.identity)]
        column = 2 if "same colour" in draft.identity else 1
        asked = int(draft.identity.split()[-1])
        shared = next(row[column] for row in rows if row[0] == asked)
        others = [row[0] for row in rows if row[column] == shared and row[0] != asked]
        assert [NAMES[who] for who in others] == [draft.answer]


def test_slices_hold_every_declared_value() -> None:
    seen: Counter[str] = Counter()
    for draft in itertools.chain(drawn("default"), drawn("hard")):
        seen.update(f"{key}={value}" for key, value in draft.slices.items())
    kinds = {f"kind={name}" for name in ("read", "calendar", "compare", "number", "count")}
    assert set(seen) == kinds | {f"lang={name}" for name in LANGUAGES}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("split", ["calibrate", "tune", "gate"])
def test_every_split_gives_400_cases(level: Difficulty, split: suites.Split) -> None:
    assert len({case.id for case in suites.cases("multilingual", split, 400, difficulty=level)}) == 400


def test_questions_of_a_conversation_are_those_of_their_split(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[tuple[str, suites.Split]]()

    def remember(suite: str, identity: str) -> suites.Split:
        seen.append((identity, suites.split_of(suite, identity)))
        return seen[-1][1]

    monkeypatch.setattr(multilingual, "split_of", remember)
    kinds = Counter[str]()
    for seed, split in itertools.product(range(120), SPLITS):
        seen.clear()
        turns = multilingual.draw_many(random.Random(seed), 5, split)
        wanted = sum(found == split for _, found in seen) if seen else 5  # no identities: number words, no cases
        assert len(turns) == 2 * wanted
        kinds.update({identity.split()[0] for identity, _ in seen} or {"words only"})
    cases = {draft.identity.split()[0] for draft in drawn("default", 2000)}
    assert set(kinds) == cases | {"words only"}


def test_answers_about_a_story_follow_from_its_table() -> None:
    rng = random.Random(2)
    for speech in LANGUAGES.values():
        for _ in range(20):
            for identity, asks, brief, answer, _form in multilingual._homes(rng, speech)[1]:
                question, who, table = read_identity(identity)
                name, city, food = next(
                    (NAMES[one], speech.cities[town], speech.foods[meal]) for one, town, meal in table if one == who
                )
                assert answer == {"where": city, "eats what": food, "eats there": food}.get(question, name)
                assert {"where": name, "eats what": name, "lives in": city, "eats there": city}.get(
                    question, food
                ) in asks
                assert brief == {"lives in": f"{city}?", "eats": f"{food}?"}.get(question, "")
            for identity, asks, brief, answer, _form in multilingual._things(rng, speech)[1]:
                question, who, table = read_identity(identity)
                shade = next(speech.colours[shade] for one, _, shade in table if one == who)
                assert answer == (shade if question == "what colour" else NAMES[who])
                assert (speech.of(NAMES[who]) if question == "what colour" else shade) in asks
                assert brief == f"{NAMES[who] if question == 'what colour' else shade}?"
            for identity, asks, brief, answer, _form in multilingual._goods(rng, speech)[1]:
                question, who, table = read_identity(identity)
                n = next(n for one, _, n in table if one == who)
                assert answer == (str(n) if question == "how many" else NAMES[who])
                assert (NAMES[who] if question == "how many" else str(n)) in asks
                assert brief == f"{NAMES[who] if question == 'how many' else n}?"


def test_a_calendar_question_in_a_few_signs_asks_the_same() -> None:
    rng = random.Random(4)
    for speech in LANGUAGES.values():
        for hard in (False, True):
            for _ in range(40):
                problem = multilingual.calendar(rng, speech, hard)
                assert " ".join(full for full, _ in problem.parts) == problem.text
                (_, now), (_, shift), (_, nothing) = problem.parts
                names = speech.days if now in speech.days else speech.months
                sign, steps = shift.split()
                at = names.index(now) + int(f"{sign}{steps}")
                assert [names[at % len(names)]] == problem.accept and nothing == ""
                told = problem.partly_brief(rng)
                assert told and all(part in (*problem.text.split(), now, sign, steps) for part in told.split())


def read_identity(identity: str) -> tuple[str, int, list[tuple[int, int, int]]]:
    """Question, person and table of ``lives [(1, 2, 3), ...] eats what 1``."""
    found = re.fullmatch(r"\w+ (\[.*\]) (.+) (\d+)", identity)
    assert found is not None
    return found[2], int(found[3]), ast.literal_eval(found[1])
