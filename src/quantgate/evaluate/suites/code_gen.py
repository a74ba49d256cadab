"""code_gen: compose list and string functions into one Python expression, judged by running it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from quantgate.evaluate.suites import Difficulty, Draft, Suite


@dataclass(frozen=True)
class Step:
    """One operation: words for the prompt, and the expression around what came before."""

    name: str
    words: tuple[str, ...]
    code: str  # {e} is the expression so far, {k} the constant
    constants: range | None = None


KEEP = (
    Step("even", ("keep the even numbers", "keep only even numbers"), "[x for x in {e} if x % 2 == 0]"),
    Step("odd", ("keep the odd numbers", "keep only odd numbers"), "[x for x in {e} if x % 2 == 1]"),
    Step("above", ("keep the numbers greater than {k}", "keep numbers above {k}"), "[x for x in {e} if x > {k}]", range(0, 16)),
    Step("below", ("keep the numbers less than {k}", "keep numbers below {k}"), "[x for x in {e} if x < {k}]", range(4, 21)),
)
MAP = (
    Step("add", ("add {k} to each", "add {k} to every number"), "[x + {k} for x in {e}]", range(1, 21)),
    Step("sub", ("subtract {k} from each", "take {k} away from every number"), "[x - {k} for x in {e}]", range(1, 21)),
    Step("mul", ("multiply each by {k}", "multiply every number by {k}"), "[x * {k} for x in {e}]", range(2, 10)),
    Step("square", ("square each", "square every number"), "[x * x for x in {e}]"),
    Step("negate", ("negate each", "flip the sign of every number"), "[-x for x in {e}]"),
)
ORDER = (
    Step("sort", ("sort them", "put them in rising order"), "sorted({e})"),
    Step("down", ("sort them from high to low", "put them in falling order"), "sorted({e}, reverse=True)"),
    Step("reverse", ("reverse the list", "turn the list around"), "{e}[::-1]"),
    Step("first", ("keep the first {k}", "take the first {k}"), "{e}[:{k}]", range(2, 8)),
    Step("last", ("keep the last {k}", "take the last {k}"), "{e}[-{k}:]", range(2, 8)),
    Step("drop", ("drop the first {k}", "leave out the first {k}"), "{e}[{k}:]", range(1, 6)),
    Step("unique", ("remove duplicates and sort", "sort them without duplicates"), "sorted(set({e}))"),
)
END = (
    Step("sum", ("sum them", "add them all up"), "sum({e})"),
    Step("len", ("count them", "tell how many there are"), "len({e})"),
)
TEXT = (
    Step("upper", ("make it upper case", "write it in capital letters"), "{e}.upper()"),
    Step("lower", ("make it lower case", "write it in small letters"), "{e}.lower()"),
    Step("reverse", ("reverse it", "turn it around"), "{e}[::-1]"),
    Step("first", ("keep the first {k} characters", "take the first {k} characters"), "{e}[:{k}]", range(2, 12)),
    Step("last", ("keep the last {k} characters", "take the last {k} characters"), "{e}[-{k}:]", range(2, 12)),
    Step("drop", ("drop the first {k} characters", "leave out the first {k} characters"), "{e}[{k}:]", range(1, 8)),
    Step("swap", ("replace every {a} with {b}", "change each {a} into {b}"), "{e}.replace('{a}', '{b}')"),
    Step("remove", ("remove every {a}", "take out each {a}"), "{e}.replace('{a}', '')"),
    Step("join", ("put a dash between its words", "join its words with a dash"), "'-'.join({e}.split())"),
)
TEXT_END = (
    Step("len", ("count the characters", "tell how long it is"), "len({e})"),
    Step("count", ("count how often {a} occurs", "tell how many {a} there are"), "{e}.count('{a}')"),
)
LETTERS = "aeiorstnlm"
WORDS = ("tree", "lemon", "Storm", "salt", "Otter", "rain", "moon", "Iron", "mint", "stone", "Letter", "melon")
ASKS = (
    "Write one Python expression over the {kind} {name}: {steps}. Answer with the expression only.",
    "Python, one expression. Start with the {kind} {name}: {steps}. Only the expression.",
    "Give one Python expression that does this to the {kind} {name}: {steps}. Expression only.",
)


def apply(step: Step, value: Any, k: int, a: str, b: str) -> Any:
    """What the step does, in plain Python: the outputs that an answer is held against."""
    if isinstance(value, str):
        return {
            "upper": lambda: value.upper(),
            "lower": lambda: value.lower(),
            "reverse": lambda: value[::-1],
            "first": lambda: value[:k],
            "last": lambda: value[-k:],
            "drop": lambda: value[k:],
            "swap": lambda: value.replace(a, b),
            "remove": lambda: value.replace(a, ""),
            "join": lambda: "-".join(value.split()),
            "len": lambda: len(value),
            "count": lambda: value.count(a),
        }[step.name]()
    return {
        "even": lambda: [x for x in value if x % 2 == 0],
        "odd": lambda: [x for x in value if x % 2 == 1],
        "above": lambda: [x for x in value if x > k],
        "below": lambda: [x for x in value if x < k],
        "add": lambda: [x + k for x in value],
        "sub": lambda: [x - k for x in value],
        "mul": lambda: [x * k for x in value],
        "square": lambda: [x * x for x in value],
        "negate": lambda: [-x for x in value],
        "sort": lambda: sorted(value),
        "down": lambda: sorted(value, reverse=True),
        "reverse": lambda: value[::-1],
        "first": lambda: value[:k],
        "last": lambda: value[-k:],
        "drop": lambda: value[k:],
        "unique": lambda: sorted(set(value)),
        "sum": lambda: sum(value),
        "len": lambda: len(value),
    }[step.name]()


def draw(rng: random.Random, difficulty: Difficulty) -> Draft:
    kind = rng.choices(("list", "string"), (0.65, 0.35))[0]
    count = rng.choice((4, 5) if difficulty == "hard" else (2, 3))
    steps = _steps(rng, kind, count)
    name = "xs" if kind == "list" else "s"
    inputs = [_input(rng, kind) for _ in range(5)]
    outputs, code, said, identity = list(inputs), name, [], [kind]
    for step in steps:
        k = rng.choice(step.constants) if step.constants else 0
        a, b = rng.sample(LETTERS, 2)
        said.append(rng.choice(step.words).format(k=k, a=a, b=b))
        code = step.code.format(e=code, k=k, a=a, b=b)
        outputs = [apply(step, value, k, a, b) for value in outputs]
        identity.append(step.code.format(e="", k=k, a=a, b=b))
    text = ", then ".join(said)
    return Draft(
        identity=" | ".join(identity),
        messages=[("user", rng.choice(ASKS).format(kind="list" if kind == "list" else "string", name=name, steps=text))],
        answer=code,
        scorer="python_expression",
        reference={"variables": name, "inputs": inputs, "outputs": outputs},
        slices={"kind": kind, "ops": str(count)},
        max_tokens=64 if difficulty == "default" else 110,
    )


def _steps(rng: random.Random, kind: str, count: int) -> list[Step]:
    """A pipeline in which no operation follows itself; one in three ends with a single number."""
    rooms = (KEEP, MAP, ORDER) if kind == "list" else (TEXT,)
    ends = END if kind == "list" else TEXT_END
    steps: list[Step] = []
    while len(steps) < count:
        last = len(steps) == count - 1
        step = rng.choice(ends if last and rng.random() < 0.33 else rng.choice(rooms))
        if not steps or step.name != steps[-1].name:
            steps.append(step)
    return steps


def _input(rng: random.Random, kind: str) -> Any:
    if kind == "string":
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 4)))
    return [rng.randint(-9, 25) for _ in range(rng.randint(6, 10))]


SUITE = Suite("code_gen", "generated code that runs, and runs wrong", draw)
