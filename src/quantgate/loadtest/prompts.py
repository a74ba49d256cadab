"""What is asked: conversations of suites or of the user's traffic, and texts made from them as long as a trace says.

A made prompt begins at a place of the text that the seed draws, so no two share a beginning and a server's prefix cache
does not answer for the model.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quantgate.calibrate import Turns
from quantgate.engines import Prompt
from quantgate.errors import DataError
from quantgate.evaluate.answers import prompt_of
from quantgate.evaluate.suites import Case
from quantgate.loadtest.arrivals import Schedule
from quantgate.records import Record, digest_of

ASSUMED = 4.0  # characters a token, where a server counts none
TRIES = 6
NEAR = 0.02  # of the wanted length that a made prompt may miss
UNSURE = 0.05  # of a context that stays free where tokens are estimated


class Fitted(Record):
    """How well the prompts of a run have the lengths of its trace."""

    requests: int
    made: int  # prompts that were made to a length
    cut: int  # of these, shortened to what the model's context holds
    wanted_tokens: int  # of the made prompts, over all
    made_tokens: int  # as they were counted
    counted: str  # by whom
    prompts: str  # digest of all, in order


@dataclass(frozen=True)
class Counter:
    """Tokens of a user's message, the chat template's included."""

    tokens: Callable[[str], int]
    by: str  # in words
    exact: bool = False  # by the tokenizer itself, so that a prompt may fill the context


def linear(short: tuple[str, int], long: tuple[str, int]) -> Counter:
    """A counter from two texts and what a server counted in them: what the template adds, and tokens a character."""
    each = max(1e-3, (long[1] - short[1]) / max(1, len(long[0]) - len(short[0])))
    fixed = max(0.0, short[1] - each * len(short[0]))
    return Counter(lambda text: round(fixed + each * len(text)), f"estimated, {1 / each:.2f} characters a token")


def assumed() -> Counter:
    return Counter(lambda text: round(len(text) / ASSUMED), f"assumed, {ASSUMED:g} characters a token")


def from_cases(cases: Sequence[Case]) -> list[Prompt]:
    return [prompt_of(case) for case in cases]


def from_traffic(conversations: Sequence[Turns], max_tokens: int) -> list[Prompt]:
    """Every conversation up to the turn that must be answered."""
    asked = [turns[:-1] if turns[-1][0] == "assistant" else turns for turns in conversations]
    return [Prompt(turns=turns, max_tokens=max_tokens) for turns in asked]


def prompts_for(
    schedule: Schedule, sources: Sequence[Prompt], counter: Counter, *, context: int | None, seed: int
) -> tuple[list[Prompt], Fitted]:
    """One prompt for every arrival. ``context``: tokens that the model holds. Raises DataError without sources."""
    if not sources:
        raise DataError("there is no prompt to ask; name a suite with --suite, or a file with --traffic")
    words = " ".join(content for one in sources for _, content in one.turns).split()
    found, made, cut, wanted, got = list[Prompt](), 0, 0, 0, 0
    order = random.Random(f"prompts/{seed}")
    for at, (length, output) in enumerate(zip(schedule.prompt_tokens, schedule.output_tokens, strict=True)):
        source = sources[order.randrange(len(sources))]
        budget = source.max_tokens if output is None else output
        if length is None:
            found.append(source if output is None else source.model_copy(update={"max_tokens": budget}))
            continue
        budget = budget if context is None else max(1, min(budget, context // 2))
        most = None if context is None else max(1, context - budget - 1)
        if most is not None and not counter.exact:
            most = max(1, int(most * (1 - UNSURE)))
        room = length if most is None else min(length, most)
        text, tokens = make(words, room, counter, random.Random(f"prompt/{seed}/{at}"), most)
        found.append(Prompt(turns=(("user", text),), max_tokens=budget))
        made, cut, wanted, got = made + 1, cut + (room < length), wanted + room, got + tokens
    fitted = Fitted(
        requests=len(found), made=made, cut=cut, wanted_tokens=wanted, made_tokens=got,
        counted=counter.by if made else "not needed", prompts=digest_of([one.body() for one in found]),
    )  # fmt: skip
    return found, fitted


def make(
    words: Sequence[str], tokens: int, counter: Counter, chance: random.Random, most: int | None = None
) -> tuple[str, int]:
    """A text of about ``tokens`` tokens, and how many it has: words in their order from a drawn place, round and round.

    Never longer than ``most``, unless the template alone is; then the text is one word.
    """
    start = chance.randrange(len(words))

    def text(count: int) -> tuple[str, int]:
        made = " ".join(words[(start + step) % len(words)] for step in range(count))
        return made, counter.tokens(made)

    def miss(one: tuple[str, int]) -> tuple[int, int]:
        """How much it is too long for the context, and then how far from what is wanted."""
        return (0 if most is None else max(0, one[1] - most), abs(one[1] - tokens))

    low, high = 1, max(2, tokens)  # a word has at least one token, so as many words are enough
    shortest, longest = text(low), text(high)
    best, least, greatest = min(shortest, longest, key=miss), shortest[1], longest[1]
    for _ in range(TRIES):
        over, off = miss(best)
        if (not over and off <= max(1, NEAR * tokens)) or high - low < 2 or greatest <= least:
            break
        guess = low + round((high - low) * (tokens - least) / (greatest - least))
        guess = min(max(guess, low + 1), high - 1)
        found = text(guess)
        best = min(best, found, key=miss)
        if found[1] < tokens:
            low, least = guess, found[1]
        else:
            high, greatest = guess, found[1]
    return best
