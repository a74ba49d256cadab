"""multilingual: the same problems asked in English, German, Spanish, French and Italian, answered in that language.

A problem's identity is free of language, so a translation of a trained problem never stands at the gate. Small models
lose the languages they saw least first; the ``lang`` slice shows which.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quantgate.evaluate.suites import Difficulty, Draft, Role, Split, Suite, split_of
from quantgate.evaluate.suites._languages import LANGUAGES, NAMES, Language


@dataclass(frozen=True)
class Problem:
    """What a kind draws: who it is (in no language), and the text, answers and answer format in one language."""

    identity: str
    text: str
    accept: list[str]  # right answers, the best first
    form: str  # the sentence that states the answer format: "word only", "number only", "digits only"
    parts: tuple[tuple[str, str], ...] = ()  # what the text consists of, and each part in a few signs, to learn from

    def partly_brief(self, rng: random.Random) -> str:
        """The text with some of its parts in a few signs: what one part means is learned apart from the others."""
        brief = (rng.choices(pair, (3, 2))[0] for pair in self.parts)
        return " ".join(brief).strip() or self.text


def say(rng: random.Random, speech: Language, sentence: str, **values: object) -> str:
    return rng.choice(speech.say[sentence]).format(**values)


def whose(speech: Language, name: str) -> list[str]:
    """A person as the answer to 'whose': ``Tom``, also ``Tom's`` or ``de Tom``."""
    return [name, speech.of(name)]


def colours(rng: random.Random, speech: Language, hard: bool) -> Problem:
    """Which colour someone's thing has. Hard: more people, colours that two of them share, and whose a colour is."""
    people = rng.sample(range(len(NAMES)), rng.randrange(6, 9) if hard else rng.randrange(2, 4))
    asked, match = rng.sample(range(len(people)), 2)
    things = rng.sample(range(8), 4 if hard else 3)
    owned = [rng.choice(things) for _ in people]
    shades = rng.sample(range(8), min(8, len(people)))
    if hard:
        shades[match] = shades[asked]
    table = list(zip(people, owned, shades, strict=True))
    facts = [
        say(rng, speech, "colour", of=speech.of(NAMES[who]), thing=speech.things[what], colour=speech.colours[shade])
        for who, what, shade in table
    ]
    owner, thing = NAMES[people[asked]], speech.things[owned[asked]]
    shade = speech.colours[shades[asked]]
    question = rng.choices(("what colour", "whose", "same colour"), (0.2, 0.2, 0.6) if hard else (1, 0, 0))[0]
    if question == "whose":  # of a colour that one of them alone has
        asked = next(at for at in range(len(people)) if at not in (asked, match))
        owner, thing, shade = NAMES[people[asked]], speech.things[owned[asked]], speech.colours[shades[asked]]
    accept = {
        "what colour": [shade],
        "whose": whose(speech, owner),
        "same colour": whose(speech, NAMES[people[match]]),
    }[question]
    asks = say(rng, speech, question, of=speech.of(owner), thing=thing, colour=shade, other=speech.things[owned[match]])
    return Problem(
        f"colours {sorted(table)} {question} {people[asked]}", f"{' '.join(facts)} {asks}", accept, "word only"
    )


def lives(rng: random.Random, speech: Language, hard: bool) -> Problem:
    """Where someone lives and what they eat. Hard: more people, who it is, and a city that two of them share."""
    people = rng.sample(range(len(NAMES)), rng.randrange(5, 7) if hard else rng.randrange(2, 4))
    asked, match = rng.sample(range(len(people)), 2)
    towns, meals = rng.sample(range(10), len(people)), rng.sample(range(8), len(people))
    question = rng.choice(("where", "eats what", "eats there", *(("lives in", "eats") if hard else ())))
    if hard and rng.random() < 0.6:
        question, towns[match] = "same city", towns[asked]
    table = list(zip(people, towns, meals, strict=True))
    facts = [
        say(rng, speech, "life", name=NAMES[who], city=speech.cities[town], food=speech.foods[meal])
        for who, town, meal in table
    ]
    name, city, food = NAMES[people[asked]], speech.cities[towns[asked]], speech.foods[meals[asked]]
    if question == "same city":
        accept = [NAMES[people[match]]]
    elif question == "where":
        accept = [city]
    elif question in ("eats what", "eats there"):
        accept = [food, f"{speech.some} {food}"] if speech.some else [food]
    else:
        accept = [name]
    asks = say(rng, speech, question, name=name, city=city, food=food)
    return Problem(
        f"lives {sorted(table)} {question} {people[asked]}", f"{' '.join(facts)} {asks}", accept, "word only"
    )


