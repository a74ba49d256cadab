"""long_context: find a record in a long list, over list length x depth of the asked record, up to 2,048 tokens.

A context is a list of lines ``pink fox: 4821``. In hard lists names are dealt on a ring: every adjective meets several
nouns and every noun several adjectives, so no single word of a name finds its line. In others that happens only where
there are more lines than words. One context serves many questions: ``draw_many`` writes them as one conversation for
training, and ``draw`` asks a single one.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal

from quantgate.evaluate.suites import Difficulty, Draft, Role, Suite
from quantgate.records import digest_of

Kind = Literal["lookup", "hop", "reverse", "pair"]

ADJECTIVES = """
red blue green grey pink gold black white dark pale big small tall short wide thin old new warm cold soft hard fast
slow calm loud wild kind wise shy dry wet rich poor full clean sharp round sweet brave
""".split()  # noqa: SIM905 - a list of strings would fill the page
NOUNS = """
fox owl cat dog bear wolf lion fish frog crow duck goat hen horse mouse sheep cow bee ant tree rock lake river hill
cloud star moon sun wind rain snow leaf rose seed stone boat lamp door bell book
""".split()  # noqa: SIM905 - a list of strings would fill the page

RECORDS = {8: 0.20, 16: 0.30, 32: 0.35, 64: 0.10, 128: 0.05}  # lines -> share; a digit line is about 10 tokens
HARD_RECORDS = {112: 0.25, 144: 0.25, 176: 0.50}
MOST_RECORDS = 400  # what the ring of 40 x 40 words deals with every word of a name still shared
WORD_VALUES = 0.15  # share of lines whose code is two nouns, not four digits
HOP_CONTEXTS = 0.35  # share of hard contexts where some lines point at another line
HOP_LINES = 0.20  # share of lines in such a context that point
BANDS = ("0-0.2", "0.2-0.4", "0.4-0.6", "0.6-0.8", "0.8-1")

HEADERS = (
    "Here are the codes.",
    "Read this list of codes.",
    "This is a list of names and codes.",
    "Each line has a name and its code.",
)
HOP_RULE = 'A line with "same as" has the same code as that other name.'
QUESTIONS: dict[Kind, tuple[str, ...]] = {
    "lookup": (
        "What is the code of {name}? Answer with the code only.",
        "Which code does {name} have? Answer with the code only.",
        "Give the code of {name}. Answer with the code only.",
        "Find the code of {name} in the list. Answer with the code only.",
    ),
    "reverse": (
        "Which name has the code {value}? Answer with the name only.",
        "What is the name with the code {value}? Answer with the name only.",
        "Find the name that has the code {value}. Answer with the name only.",
    ),
    "pair": (
        "What are the codes of {name} and {other}? Answer with the two codes in this order, with a comma between them.",
        "Give the codes of {name} and {other}. Answer with the two codes in this order, with a comma between them.",
        "Find the codes of {name} and {other}. Answer with the two codes in this order, with a comma between them.",
    ),
}
QUESTIONS["hop"] = QUESTIONS["lookup"]  # the question looks the same; the line it leads to points elsewhere
BRIEFLY = ("{name}?", "And {name}?", "The code of {name}?")  # how a conversation goes on after its first question
BRIEF = 0.7  # share of later questions put so


@dataclass(frozen=True)
class Context:
    """One list: line ``i`` reads ``names[i]: shown[i]`` and its code is ``codes[i]``."""

    names: list[str]
    codes: list[str]
    shown: list[str]  # the code, or "same as <another name>"
    pointing: frozenset[int]  # the lines that point; their targets never point themselves

    def text(self) -> str:
        return "\n".join(f"{name}: {shown}" for name, shown in zip(self.names, self.shown, strict=True))


@dataclass(frozen=True)
class Question:
    kind: Kind
    line: int  # the line that the question is about; of a pair, the first
    text: str
    answer: str


def deal_names(rng: random.Random, count: int, sharing: int = 1) -> list[str]:
    """``count`` different names in random order, every word of them in ``sharing`` names (more where words run out).

    Adjective ``i`` of ``g`` takes the nouns ``i .. i + m - 1`` around a ring of ``g``, with ``g * m >= count``.
    """
    m = max(sharing, math.ceil(count / len(NOUNS)))
    g = max(m, math.ceil(count / m))
    adjectives, nouns = rng.sample(ADJECTIVES, g), rng.sample(NOUNS, g)
    names = [f"{adjectives[i]} {nouns[(i + step) % g]}" for step in range(m) for i in range(g)][:count]
    rng.shuffle(names)
    return names


def draw_context(rng: random.Random, count: int, *, hops: bool, sharing: int = 1) -> Context:
    """A list of ``count`` lines with different codes; with ``hops``, some lines point at another line.

    ``sharing`` as for ``deal_names``.
    """
    if not 4 <= count <= MOST_RECORDS:
        raise ValueError(f"long_context: {count} records; choose from 4 to {MOST_RECORDS}")
    names = deal_names(rng, count, sharing)
    codes = [str(number) for number in rng.sample(range(1000, 10000), count)]
    taken: dict[str, None] = {}
    for line in range(count):
        if rng.random() < WORD_VALUES:
            words = " ".join(rng.sample(NOUNS, 2))
            if words not in taken:  # codes stay different, so a reverse question has one answer
                taken[words] = None
                codes[line] = words
    shown = list(codes)
    pointing = rng.sample(range(count), max(1, round(count * HOP_LINES))) if hops else []
    for line in pointing:
        target = rng.choice([other for other in range(count) if other not in pointing])
        shown[line], codes[line] = f"same as {names[target]}", codes[target]
    return Context(names, codes, shown, frozenset(pointing))


def band(line: int, count: int) -> str:
    """The fifth of the list that a line stands in, as a slice value."""
    return BANDS[int((line + 0.5) / count * len(BANDS))]


def ask(rng: random.Random, context: Context, kind: Kind, free: list[int]) -> Question:
    """A question about one of the ``free`` lines: first a depth band, evenly, then a line in it."""
    count = len(context.names)
    lines = [line for line in free if (line in context.pointing) == (kind == "hop")]
    bands = sorted({band(line, count) for line in lines})
    chosen = rng.choice(bands)
    line = rng.choice([line for line in lines if band(line, count) == chosen])
    other = rng.choice([other for other in range(count) if other != line])
    text = rng.choice(QUESTIONS[kind]).format(
        name=context.names[line], value=context.codes[line], other=context.names[other]
    )
    answer = context.codes[line]
    if kind == "reverse":
        answer = context.names[line]
    elif kind == "pair":
        answer = f"{answer}, {context.codes[other]}"
    return Question(kind, line, text, answer)


def _pick_context(
    rng: random.Random, difficulty: Difficulty, records: int | None, sharing: int | None = None
) -> Context:
    """``sharing`` None: 1, and if hard so many that half a name leaves many lines."""
    shares = RECORDS if difficulty == "default" else HARD_RECORDS
    count = records if records is not None else rng.choices(list(shares), list(shares.values()))[0]
    if sharing is None:
        sharing = max(2, math.isqrt(count // 2)) if difficulty == "hard" else 1
    return draw_context(rng, count, hops=difficulty == "hard" and rng.random() < HOP_CONTEXTS, sharing=sharing)


def _pick_kind(rng: random.Random, difficulty: Difficulty, context: Context, free: list[int]) -> Kind:
    if difficulty == "default":
        return "lookup"
    if not context.pointing:
        return rng.choices(("lookup", "reverse", "pair"), (0.4, 0.3, 0.3))[0]
    hops_left = sum(line in context.pointing for line in free)
    if hops_left == len(free):
        return "hop"
    return "hop" if hops_left and rng.random() < 0.75 else "lookup"


def _opening(rng: random.Random, context: Context, question: Question) -> str:
    header = rng.choice(HEADERS) + (f" {HOP_RULE}" if context.pointing else "")
    return f"{header}\n{context.text()}\n{question.text}"


def draw(rng: random.Random, difficulty: Difficulty) -> Draft:
    """One list and one question. The identity is the question's line and answer, and the digest of the whole list."""
    context = _pick_context(rng, difficulty, None)
    count = len(context.names)
    everything = list(range(count))
    question = ask(rng, context, _pick_kind(rng, difficulty, context, everything), everything)
    accepted = [question.answer]
    if question.kind == "pair":
        accepted.append(question.answer.replace(", ", ","))
    list_digest = digest_of([context.names, context.shown])[7:27]
    return Draft(
        identity=f"{question.kind} {context.names[question.line]} {question.answer} {list_digest}",
        messages=[("user", _opening(rng, context, question))],
        answer=question.answer,
        scorer="exact",
        reference={"accept": accepted, "case": False},
        slices={"records": str(count), "depth": band(question.line, count), "kind": question.kind},
        max_tokens=28 if question.kind == "pair" else 16,
    )


