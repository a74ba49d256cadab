"""Whether a calibration set is enough: ranges on held-out traffic, and drift when the set is halved or redrawn.

Clip rates say whether the samples have seen what the traffic brings. Quantizing again with either half, and with
samples drawn anew out of the same set (Efron's bootstrap), says how much of a variant's drift hangs on which samples
there are: when a half does as well as the whole, more would not help.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from quantgate.calibrate import Chosen, Conversation
from quantgate.calibrate.render import ids_of
from quantgate.engines import Completion, Engine
from quantgate.errors import DataError, EngineError, RecordError
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.suites import Case, Message
from quantgate.models import OpenedModel
from quantgate.pipeline.two_models import Progress
from quantgate.quantize.manifest import Recipe, tool_version
from quantgate.quantize.ranges import ClipRate, clip_rates
from quantgate.quantize.statistics import batches
from quantgate.quantize.sweep import BATCH_TOKENS, sweep
from quantgate.records import Record, digest_of
from quantgate.report.calibrations import Adequacy, Resampled

MEASURED = 64  # held-out conversations that drift is measured on, at most
REDRAWN = 2  # times that the samples are drawn anew
FEWEST = 8  # held-out conversations that a measurement needs
ANSWER_TOKENS = 64  # of the baseline's own answer, where the traffic holds none
GAIN = 0.05  # of the drift: what a larger set must be seen to gain before more is worth its while
LAYOUT = 1  # raised when the same inputs would give other numbers
R = TypeVar("R", bound=Record)


class Ranges(Record):
    """Clip rates on disk."""

    rates: tuple[ClipRate, ...]


class Moved(Record):
    """The drift of one variant on disk: mean KL of each held-out conversation, nats per token, and its tokens."""

    kl: tuple[float, ...]
    tokens: tuple[int, ...]


def measure(
    model: OpenedModel,
    chosen: Chosen,
    held_out: Sequence[Conversation],
    recipe: Recipe,
    out: Path,
    max_tokens: int,
    seed: int,
    told: Progress,
) -> Adequacy:
    """Clip rates of ``chosen`` on ``held_out``, and the drift of ``recipe`` with the whole set, halves and redraws.

    Everything measured is kept in ``out/adequacy`` under a digest of what it depends on, so a stopped call goes on.
    Raises DataError when there is too little held-out traffic, or too few samples to halve.
    """
    if len(held_out) < FEWEST or len(chosen.ids) < 2 * FEWEST:
        raise DataError(
            f"adequacy: {len(held_out)} held-out conversations and {len(chosen.ids)} samples, at least {FEWEST} and "
            f"{2 * FEWEST} are needed; bring more traffic that differs, or leave --adequacy out"
        )
    folder = out / "adequacy"
    folder.mkdir(parents=True, exist_ok=True)
    rates = _ranges(model, chosen.ids, held_out, max_tokens, folder, told)
    sets = sets_of(chosen.ids, seed)
    base, cases = _cases(model, held_out, folder)
    moved = [
        (name, len(ids), _drift(model, base, cases, recipe, (name, ids), folder, seed, (at, len(sets)), told))
        for at, (name, ids) in enumerate(sets)
    ]
    return summary(recipe.name, rates, moved, len(held_out))


def sets_of(ids: Sequence[list[int]], seed: int) -> list[tuple[str, list[list[int]]]]:
    """The whole set, its two halves, and redraws with replacement, each by its name."""
    rng, order = random.Random(f"adequacy/{seed}"), list(range(len(ids)))
    rng.shuffle(order)
    middle = len(order) // 2
    named = [("whole", sorted(order)), ("half 1", sorted(order[:middle])), ("half 2", sorted(order[middle:]))]
    named += [(f"redrawn {at + 1}", sorted(rng.choices(order, k=len(order)))) for at in range(REDRAWN)]
    return [(name, [list(ids[at]) for at in rows]) for name, rows in named]


def _ranges(
    model: OpenedModel,
    samples: Sequence[list[int]],
    held_out: Sequence[Conversation],
    max_tokens: int,
    folder: Path,
    told: Progress,
) -> tuple[ClipRate, ...]:
    limit, vocabulary = min(max_tokens, model.context), int(model.config.vocab_size)
    others = [ids_of(model, one)[:limit] for one in held_out]
    file = folder / f"ranges-{digest_of([LAYOUT, tool_version(), model.weights_digest, samples, others])[7:39]}.json"
    known = _load(Ranges, file)
    if known is None:
        seen, held = (batches(one, vocabulary, model.context, BATCH_TOKENS) for one in (samples, others))
        rates = clip_rates(model, seen, held, lambda done, total: told("measuring ranges", done, total, ""))
        known = Ranges(rates=tuple(rates))
        known.save(file)
    return known.rates


def _cases(model: OpenedModel, held_out: Sequence[Conversation], folder: Path) -> tuple[Engine, list[Case]]:
    """The baseline's engine, and held-out conversations with an answer: their own, else the baseline's."""
    from quantgate.engines.torch import open_engine
    from quantgate.quantize import baseline

    base = open_engine(model, baseline(model))
    answers, cases = Answers(folder / "answers", base.identity), list[Case]()
    for at, one in enumerate(held_out[:MEASURED]):
        turns = one.turns
        answered = turns[-1][0] == "assistant"
        messages = tuple(Message(role=role, content=text) for role, text in (turns[:-1] if answered else turns))  # type: ignore[arg-type]
        case = Case(
            suite="held-out",
            id=f"held-out-{at}",
            messages=messages,
            scorer="exact",
            reference="",
            max_tokens=ANSWER_TOKENS,
            answer=turns[-1][1] if answered else None,
        )
        if not answered:
            (own,) = answers.of(base, [case])
            case = case.model_copy(update={"answer": own.text if isinstance(own, Completion) else ""})
        if case.answer and len(base.encode([*_turns(case), ("assistant", case.answer)])) <= model.context:
            cases.append(case)
    if len(cases) < FEWEST:
        raise DataError(
            f"adequacy: {len(cases)} held-out conversations have an answer within the model's {model.context} tokens, "
            f"{FEWEST} are needed; bring shorter traffic, or leave --adequacy out"
        )
    return base, cases


def _turns(case: Case) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in case.messages]


def _drift(
    model: OpenedModel,
    base: Engine,
    cases: Sequence[Case],
    recipe: Recipe,
    samples: tuple[str, list[list[int]]],
    folder: Path,
    seed: int,
    at: tuple[int, int],
    told: Progress,
) -> Moved:
    """Quantize with these samples and measure; one variant is in memory at a time, beside the baseline."""
    from quantgate.engines.torch import open_engine
    from quantgate.evaluate.drift import drift

    name, ids = samples
    parts = [model.weights_digest, recipe.body(), ids, seed, [case.digest for case in cases], base.identity.key]
    file = folder / f"drift-{digest_of([LAYOUT, tool_version(), *parts])[7:39]}.json"
    known = _load(Moved, file)
    if known is not None:
        return known
    done, total = at[0] * 2, at[1] * 2

    def tell(stage: str, _done: int, _total: int) -> None:
        told("quantizing with other samples", done, total, f"{name}: {stage}")

    (artifact,) = sweep(model, ids, [recipe], folder / name.replace(" ", "-"), progress=tell, seed=seed)
    engine, kl, tokens = open_engine(model, artifact), list[float](), list[int]()
    told("quantizing with other samples", done + 1, total, f"{name}: drift")
    for case in cases:
        try:
            (found,) = drift(base, [engine], [case])
        except EngineError:  # an answer of one token has no spread: it counts as none
            kl.append(0.0)
            tokens.append(0)
            continue
        kl.append(found.kl_mean)
        tokens.append(found.tokens)
    told("quantizing with other samples", done + 2, total, "")
    moved = Moved(kl=tuple(kl), tokens=tuple(tokens))
    moved.save(file)
    return moved


def summary(
    variant: str, rates: Sequence[ClipRate], moved: Sequence[tuple[str, int, Moved]], held_out: int
) -> Adequacy:
    """``moved`` holds the whole set first, then ``half ...`` and ``redrawn ...``; the sentence follows from them."""
    rows = tuple(Resampled(name=name, samples=count, kl=_mean(one)) for name, count, one in moved)
    whole = moved[0][2]
    gains = [gain(whole, one) for name, _, one in moved if name.startswith("half")]
    redrawn = [_mean(one) for name, _, one in moved if name.startswith("redrawn")]
    rise = sum(one for one, _ in gains) / len(gains)
    # halves share no sample: their noise by draw is independent, that by conversation is not
    drawn = (statistics.variance(one for one, _ in gains) + statistics.variance(redrawn)) / 2
    error = math.sqrt(drawn / len(gains) + max(one for _, one in gains) ** 2)
    return Adequacy(
        variant=variant,
        held_out=held_out,
        rates=tuple(rates),
        drift=rows,
        rise=rise,
        rise_se=error,
        sentence=_sentence(rows, rise, error),
    )


def gain(whole: Moved, half: Moved) -> tuple[float, float]:
    """How much larger the half's mean KL per token is, and its standard error with conversations as the units.

    The paired difference of two ratio estimators over clusters (Cochran 1977, Sampling Techniques, section 6.4):
    d = sum(KL_half - KL_whole) / sum(tokens); its error from what each conversation adds to d.
    """
    tokens = sum(whole.tokens)
    moves = [(b - a) * n for a, b, n in zip(whole.kl, half.kl, whole.tokens, strict=True)]
    rise, count = sum(moves) / max(tokens, 1), len(moves)
    spread = sum((move - rise * n) ** 2 for move, n in zip(moves, whole.tokens, strict=True))
    return rise, math.sqrt(spread * count / max(count - 1, 1)) / max(tokens, 1)


def _mean(one: Moved) -> float:
    return sum(kl * n for kl, n in zip(one.kl, one.tokens, strict=True)) / max(sum(one.tokens), 1)


def _sentence(rows: Sequence[Resampled], rise: float, error: float) -> str:
    whole = rows[0].kl
    others = [row.kl for row in rows if row.name.startswith("redrawn")] + [whole]
    spread = (max(others) - min(others)) / max(whole, 1e-12)
    share, sure = rise / max(whole, 1e-12), 2 * error / max(whole, 1e-12)
    seen = f"with half the samples the drift changes by {100 * share:+.1f} % (+-{100 * sure:.1f})"
    redrawn = f"redrawing them moves it by {100 * spread:.1f} %"
    if share > sure and share > GAIN:
        return f"More samples would help: {seen}, {redrawn}; ask for {2 * rows[0].samples}."
    if share + sure <= max(GAIN, spread):
        return f"More samples would not help: {seen}, {redrawn}."
    return (
        f"Whether more samples would help is not decided: {seen}, {redrawn}; bring more traffic, or try another seed."
    )


def _load(kind: type[R], file: Path) -> R | None:
    """What was measured before; a file that is broken, or of another version, is measured again."""
    if not file.is_file():
        return None
    try:
        return kind.load(file)
    except RecordError:
        file.unlink()
        return None