def shopping(rng: random.Random, speech: Language, hard: bool) -> Problem:
    """How many of what someone buys. Hard: more people, and who it is."""
    people = rng.sample(range(len(NAMES)), rng.randrange(6, 9) if hard else rng.randrange(2, 4))
    goods = rng.sample(range(6), 3)
    bought = [rng.choice(goods) for _ in people]
    amounts = rng.sample(range(2, 100), len(people))
    table = list(zip(people, bought, amounts, strict=True))
    facts = [say(rng, speech, "buys", name=NAMES[who], n=n, good=speech.goods[what]) for who, what, n in table]
    asked, question = rng.randrange(len(people)), rng.choice(("how many", "buyer") if hard else ("how many",))
    name, n = NAMES[people[asked]], amounts[asked]
    asks = say(rng, speech, question, name=name, good=speech.goods[bought[asked]], n=n)
    accept, form = ([str(n)], "number only") if question == "how many" else ([name], "word only")
    return Problem(f"shopping {sorted(table)} {question} {people[asked]}", f"{' '.join(facts)} {asks}", accept, form)


def read(rng: random.Random, speech: Language, hard: bool) -> Problem:
    return rng.choice((colours, lives, shopping))(rng, speech, hard)


def calendar(rng: random.Random, speech: Language, hard: bool) -> Problem:
    """A day or month one or two steps from today's. The person and the event make problems many; the table is one.

    Hard: further, and from yesterday's or tomorrow's.
    """
    unit, names, far = rng.choice((("day", speech.days, (2, 13)), ("month", speech.months, (2, 11))))
    steps = rng.randrange(far[0] + 1, far[1] + 1) if hard else rng.randrange(1, far[0] + 1)
    at, anchor = rng.randrange(len(names)), rng.choice((0, 1, 2)) if hard else 0
    who, event, sign = rng.choice(NAMES), rng.randrange(8), rng.choice((1, -1))
    now = at + (0, 1, -1)[anchor]  # yesterday was / tomorrow is
    answer = names[(now + sign * steps) % len(names)]
    tells = speech.say["future" if sign > 0 else "past"]
    shift = rng.choice(tells).format(
        of=speech.of(who), event=speech.events[event], n=steps, unit=speech.units[unit][steps > 1]
    )
    parts = (
        (speech.say[f"now {unit}"][anchor].format(at=names[at]), f"{names[now % len(names)]}"),
        (shift, f"{'+' if sign > 0 else '-'} {steps}"),
        (say(rng, speech, f"which {unit}"), ""),
    )
    text = " ".join(full for full, _ in parts)
    return Problem(f"{unit} {anchor} {at} {sign * steps} {who} {event}", text, [answer], "word only", parts)


def compare(rng: random.Random, speech: Language, hard: bool) -> Problem:
    """The largest or smallest of three numbers (hard: four to six that begin alike)."""
    if hard:
        base = rng.randrange(10, 100) * 100
        numbers = [base + n for n in rng.sample(range(100), rng.randrange(4, 7))]
    else:
        numbers = rng.sample(range(10, 100), 3) if rng.random() < 0.5 else rng.sample(range(100, 1000), 3)
    question, pick = rng.choice((("largest", max), ("smallest", min)))
    text = say(rng, speech, question, list=", ".join(map(str, numbers)))
    return Problem(f"{question} {sorted(numbers)}", text, [str(pick(numbers))], "number only")