def draw_many(
    rng: random.Random,
    difficulty: Difficulty,
    questions: int,
    *,
    records: int | None = None,
    sharing: int | None = None,
) -> list[tuple[Role, str]]:
    """One list and several questions about different lines of it, every answer right: training text.

    The first user message holds the list and the first question, later ones a question alone, most of them in a few
    words. Gives as many questions as asked for, at most one per line. ``records`` (4 to 400 lines) overrides the
    difficulty's own length; a line costs about 12 tokens and a question with its answer 15 to 35, and the caller keeps
    the sum below its context. ``sharing`` as for ``deal_names``. Raises ValueError for a length outside that range.
    """
    context = _pick_context(rng, difficulty, records, sharing)
    free, messages = list(range(len(context.names))), list[tuple[Role, str]]()
    while free and len(messages) < 2 * questions:
        question = ask(rng, context, _pick_kind(rng, difficulty, context, free), free)
        free.remove(question.line)
        text = question.text if messages else _opening(rng, context, question)
        if messages and question.kind == "lookup" and rng.random() < BRIEF:
            text = rng.choice(BRIEFLY).format(name=context.names[question.line])
        messages += [("user", text), ("assistant", question.answer)]
    return messages


SUITE = Suite(
    name="long_context",
    about="Facts far back in a long prompt are no longer found, or the wrong one of two similar facts is.",
    draw=draw,
    margin=0.03,
)
