"""chat: instructions that a program can check: select, sort, reverse, repeat, pick words, write a sentence.

The words stand in the prompt, so one answer is right, and the operation composes freely with case, separator, wrapper
and added words. Sentences are free: whatever keeps the instructions passes. Hard: more words, three constraints, two
operations in a row, and letters that must not be used.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from quantgate.evaluate.suites import Difficulty, Draft, Role, Suite

WORDS: dict[str, tuple[str, ...]] = {
    "colours": (
        "red",
        "blue",
        "green",
        "white",
        "black",
        "yellow",
        "brown",
        "pink",
        "gold",
        "grey",
        "orange",
        "violet",
    ),
    "animals": ("dog", "cat", "horse", "bird", "goat", "rabbit", "duck", "fox", "mouse", "lion", "wolf", "tiger"),
    "fruits": ("pear", "plum", "fig", "lime", "apple", "grape", "lemon", "cherry", "mango", "melon", "banana", "peach"),
    "tools": ("hammer", "saw", "drill", "brush", "knife", "spade", "rake", "axe", "ladder", "rope", "nail", "shovel"),
    "cities": (
        "rome",
        "paris",
        "london",
        "oslo",
        "berlin",
        "madrid",
        "vienna",
        "cairo",
        "tokyo",
        "delhi",
        "lima",
        "boston",
    ),
    "clothes": ("hat", "coat", "shirt", "sock", "shoe", "glove", "scarf", "belt", "dress", "jacket", "boot", "tie"),
}
ALL = tuple(word for words in WORDS.values() for word in words)
COUNTS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
EXTRA = ("start", "okay", "here", "done", "end", "stop")

TASKS = {"select": 0.18, "sort": 0.18, "reverse": 0.14, "repeat": 0.12, "pick": 0.18, "sentence": 0.20}
ORDERS = (
    "Words: {words}. {do}. {how} Only the answer.",
    "{do}. {how} Only the answer. Words: {words}.",
    "Words: {words}. {do}. {how} Write nothing else.",
    "Use these words: {words}. {do}. {how} Nothing else.",
)
BARE = ("{do}. {how} Only the answer.", "{do}. {how} Write nothing else.", "Please {lower_do}. {how} Only the answer.")

# Constraint kinds and, for each choice, what the prompt says.
CASES = {
    "upper": ("Use capital letters only.", "Write it in capital letters.", "All in capital letters."),
    "lower": ("Use small letters only.", "Write it in small letters.", "All in small letters."),
}
SEPARATORS = {
    ",": ("Put commas between the words.", "Separate the words with commas."),
    ";": ("Put semicolons between the words.", "Separate the words with semicolons."),
    "line": ("Write one word per line.", "Put each word on a line of its own."),
    "numbered": ("Number them 1. 2. 3., one per line.", "Write a list with the numbers 1. 2. 3., one word per line."),
    "-": ("Put dashes between the words.", "Separate the words with dashes."),
}
CASED: dict[str, Callable[[str], str]] = {"upper": str.upper, "lower": str.lower, "": str}
JOINED = {",": ", ", ";": "; ", "line": "\n", "numbered": "\n", "-": " - ", "any": ", "}
WRAPPERS = {
    "[]": ("Put square brackets around it all.", "Put the whole answer in square brackets."),
    '""': ("Put double quotes around it all.", "Put the whole answer in double quotes."),
    "()": ("Put round brackets around it all.", "Put the whole answer in round brackets."),
}

Check = dict[str, Any]
ADJECTIVES = ("red", "big", "small", "old", "new", "cold", "warm", "soft", "fast", "good")
NO_E_NOUNS = ("fox", "cat", "dog", "bird", "duck", "goat", "lion", "wolf", "hat", "coat", "shirt", "sock")
NO_E_ADJECTIVES = ("big", "small", "old", "cold", "warm", "soft", "fast", "good")
# Sentences of 4 to 9 words about a noun, with an adjective; the second kind has no letter e.
FRAMES = {
    4: ("The {noun} is {adjective}", "A {noun} is {adjective}"),
    5: ("The {noun} is very {adjective}", "A {noun} is so {adjective}"),
    6: ("The {noun} is very {adjective} today", "A {noun} is so {adjective} today"),
    7: ("The {noun} here is very {adjective} today", "A {noun} in town is so {adjective}"),
    8: ("The {noun} over here is very {adjective} today", "A {noun} in town is so {adjective} today"),
    9: ("The {noun} over there is very very {adjective} today", "A {noun} in this town is so {adjective} today"),
}


def operate(rng: random.Random, words: list[str], task: str, hard: bool) -> tuple[str, list[str]]:
    """What the prompt asks for, and the words that answer it."""
    if task == "sort":
        if hard and rng.random() < 0.5:
            return "Sort them from z to a", sorted(words, reverse=True)
        if hard and rng.random() < 0.5:
            n = rng.randrange(2, len(words))
            return f"Sort them from a to z and write the first {COUNTS[n]}", sorted(words)[:n]
        return rng.choice(("Sort them from a to z", "Sort them by the alphabet")), sorted(words)
    if task == "reverse":
        if hard and rng.random() < 0.5:
            n = rng.randrange(2, len(words))
            return f"Reverse their order and write the first {COUNTS[n]}", words[::-1][:n]
        return rng.choice(("Reverse their order", "Write them from last to first")), words[::-1]
    n = rng.randrange(2, len(words))
    if hard and rng.random() < 0.5:
        gone = rng.randrange(len(words))
        return f"Write them all but not {words[gone]}", words[:gone] + words[gone + 1 :]
    if rng.random() < 0.5:
        return f"Write the first {COUNTS[n]}", words[:n]
    return f"Write the last {COUNTS[n]}", words[-n:]


def pick(rng: random.Random, words: list[str], hard: bool) -> tuple[str, list[str]]:
    """One word by letter or length, or all words of one kind."""
    longest = max(words, key=len)
    forms = ["letter"] if hard else ["letter", "letter"]
    if sum(len(word) == len(longest) for word in words) == 1:
        forms.append("longest")
    form = rng.choice(forms)
    if form == "longest":
        return "Write the longest word", [longest]
    word = rng.choice(words)
    if hard:
        return f"Write the words that do not start with {word[0]}", [one for one in words if one[0] != word[0]]
    return f"Write the word that starts with {word[0]}", [word]


def pick_kind(rng: random.Random, hard: bool) -> tuple[list[str], str, list[str]]:
    """Words of two or three kinds, of which one is asked for."""
    kind, *others = rng.sample(list(WORDS), 3 if hard else 2)
    wanted = rng.sample(WORDS[kind], rng.choice((3, 4) if hard else (2, 3)))
    noise = [rng.choice(WORDS[other]) for other in others for _ in range(2)]
    words = list(dict.fromkeys(wanted + noise))
    rng.shuffle(words)
    return words, f"Write only the {kind}", [word for word in words if word in WORDS[kind]]


def draw_words(rng: random.Random, hard: bool) -> list[str]:
    """3 or 4 words, 6 or 7 if hard; unless hard, no two start alike."""
    count, words = rng.choice((6, 7) if hard else (3, 4)), list[str]()
    while len(words) < count:
        word = rng.choice(ALL)
        if word not in words and (hard or all(word[0] != one[0] for one in words)):
            words.append(word)
    return words


@dataclass
class Form:
    """The constraints of one prompt: their names (for the identity), their sentences, the checks and the answer."""

    keys: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    answer: str = ""

    def add(self, key: str, sentence: str, check: Check | None = None) -> None:
        self.keys.append(key)
        self.said.append(sentence)
        self.checks += [check] if check else []


def constraints(rng: random.Random, count: int, many: bool) -> list[str]:
    """Which ``count`` constraints a list gets; a word is added on one side only."""
    kinds = ["case", "wrapper", "first", "last", *(["separator"] * 2 if many else [])]
    chosen = list[str]()
    while len(chosen) < count:
        kind = rng.choice(kinds)
        if kind not in chosen and not {kind, *chosen} >= {"first", "last"}:
            chosen.append(kind)
    return chosen


def formatted(rng: random.Random, items: list[str], count: int, title: bool) -> Form:
    """``items`` written under ``count`` constraints."""
    form, case, separator, wrapper, many = Form(), "", "any", "", len(items) > 1
    chosen = constraints(rng, count, many)
    for kind in chosen:
        if kind == "case":
            case = rng.choice(list(CASES)) if title else "upper"
            form.add(case, rng.choice(CASES[case]), {"check": f"all_{case}"})
        elif kind == "separator":
            separator = rng.choice([one for one in SEPARATORS if "wrapper" not in chosen or one in ",;-"])
            form.add(separator, rng.choice(SEPARATORS[separator]))
        elif kind == "wrapper":
            wrapper = rng.choice(list(WRAPPERS))
            form.add(
                wrapper, rng.choice(WRAPPERS[wrapper]), {"check": "wrapped", "left": wrapper[0], "right": wrapper[1]}
            )
        else:
            word = rng.choice(EXTRA)
            said = f"Add the word {word} {'before' if kind == 'first' else 'after'} {'them' if many else 'it'}."
            form.add(f"{kind} {word}", said)
            items = [word, *items] if kind == "first" else [*items, word]
    form.checks.append({"check": "items", "items": items, "separator": separator})
    shown = [CASED[case](item) for item in items]
    if separator == "numbered":
        shown = [f"{number}. {item}" for number, item in enumerate(shown, 1)]
    form.answer = wrapper[:1] + JOINED[separator].join(shown) + wrapper[1:]
    return form


def listing(rng: random.Random, task: str, hard: bool) -> Draft:
    count = 3 if hard else rng.choice((1, 2))
    title = rng.random() < 0.3  # words shown as Pear, Plum
    if task == "repeat":
        word, n = rng.choice(ALL), rng.randrange(5, 10) if hard else rng.randrange(2, 6)
        words, do, items = (
            list[str](),
            f"Write the word {word.title() if title else word} {COUNTS[n]} times",
            [word] * n,
        )
        template = rng.choice(BARE)
    else:
        if task == "pick" and hard and rng.random() < 0.5:
            words, do, items = pick_kind(rng, hard)
        else:
            words = draw_words(rng, hard)
            do, items = pick(rng, words, hard) if task == "pick" else operate(rng, words, task, hard)
        template = rng.choice(ORDERS)
    if title:
        items = [item.title() for item in items]
    form = formatted(rng, items, count, title)
    listed = ", ".join(word.title() if title else word for word in words)
    how = " ".join(form.said)
    prompt = template.format(words=listed, do=do, lower_do=do[0].lower() + do[1:], how=how)
    identity = f"{task} {' '.join(words)} -> {' '.join(items)} {title} {' '.join(sorted(form.keys))}"
    return _draft(task, identity, prompt, form.answer, form.checks, count)


def sentence(rng: random.Random, hard: bool) -> Draft:
    """A free sentence about a noun; the gold answer follows from the constraints alone."""
    no_e = hard and rng.random() < 0.5
    noun = rng.choice(NO_E_NOUNS if no_e else WORDS["animals"] + WORDS["clothes"] + WORDS["tools"])
    count, n = (3, rng.randrange(6, 10)) if hard else (rng.choice((1, 2)), rng.randrange(4, 8))
    adjective, upper, quoted, end, form = "old" if no_e else "nice", False, False, ".", Form()
    form.add(str(n), f"Use exactly {COUNTS[n]} words.", {"check": "words_exactly", "n": n})
    if no_e:
        form.add("no e", "Do not use the letter e.", {"check": "excludes_letter", "letter": "e"})
    for kind in rng.sample(("include", "case", "quoted", "ending"), count - 1 - no_e):
        if kind == "include":
            adjective = rng.choice(NO_E_ADJECTIVES if no_e else ADJECTIVES)
            form.add(adjective, f"Use the word {adjective}.", {"check": "includes", "text": adjective})
        elif kind == "case":
            upper = True
            form.add("upper", rng.choice(CASES["upper"]), {"check": "all_upper"})
        elif kind == "quoted":
            quoted = True
            form.add("quoted", rng.choice(WRAPPERS['""']), {"check": "quoted"})
        else:
            end = rng.choice("!?")
            mark = "an exclamation mark" if end == "!" else "a question mark"
            form.add(end, f"End it with {mark}.", {"check": "ends_with", "text": end})
    rng.shuffle(form.said)
    form.checks += [{"check": "includes", "text": noun}, {"check": "sentences_exactly", "n": 1}]
    text = FRAMES[n][no_e].format(noun=noun, adjective=adjective) + end
    text = text.upper() if upper else text
    do = rng.choice(
        ("Write a sentence with the word {}", "Write one sentence with the word {}", "Make a sentence with {}")
    )
    prompt = f"{do.format(noun)}. {' '.join(form.said)}"
    identity = f"sentence {noun} {' '.join(sorted(form.keys))}"
    return _draft("sentence", identity, prompt, f'"{text}"' if quoted else text, form.checks, count)


def draw_many(rng: random.Random, questions: int) -> list[tuple[Role, str]]:
    """Several operations on lists of words, every answer right: training text.

    One list with many operations, or one operation on many lists: words of one kind, other capitals. The operations
    stand alone here, without the constraints that every case has, so none of these is a case.
    """
    form = rng.choice(("one list", "kinds", "capitals"))
    if form == "kinds":
        return _turns([_of_a_kind(rng) for _ in range(questions)])
    if form == "capitals":
        said, change = rng.choice(CASES["upper"]), str.upper
        if rng.random() < 0.25:
            said, change = rng.choice(CASES["lower"]), str.lower
        return _turns([_changed(rng, said, change) for _ in range(questions)])
    words, title, asked = draw_words(rng, False), rng.random() < 0.3, list[tuple[str, str, str]]()
    listed = ", ".join(word.title() if title else word for word in words)
    for _ in range(questions):
        task = rng.choice(("select", "sort", "reverse", "pick"))
        do, items = pick(rng, words, False) if task == "pick" else operate(rng, words, task, False)
        answer = ", ".join(item.title() if title else item for item in items)
        asked.append((f"Words: {listed}. {do}. Only the answer.", f"{do}.", answer))
    return _turns(asked)


def _turns(asked: list[tuple[str, str, str]]) -> list[tuple[Role, str]]:
    """(question in full, the same in few words, answer): the first question is put in full."""
    turns = list[tuple[Role, str]]()
    for full, brief, answer in asked:
        turns += [("user", brief if turns else full), ("assistant", answer)]
    return turns


def _of_a_kind(rng: random.Random) -> tuple[str, str, str]:
    words, do, items = pick_kind(rng, False)
    title = rng.random() < 0.3
    listed, answer = (", ".join(word.title() if title else word for word in each) for each in (words, items))
    brief = f"{listed}: {do.rpartition(' ')[2]}" if rng.random() < 0.5 else f"Words: {listed}. {do}."
    return f"Words: {listed}. {do}. Only the answer.", brief, answer


def _changed(rng: random.Random, said: str, change: Callable[[str], str]) -> tuple[str, str, str]:
    """Words in other capitals."""
    title = change is str.lower or rng.random() < 0.3
    words = [word.title() if title else word for word in rng.sample(ALL, rng.randrange(1, 5))]
    listed = ", ".join(words)
    return f"Words: {listed}. Write them all. {said} Only the answer.", listed, change(listed)


def _draft(task: str, identity: str, prompt: str, answer: str, checks: list[Check], count: int) -> Draft:
    return Draft(
        identity=identity,
        messages=[("user", prompt)],
        answer=answer,
        scorer="instructions",
        reference={"checks": checks},
        slices={"task": task, "constraints": str(count)},
        max_tokens=96 if count < 3 else 128,
    )


def draw(rng: random.Random, difficulty: Difficulty) -> Draft:
    hard = difficulty == "hard"
    task = rng.choices(list(TASKS), list(TASKS.values()))[0]
    return sentence(rng, hard) if task == "sentence" else listing(rng, task, hard)


SUITE = Suite(
    name="chat",
    about="Answers ignore the form that was asked for: length, order, case, separators, words to use or to avoid.",
    draw=draw,
    margin=0.03,
)
