"""code_gen: compose list and string steps into one Python expression, judged by running it on test inputs.

Default pipelines have two or three steps, hard ones four or five. Every step of a pipeline matters: the test inputs
tell it from the same pipeline with a step left out, and from one with a constant off by one wherever those two differ
at all on a few dozen inputs.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from typing import Any

from quantgate.evaluate.suites import Difficulty, Draft, Suite
from quantgate.evaluate.suites._pipelines import (
    FILTERS,
    JOIN,
    LIST_ENDS,
    LISTS,
    MAPS,
    SPLIT,
    TEXT_ENDS,
    TEXTS,
    WORD_ENDS,
    WORDS,
    Shape,
    Step,
    Use,
    code_of,
    run,
    words_of,
)

PROMPTS = {
    "xs": (
        "Write one Python expression over the list xs: {steps}. Answer with the expression only.",
        "Give one Python expression for the list xs of whole numbers: {steps}. Answer with the expression only.",
        "xs is a list of whole numbers. Write a Python expression: {steps}. Answer with the expression only.",
    ),
    "s": (
        "Write one Python expression over the string s: {steps}. Answer with the expression only.",
        "Give one Python expression for the string s: {steps}. Answer with the expression only.",
        "s is a string. Write a Python expression: {steps}. Answer with the expression only.",
    ),
}
LIST_SHARE = 0.6
ENDED = 0.5  # share of pipelines that end in a single number
INPUTS, MORE_INPUTS, TRIES = 5, 3, 12  # test inputs; more that catch a near miss; how many are tried for one


def draw(rng: random.Random, difficulty: Difficulty) -> Draft:
    """A pipeline in which every step matters, with inputs that show it."""
    count = rng.choice((4, 5) if difficulty == "hard" else (2, 3, 3))
    variable = "xs" if rng.random() < LIST_SHARE else "s"
    while True:
        uses = _list_steps(rng, count) if variable == "xs" else _text_steps(rng, count)
        if len({use.step.name for use in uses}) < count:
            continue  # a step twice reads like a slip of the pen
        identity = f"{variable}: " + " | ".join(use.name for use in uses)
        inputs = test_inputs(random.Random(identity), variable, uses)
        if inputs:
            break
    answer = code_of(uses, variable)
    return Draft(
        identity=identity,
        messages=[("user", rng.choice(PROMPTS[variable]).format(steps=words_of(rng, uses)))],
        answer=answer,
        scorer="python_expression",
        reference={"variables": variable, "inputs": inputs, "outputs": [run(uses, value) for value in inputs]},
        slices={"kind": "list" if variable == "xs" else "string", "ops": str(count)},
        max_tokens=112 if difficulty == "hard" else 72,
    )


def _use(rng: random.Random, steps: tuple[Step, ...]) -> Use:
    step = rng.choice(steps)
    return Use(step, step.draw(rng) if step.draw else None)


def _list_steps(rng: random.Random, count: int) -> list[Use]:
    ended = rng.random() < ENDED
    uses = [_use(rng, rng.choice((FILTERS, MAPS, LISTS))) for _ in range(count - ended)]
    return [*uses, _use(rng, LIST_ENDS)] if ended else uses


def _text_steps(rng: random.Random, count: int) -> list[Use]:
    """Steps that follow the shape of the value: text, then words after a split, text again after a join."""
    uses, shape, ended = list[Use](), "text", rng.random() < ENDED
    while len(uses) < count - ended:
        if shape == "text":
            use = Use(SPLIT) if rng.random() < 0.25 else _use(rng, TEXTS)
        else:
            use = _use(rng, (JOIN,)) if rng.random() < 0.5 else _use(rng, WORDS)
        uses.append(use)
        shape = use.step.gives
    return [*uses, _use(rng, TEXT_ENDS if shape == "text" else WORD_ENDS)] if ended else uses


def test_inputs(rng: random.Random, variable: str, uses: list[Use]) -> list[Any]:
    """Inputs that tell the pipeline from its near misses; none where a step does not matter or nothing differs."""
    drawn: list[Any] = [[] if variable == "xs" else "", *(_input(rng, variable, uses) for _ in range(INPUTS - 1))]
    inputs = [value for value in drawn if _defined(uses, value)]
    outputs = [run(uses, value) for value in inputs]
    if len(inputs) < INPUTS - 1 or all(output == outputs[0] for output in outputs):
        return []
    for miss, needed in _near_misses(uses):
        if any(_differs(miss, value, output) for value, output in zip(inputs, outputs, strict=True)):
            continue
        caught = _caught(rng, variable, uses, miss) if len(inputs) < INPUTS + MORE_INPUTS else None
        if caught is not None:
            inputs.append(caught)
            outputs.append(run(uses, caught))
        elif needed:
            return []
    return inputs


def _near_misses(uses: list[Use]) -> Iterator[tuple[list[Use], bool]]:
    """The pipeline with one step left out (which must be noticed), or one whole number off by one (if it can be)."""
    for i in range(len(uses)):
        shorter = uses[:i] + uses[i + 1 :]
        if _fits(shorter, uses[0].step.takes):
            yield shorter, True
    for i, use in enumerate(uses):
        if isinstance(use.k, int):
            for k in (use.k - 1, use.k + 1):
                yield [*uses[:i], Use(use.step, k), *uses[i + 1 :]], False


def _fits(uses: list[Use], shape: Shape) -> bool:
    for use in uses:
        if use.step.takes != shape:
            return False
        shape = use.step.gives
    return True


def _caught(rng: random.Random, variable: str, uses: list[Use], miss: list[Use]) -> Any:
    for _ in range(TRIES):
        value = _input(rng, variable, uses)
        if _defined(uses, value) and _differs(miss, value, run(uses, value)):
            return value
    return None


def _defined(uses: list[Use], value: Any) -> bool:
    try:
        run(uses, value)
    except ValueError:
        return False
    return True


def _differs(miss: list[Use], value: Any, output: Any) -> bool:
    try:
        return bool(run(miss, value) != output)
    except ValueError:
        return True


def _input(rng: random.Random, variable: str, uses: list[Use]) -> Any:
    """A list of five to nine numbers, some twice or near a constant of the pipeline; or one to four words in spaces."""
    if variable == "xs":
        near = [use.k for use in uses if isinstance(use.k, int)] or [0]
        values = [int(rng.random() * 61) - 25 for _ in range(int(rng.random() * 4) + 3)]
        values += [
            near[int(rng.random() * len(near))] + int(rng.random() * 3) - 1,
            values[int(rng.random() * len(values))],
        ]
        rng.shuffle(values)
        return values
    letters = "".join(use.k for use in uses if isinstance(use.k, str) and use.k.isalpha()) or "ae"
    words = []
    for _ in range(int(rng.random() * 4) + 2):
        word = "".join(
            letters[int(rng.random() * len(letters))]
            if rng.random() < 0.3
            else string.ascii_lowercase[int(rng.random() * 26)]
            for _ in range(int(rng.random() * 5) + 2)
        )
        words.append(word.capitalize() if rng.random() < 0.3 else word)
    return " " * int(rng.random() * 3) + " ".join(words) + " " * int(rng.random() * 3)


SUITE = Suite(
    name="code_gen",
    about="Generated code runs but computes something else: a wrong bound, a lost step, steps in the wrong order.",
    draw=draw,
    margin=0.03,
)