def number(rng: random.Random, speech: Language, hard: bool) -> Problem:
    """Number words: two to be written in digits, the larger or smaller of two (hard: also one plus another)."""
    a, b = rng.sample(range(100, 1000) if hard else range(100), 2)
    kind = rng.choice(("digits", "digits", "largest", "smallest", *("plus",) * hard))
    if kind == "plus":
        b = rng.randrange(10, 100)
        text = say(rng, speech, kind, a=speech.number(a), b=speech.number(b))
        return Problem(f"words plus {a} {b}", text, [str(a + b)], "digits only")
    low, high = sorted((a, b))
    text = say(rng, speech, kind, list=f"{speech.number(a)}, {speech.number(b)}")
    if kind == "digits":
        both = [f"{a}{between}{b}" for between in (", ", " ", ",", "; ")]
        return Problem(f"words digits {low} {high}", text, both, "digits only")
    return Problem(f"words {kind} {low} {high}", text, [str(high if kind == "largest" else low)], "digits only")


def count(rng: random.Random, speech: Language, hard: bool) -> Problem:
    """How often one word stands in a list of three or four (hard: six to thirteen)."""
    length = rng.randrange(6, 14) if hard else rng.randrange(3, 5)
    word, *others = rng.sample(range(8), 4)
    times = rng.randrange(2, 8) if hard else rng.randrange(0, 4)
    listed = [word] * min(times, length) + [rng.choice(others) for _ in range(length - times)]
    rng.shuffle(listed)
    named = [speech.fruits[one] for one in listed]
    text = say(rng, speech, "count", list=", ".join(named), word=speech.fruits[word])
    parts = ((text, f"{', '.join(named)}: {speech.fruits[word]}"),)
    return Problem(f"count {sorted(listed)} {word}", text, [str(listed.count(word))], "number only", parts)


KINDS: Sequence[tuple[str, Callable[[random.Random, Language, bool], Problem], float]] = (
    ("read", read, 0.40),
    ("calendar", calendar, 0.20),
    ("compare", compare, 0.10),
    ("number", number, 0.15),
    ("count", count, 0.15),
)


# Kinds of which a training text holds several problems, and their shares of such texts.
SHORT: dict[str, tuple[Callable[[random.Random, Language, bool], Problem], float]] = {
    "calendar": (calendar, 0.10),
    "count": (count, 0.14),
    "number": (number, 0.09),
    "compare": (compare, 0.04),
}


def draw(rng: random.Random, difficulty: Difficulty) -> Draft:
    """One problem of one kind in one language, the five languages alike often."""
    kind, make, _ = rng.choices(KINDS, [share for _, _, share in KINDS])[0]
    name = rng.choice(tuple(LANGUAGES))
    speech = LANGUAGES[name]
    problem = make(rng, speech, difficulty == "hard")
    return Draft(
        identity=problem.identity,
        messages=[("user", f"{problem.text} {say(rng, speech, problem.form)}")],
        answer=problem.accept[0],
        scorer="exact",
        reference={"accept": problem.accept},
        slices={"lang": name, "kind": kind},
        max_tokens=16,
    )


def draw_many(rng: random.Random, questions: int, split: Split = "train") -> list[tuple[Role, str]]:
    """A conversation in one language, every answer right: training text. Questions of other splits' cases are left out.

    Either about one short story, or several problems of one kind, or number words one at a time.
    """
    speech, turns = rng.choice(list(LANGUAGES.values())), list[tuple[Role, str]]()
    kind = rng.choices(("story", "words", *SHORT), (0.55, 0.08, *(share for _, share in SHORT.values())))[0]
    if kind == "words":
        for _ in range(questions):
            n = rng.randrange(100)
            asked = say(rng, speech, "digits", list=speech.number(n)) if not turns else speech.number(n)
            turns += [("user", asked), ("assistant", str(n))]
        return turns
    if kind in SHORT:
        for _ in range(questions):
            problem = SHORT[kind][0](rng, speech, False)
            if split_of("multilingual", problem.identity) == split:
                text = problem.partly_brief(rng) if turns else f"{problem.text} {say(rng, speech, problem.form)}"
                turns += [("user", text), ("assistant", problem.accept[0])]
        return turns
    facts, found = rng.choice((_homes, _things, _goods))(rng, speech)
    for identity, asks, brief, answer, form in rng.sample(found, min(questions, len(found))):
        if split_of("multilingual", identity) == split:
            later = brief if brief and rng.random() < 0.4 else asks
            text = later if turns else f"{' '.join(facts)} {asks} {say(rng, speech, form)}"
            turns += [("user", text), ("assistant", answer)]
    return turns


