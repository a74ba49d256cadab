"""math: two-digit sums answered at once, longer sums and products worked in steps, and word problems of two steps.

Arithmetic is what low-bit models lose first: a wrong digit costs the perplexity of a text almost nothing. Short answers
test the arithmetic itself, worked answers test whether an error in the middle spoils the end.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable

from quantgate.evaluate.suites import Difficulty, Draft, Suite

DIRECT = (
    "What is {sum}? Answer with the number only.",
    "{sum} = ? Number only.",
    "Number only: {sum} =",
    "How much is {sum}? Number only.",
    "Work out {sum}. Answer with the number only.",
)
STEPS = (
    "What is {sum}? Work in steps and end with 'Answer: N'.",
    "Work out {sum} in steps and end with 'Answer: N'.",
    "{sum} = ? Show the steps and end with 'Answer: N'.",
)
SHOW = (
    "Show the steps and end with 'Answer: N'.",
    "Work in steps and end with 'Answer: N'.",
)
NAMES = ("Anna", "Tom", "Lisa", "Paul", "Maria", "Leo", "Eva", "David", "Nina", "Peter")
# A story: how it starts with a number or a product, what each further step says, and what it asks.
STORIES: tuple[dict[str, str], ...] = (
    {
        "start": "{name} has {a} marbles.",
        "times": "{name} has {a} bags with {b} marbles each.",
        "+": "Then {name} finds {n} more.",
        "-": "Then {name} gives {n} away.",
        "ask": "How many marbles does {name} have now?",
    },
    {
        "start": "A shop has {a} apples.",
        "times": "A shop has {a} boxes with {b} apples each.",
        "+": "Then {n} more come in.",
        "-": "Then it sells {n}.",
        "ask": "How many apples are there now?",
    },
    {
        "start": "There are {a} people on a bus.",
        "times": "A bus has {a} rows with {b} people each.",
        "+": "At a stop {n} get on.",
        "-": "At a stop {n} get off.",
        "ask": "How many people are on the bus now?",
    },
    {
        "start": "A garden has {a} roses.",
        "times": "A garden has {a} rows of {b} roses.",
        "+": "{name} plants {n} more.",
        "-": "{name} cuts {n}.",
        "ask": "How many roses are there now?",
    },
    {
        "start": "There are {a} books on a shelf.",
        "times": "There are {a} shelves with {b} books each.",
        "+": "{name} brings {n} more.",
        "-": "{name} takes {n} away.",
        "ask": "How many books are there now?",
    },
    {
        "start": "{name} has {a} dollars.",
        "times": "{name} works {a} days and gets {b} dollars each day.",
        "+": "Then {name} gets {n} dollars.",
        "-": "Then {name} spends {n} dollars.",
        "ask": "How many dollars does {name} have now?",
    },
)
APPLY: dict[str, Callable[[int, int], int]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
SLICE = {"+": "add", "-": "sub"}


def number_of(rng: random.Random, digits: int) -> int:
    return rng.randrange(10 ** (digits - 1), 10**digits)


def _draft(op: str, digits: int, identity: str, prompt: str, answer: str, value: int, max_tokens: int) -> Draft:
    return Draft(
        identity=identity,
        messages=[("user", prompt)],
        answer=answer,
        scorer="numeric",
        reference=value,
        slices={"op": op, "digits": str(digits)},
        max_tokens=max_tokens,
    )


def direct(rng: random.Random, digits: int, *, negative: bool = False) -> Draft:
    """``a + b`` or ``a - b``, both of ``digits`` digits; the difference is below zero only if ``negative``."""
    a, b, sign = number_of(rng, digits), number_of(rng, digits), "-" if negative else rng.choice("+-")
    low, high = sorted((a, b))
    if sign == "-":
        a, b = (low, high) if negative else (high, low)
    identity = f"add {low} {high}" if sign == "+" else f"sub {a} {b}"  # 47 + 85 and 85 + 47 are one problem
    value = APPLY[sign](a, b)
    prompt = rng.choice(DIRECT).format(sum=f"{a} {sign} {b}")
    return _draft(SLICE[sign], digits, identity, prompt, str(value), value, 16)


def three_terms(rng: random.Random, digits: int) -> Draft:
    terms = [number_of(rng, digits) for _ in range(3)]
    identity = "add " + " ".join(map(str, sorted(terms)))
    prompt = rng.choice(DIRECT).format(sum=" + ".join(map(str, terms)))
    return _draft("add", digits, identity, prompt, str(sum(terms)), sum(terms), 16)


def by_place(rng: random.Random, digits: int) -> Draft:
    """``a + b`` or ``a - b`` worked in steps: the second number goes in digit by digit, the largest place first."""
    a, b, sign = number_of(rng, digits), number_of(rng, digits), rng.choice("+-")
    low, high = sorted((a, b))
    if sign == "-":
        a, b = high, low
    total, steps = a, list[str]()
    for place in reversed(range(digits)):
        part = b // 10**place % 10 * 10**place
        if part:
            after = APPLY[sign](total, part)
            steps.append(f"{total} {sign} {part} = {after}")
            total = after
    prompt = rng.choice(STEPS).format(sum=f"{a} {sign} {b}")
    identity = f"add {low} {high}" if sign == "+" else f"sub {a} {b}"
    return _draft(SLICE[sign], digits, identity, prompt, f"{', '.join(steps)}. Answer: {total}", total, 96)


def product(rng: random.Random, digits: int, times: int) -> Draft:
    """A product worked in steps: the longer factor taken apart, or the second one if both have two digits."""
    a, b = number_of(rng, digits), number_of(rng, times)
    while a % 10 == 0 or b % 10 < (2 if times == 1 else 1):  # trailing zeros and the factor 1 leave nothing to do
        a, b = number_of(rng, digits), number_of(rng, times)
    fixed, apart = (b, a) if times == 1 else (a, b)
    parts = [int(digit) * 10**place for place, digit in enumerate(reversed(str(apart))) if digit != "0"][::-1]
    pairs = [(part, fixed) if times == 1 else (fixed, part) for part in parts]
    steps = [f"{x} * {y} = {x * y}" for x, y in pairs]
    total = pairs[0][0] * pairs[0][1]
    for x, y in pairs[1:]:
        steps.append(f"{total} + {x * y} = {total + x * y}")
        total += x * y
    prompt = rng.choice(STEPS).format(sum=f"{a} * {b}" if rng.random() < 0.7 or times == 2 else f"{b} * {a}")
    low, high = sorted((a, b))
    answer = f"{', '.join(steps)}. Answer: {total}"
    return _draft("mul", digits, f"mul {low} {high}", prompt, answer, total, 128 if digits + times > 3 else 80)


def story(rng: random.Random, count: int) -> Draft:
    """A word problem of ``count`` steps, every number at most 99 and every result from 0 to 199."""
    told, name = rng.choice(STORIES), rng.choice(NAMES)
    steps, sentences, problem = list[str](), list[str](), list[str]()
    if rng.random() < 0.4:
        a, b = rng.randrange(2, 10), rng.randrange(2, 10)
        total = a * b
        steps.append(f"{a} * {b} = {total}")
        sentences.append(told["times"].format(name=name, a=a, b=b))
        problem.append(f"{a} * {b}")
    else:
        total = rng.randrange(10, 100)
        sentences.append(told["start"].format(name=name, a=total))
        problem.append(str(total))
    while len(steps) < count:
        sign = "+" if total < 4 or (total < 101 and rng.random() < 0.5) else "-"
        n = rng.randrange(2, 100) if sign == "+" else rng.randrange(2, min(total, 99) + 1)
        after = APPLY[sign](total, n)
        steps.append(f"{total} {sign} {n} = {after}")
        sentences.append(told[sign].format(name=name, n=n))
        problem.append(f"{sign} {n}")
        total = after
    prompt = f"{' '.join(sentences)} {told['ask'].format(name=name)} {rng.choice(SHOW)}"
    answer = f"{', '.join(steps)}. Answer: {total}"
    return _draft("word", 2, f"word {' '.join(problem)}", prompt, answer, total, 80 if count == 2 else 112)


def draw(rng: random.Random, difficulty: Difficulty) -> Draft:
    """One problem: a third of two digits at once, a quarter of three in steps, the rest products and stories.

    Hard ones are answered at once with three or four digits, are longer, and may fall below zero.
    """
    kind = rng.random()
    if difficulty == "default":
        if kind < 0.60:
            return direct(rng, 2) if kind < 0.33 else by_place(rng, 3)
        return product(rng, 2, 1) if kind < 0.75 else story(rng, 2)
    if kind < 0.45:
        if kind < 0.20:
            return direct(rng, rng.choice((3, 4)))
        return direct(rng, rng.choice((2, 3)), negative=True) if kind < 0.32 else three_terms(rng, rng.choice((2, 3)))
    if kind < 0.75:
        return product(rng, 3, 1) if kind < 0.60 else product(rng, 2, 2)
    return story(rng, 3)


SUITE = Suite(
    name="math",
    about="Sums, products and small word problems come out with a wrong digit.",
    draw=draw,
    margin=0.03,
)
