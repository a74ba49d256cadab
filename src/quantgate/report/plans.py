"""What a run is expected to take, as a table."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from quantgate.decide.sentences import percent
from quantgate.report.tables import plain_table


def show_plan(plan: Any, console: Console) -> None:
    """Print a ``pipeline.planning.Plan``: cases, tokens and time per capability, then the sums and what is short."""
    columns = ("cases", "fewest", "likely", "flips", "prompts", "answers", "minutes")
    table = plain_table("plan", columns, "right")
    for one in plan.capabilities:
        table.add_row(
            one.capability,
            str(one.available),
            str(one.fewest),
            Text("-" if one.likely is None else str(one.likely), style="yellow" if one.short else ""),
            f"{percent(one.flip_rate)}{'*' if one.flips_from == 'assumed' else ''}",
            f"{one.prompt_tokens:,}",
            f"{one.answer_tokens:,}",
            minutes(one.seconds),
        )
    console.print(table)
    console.print(
        "fewest: to pass at all; likely: for a variant that loses nothing; prompts, answers: tokens of all models",
        style="dim",
    )
    console.print(Text(plan_sentence(plan), style="bold"))
    for line in plan.others:
        console.print(line, soft_wrap=True)
    for one in plan.training:
        console.print(Text(training_sentence(one)), soft_wrap=True)
    if any(one.flips_from == "assumed" for one in plan.capabilities):
        console.print("* assumed: no earlier run in the folder says how many answers flip", style="dim")
    for one in plan.loads:
        console.print(Text(load_sentence(one)), soft_wrap=True)
    for one in plan.capabilities:
        if one.short:
            console.print(Text(one.short, style="yellow"))


def plan_sentence(plan: Any) -> str:
    """The sums: models, cases, tokens, time and price."""
    cases = sum(one.asked for one in plan.capabilities)
    said = (
        f"{plan.models} models x about {cases} cases: {plan.prompt_tokens:,} prompt tokens, "
        f"{plan.answer_tokens:,} answer tokens at most"
    )
    said += ", time not measured" if plan.seconds is None else f", {minutes(plan.seconds)} min ({plan.seconds_from})"
    if plan.price is not None:
        said += f", price {plan.price:.2f}"
    return said + (f", no price: {plan.price_missing}" if plan.price_missing else "")


def load_sentence(one: Any) -> str:
    """What the load test of a variant on one target asks and takes; ``one`` is a ``pipeline.load_plan.PlannedLoad``."""
    rates = " and ".join(f"{rate:g}/s" for rate in one.rates)
    limits = " and ".join(str(limit) for limit in one.limits)
    bound = f" ({one.fewest} bound a p{100 * one.percentile:g})" if one.fewest else ""
    return (
        f"load test of {one.target}: {one.requests} requests at {one.rates[0]:g}/s{bound}, to baseline and variant, "
        f"{one.seconds:.0f} s at each of {rates}, at most {limits} in flight: at least {minutes(one.takes_s)} min for "
        f"each variant that keeps every other rule, {one.variants} at most, the preferred first until one passes"
    )


def training_sentence(one: Any) -> str:
    """What a training takes; ``one`` is a ``pipeline.training_plan.PlannedTraining``.

    >>> from types import SimpleNamespace
    >>> training_sentence(SimpleNamespace(name="W2A16-qat", what="codes of int2 g128 trained, from those of gptq",
    ...     steps=400, tokens=1638400, seconds=420.0, bytes=3100000))
    'training of W2A16-qat: codes of int2 g128 trained, from those of gptq; 3.1 MB, 400 steps over 1,638,400 tokens, \
about 7.0 min here (an estimate, from the rate of plain matrix products; kept in steps, so a stopped one goes on)'
    """
    how_long = "time not measured"
    if one.seconds is not None:
        how_long = (
            f"about {minutes(one.seconds)} min here (an estimate, from the rate of plain matrix products; kept in "
            "steps, so a stopped one goes on)"
        )
    return (
        f"training of {one.name}: {one.what}; {one.bytes / 1e6:.1f} MB, {one.steps:,} steps over {one.tokens:,} "
        f"tokens, {how_long}"
    )


def minutes(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds / 60:.1f}"