Asked = tuple[str, str, str, str, str]  # identity, question, the same in a word or "", answer, form


def _homes(rng: random.Random, speech: Language) -> tuple[list[str], list[Asked]]:
    """What ``lives`` tells, and all that can be asked about it."""
    size = rng.randrange(2, 4)
    people, towns, meals = (rng.sample(range(many), size) for many in (len(NAMES), 10, 8))
    table = list(zip(people, towns, meals, strict=True))
    facts, found = list[str](), list[Asked]()
    for who, town, meal in table:
        said = {"name": NAMES[who], "city": speech.cities[town], "food": speech.foods[meal]}
        facts.append(say(rng, speech, "life", **said))
        right = {"where": "city", "eats what": "food", "eats there": "food", "lives in": "name", "eats": "name"}
        briefly = {"lives in": f"{said['city']}?", "eats": f"{said['food']}?"}
        for question, key in right.items():
            identity = f"lives {sorted(table)} {question} {who}"
            asks = say(rng, speech, question, **said)
            found.append((identity, asks, briefly.get(question, ""), said[key], "word only"))
    return facts, found


def _things(rng: random.Random, speech: Language) -> tuple[list[str], list[Asked]]:
    """What ``colours`` tells, and all that can be asked about it."""
    people = rng.sample(range(len(NAMES)), rng.randrange(2, 5))
    things = rng.sample(range(8), 3)
    table = [
        (who, rng.choice(things), shade) for who, shade in zip(people, rng.sample(range(8), len(people)), strict=True)
    ]
    facts, found = list[str](), list[Asked]()
    for who, what, shade in table:
        said = {"of": speech.of(NAMES[who]), "thing": speech.things[what], "colour": speech.colours[shade]}
        facts.append(say(rng, speech, "colour", **said))
        for question, answer, brief in (
            ("what colour", said["colour"], f"{NAMES[who]}?"),
            ("whose", NAMES[who], f"{said['colour']}?"),
        ):
            identity = f"colours {sorted(table)} {question} {who}"
            found.append((identity, say(rng, speech, question, **said), brief, answer, "word only"))
    return facts, found


def _goods(rng: random.Random, speech: Language) -> tuple[list[str], list[Asked]]:
    """What ``shopping`` tells, and all that can be asked about it."""
    people = rng.sample(range(len(NAMES)), rng.randrange(2, 5))
    goods = rng.sample(range(6), 3)
    amounts = rng.sample(range(2, 100), len(people))
    table = [(who, rng.choice(goods), n) for who, n in zip(people, amounts, strict=True)]
    facts, found = list[str](), list[Asked]()
    for who, what, n in table:
        said = {"name": NAMES[who], "good": speech.goods[what], "n": n}
        facts.append(say(rng, speech, "buys", **said))
        for question, answer, form, brief in (
            ("how many", str(n), "number only", f"{NAMES[who]}?"),
            ("buyer", NAMES[who], "word only", f"{n}?"),
        ):
            identity = f"shopping {sorted(table)} {question} {who}"
            found.append((identity, say(rng, speech, question, **said), brief, answer, form))
    return facts, found


SUITE = Suite(
    name="multilingual",
    about="Users who do not write English get wrong answers to the same questions.",
    draw=draw,
    margin=0.03,
)
