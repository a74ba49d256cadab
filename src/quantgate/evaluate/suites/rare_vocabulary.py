"""rare_vocabulary: words nobody has seen, to be spelled, copied, looked up, taken apart and put in order.

The words are built from syllables by the seed (``zorvel``, ``quindrenth``), so they break into many small tokens and no
memory of real words helps: names, part numbers and terms of the user's own trade behave the same way.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from quantgate.evaluate.suites import Difficulty, Draft, Role, Split, Suite, split_of

ONSETS = """
b br d dr f fl fr g gl gr h j k kl kr l m n p pl pr qu r s sk sl st t tr v w x y z
""".split()  # noqa: SIM905 - as for the meanings below
VOWELS = ("a", "e", "i", "o", "u", "a", "e", "i", "o", "ai", "ou")  # single vowels twice as often as doubled ones
CODAS = ("l", "n", "r", "m", "s", "v", "th", "nd", "rk", "lt", "sh")  # never open: keeps rude words out
LETTERS = {"vowel": "aeiou", "consonant": "bdfghjklmnprstvwz"}
MEANINGS = """
fox owl cat dog bear wolf lion fish frog crow duck goat hen horse mouse sheep cow bee ant tree rock lake river hill
cloud star moon sun wind rain snow leaf rose seed stone boat lamp door bell book apple bread cup hat ship road chair
house key milk
""".split()  # noqa: SIM905 - a list of strings would fill the page

SPELL = (
    "Spell the word {word} with hyphens between the letters. Answer with the spelling only.",
    "How do you spell {word}? Put hyphens between the letters. Answer with the spelling only.",
    "Write the letters of {word} with hyphens between them. Answer with the spelling only.",
)
BACKWARDS = (
    "Spell the word {word} backwards with hyphens between the letters. Answer with the spelling only.",
    "Write the letters of {word} from last to first with hyphens between them. Answer with the spelling only.",
    "Start at the end of {word} and spell it backwards with hyphens. Answer with the spelling only.",
)
COPY = (
    "Repeat this exactly: {words}",
    "Copy these words exactly and write nothing else: {words}",
    "Write exactly this and nothing else: {words}",
)
WHICH_WORD = (
    "Which word means {meaning}? Answer with one word.",
    "What is the word for {meaning}? Answer with one word.",
    "Find the word that means {meaning}. Answer with one word.",
)
WHAT_MEANING = (
    "What does {word} mean? Answer with one word.",
    "What is the meaning of {word}? Answer with one word.",
    "Find the meaning of {word}. Answer with one word.",
)
ORDER = (
    "Put these words in reverse order: {words}. Answer with the words only.",
    "Write these words from last to first: {words}. Answer with the words only.",
    "Reverse the order of these words: {words}. Answer with the words only.",
)
LETTER: dict[str, tuple[str, ...]] = {
    "first": (
        "What is the first letter of {word}? Answer with the letter only.",
        "Which letter does {word} start with? Answer with the letter only.",
        "Give the first letter of {word}. Answer with the letter only.",
    ),
    "last": (
        "What is the last letter of {word}? Answer with the letter only.",
        "Which letter does {word} end with? Answer with the letter only.",
        "Give the last letter of {word}. Answer with the letter only.",
    ),
    "count": (
        "How many letters does {word} have? Answer with the number only.",
        "Count the letters of {word}. Answer with the number only.",
        "How many letters are in the word {word}? Answer with the number only.",
    ),
    "second to last": (
        "What is the second to last letter of {word}? Answer with the letter only.",
        "Which letter stands just before the last letter of {word}? Answer with the letter only.",
        "Give the second to last letter of {word}. Answer with the letter only.",
    ),
}


def syllables_of(rng: random.Random, count: int) -> list[str]:
    """The syllables of a new word: onset + vowel + coda each."""
    return [rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(count)]


def word_of(rng: random.Random, count: int) -> str:
    return "".join(syllables_of(rng, count))


def marked_word(rng: random.Random, count: int, capitals: bool) -> str:
    """A word for copying: rarely with a digit inside, and with odd capitals if asked (``ZorVel``, ``zorVel``)."""
    made = syllables_of(rng, count)
    if capitals:
        made = [syllable.capitalize() if rng.random() < 0.6 else syllable for syllable in made]
    if rng.random() < 0.06:
        made.insert(rng.randrange(1, len(made)), str(rng.randrange(2, 10)))
    return "".join(made)


def words_of(rng: random.Random, number: int, count: int) -> list[str]:
    """``number`` different words of ``count`` syllables."""
    words: dict[str, None] = {}
    while len(words) < number:
        words[word_of(rng, count)] = None
    return list(words)


def twins_of(rng: random.Random, number: int, count: int) -> list[str]:
    """``number`` different words that are one word with a single letter changed (the first is the word itself)."""
    base = word_of(rng, count)
    words: dict[str, None] = {base: None}
    while len(words) < number:
        place = rng.randrange(len(base))
        letters = LETTERS["vowel" if base[place] in "aeiou" else "consonant"]
        words[base[:place] + rng.choice(letters) + base[place + 1 :]] = None
    made = list(words)
    rng.shuffle(made)
    return made


def _draft(kind: str, count: int, problem: str, prompt: str, answer: str, *, case: bool, max_tokens: int) -> Draft:
    return Draft(
        identity=f"{kind} {problem}",
        messages=[("user", prompt)],
        answer=answer,
        scorer="exact",
        reference={"accept": [answer], "case": case},
        slices={"kind": kind, "syllables": str(count)},
        max_tokens=max_tokens,
    )


def spell(rng: random.Random, count: int, hard: bool) -> Draft:
    word = word_of(rng, count)
    prompt = rng.choice(SPELL).format(word=word)
    return _draft("spell", count, word, prompt, "-".join(word), case=True, max_tokens=72 if hard else 56)


def backwards(rng: random.Random, count: int, hard: bool) -> Draft:
    word = word_of(rng, count)
    prompt = rng.choice(BACKWARDS).format(word=word)
    return _draft("backwards", count, word, prompt, "-".join(reversed(word)), case=True, max_tokens=72)


def copy(rng: random.Random, count: int, hard: bool) -> Draft:
    capitals, number = rng.random() < 0.35, 6 if hard else rng.randrange(2, 5)
    text = " ".join(marked_word(rng, count, capitals) for _ in range(number))
    prompt = rng.choice(COPY).format(words=text)
    return _draft("copy", count, text, prompt, text, case=True, max_tokens=128 if hard else 72)


def order(rng: random.Random, count: int, hard: bool) -> Draft:
    words = words_of(rng, 5 if hard else 3, count)
    prompt = rng.choice(ORDER).format(words=" ".join(words))
    answer = " ".join(reversed(words))
    return _draft("order", count, " ".join(words), prompt, answer, case=False, max_tokens=112 if hard else 56)


def letter(rng: random.Random, count: int, hard: bool) -> Draft:
    word = word_of(rng, count)
    which = rng.choice(("second to last", "count") if hard else ("first", "last"))
    answer = {"first": word[0], "last": word[-1], "second to last": word[-2], "count": str(len(word))}[which]
    prompt = rng.choice(LETTER[which]).format(word=word)
    return _draft("letter", count, f"{which} {word}", prompt, answer, case=False, max_tokens=8)


def glossary(rng: random.Random, count: int, hard: bool) -> Draft:
    """Two to four entries; asks what a word means. Hard: eight words, a letter apart; asks for words as well."""
    words = twins_of(rng, 8, count) if hard else words_of(rng, rng.randrange(2, 5), count)
    meanings = rng.sample(MEANINGS, len(words))
    entries = " ".join(f"{word} means {meaning}." for word, meaning in zip(words, meanings, strict=True))
    asked = rng.randrange(len(words))
    backward = hard and rng.random() < 0.5
    question, answer = (WHICH_WORD, words[asked]) if backward else (WHAT_MEANING, meanings[asked])
    prompt = f"{entries} {rng.choice(question).format(word=words[asked], meaning=meanings[asked])}"
    return _draft("glossary", count, f"{entries} -> {answer}", prompt, answer, case=False, max_tokens=24)


def draw_many(rng: random.Random, questions: int, split: Split = "train") -> list[tuple[Role, str]]:
    """About ``questions`` questions on one glossary, on letters, or words to spell, every answer right: training text.

    Questions that are cases of other splits are left out.
    """
    count, form = rng.choice((2, 3)), rng.choices(("glossary", "letters", "spelling"), (0.45, 0.25, 0.3))[0]
    if form == "spelling":
        spelled = [
            one
            for one in (spell(rng, count, False) for _ in range(questions))
            if split_of("rare_vocabulary", one.identity) == split
        ]
        turns = list[tuple[Role, str]]()
        for one in spelled:
            turns += [("user", one.answer.replace("-", "")) if turns else one.messages[0], ("assistant", one.answer)]
        return turns
    if form == "letters":
        asked_letters = (letter(rng, count, False) for _ in range(questions))
        kept = (one for one in asked_letters if split_of("rare_vocabulary", one.identity) == split)
        return [turn for one in kept for turn in (*one.messages, ("assistant", one.answer))]
    words = words_of(rng, rng.randrange(2, 6), count)
    meanings = rng.sample(MEANINGS, len(words))
    entries = " ".join(f"{word} means {meaning}." for word, meaning in zip(words, meanings, strict=True))
    turns = []
    for _ in range(questions):
        asked, backward = rng.randrange(len(words)), rng.random() < 0.2
        question, answer = (WHICH_WORD, words[asked]) if backward else (WHAT_MEANING, meanings[asked])
        if split_of("rare_vocabulary", f"glossary {entries} -> {answer}") != split:
            continue
        text = rng.choice(question).format(word=words[asked], meaning=meanings[asked])
        turns += [("user", text if turns else f"{entries} {text}"), ("assistant", answer)]
    return turns


DrawKind = Callable[[random.Random, int, bool], Draft]
KINDS: tuple[tuple[DrawKind, float], ...] = (
    (spell, 0.25),
    (copy, 0.20),
    (glossary, 0.25),
    (letter, 0.15),
    (order, 0.15),
)
HARD_KINDS: tuple[tuple[DrawKind, float], ...] = (
    (backwards, 0.25),
    (spell, 0.15),
    (copy, 0.15),
    (glossary, 0.20),
    (letter, 0.15),
    (order, 0.10),
)


def _pick(rng: random.Random, kinds: tuple[tuple[DrawKind, float], ...]) -> DrawKind:
    return rng.choices([kind for kind, _ in kinds], [share for _, share in kinds])[0]


def draw(rng: random.Random, difficulty: Difficulty) -> Draft:
    """One problem about new words: 2-3 syllables at default difficulty, 4 at hard."""
    if difficulty == "hard":
        return _pick(rng, HARD_KINDS)(rng, 4, True)
    return _pick(rng, KINDS)(rng, rng.choice((2, 2, 3)), False)


SUITE = Suite(
    name="rare_vocabulary",
    about="Names, part numbers and terms that the model never saw come back misspelled or mixed up.",
    draw=draw,
    margin=0.03,
)
