"""tool_conversation: the right call after many rounds of calls and results, with arguments that came up long ago.

A parcel desk: parcels are made, moved, reweighed and insured, one call a round (user, call, result, reply). The last
request names a parcel by its recipient alone, so its number has to be found in a result many rounds back; some requests
ask for what earlier calls have made of a parcel ("to the same city as Marta's"). A model whose calls decay with the
number of rounds shows it in the slices ``round=``.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from quantgate.errors import UsageError
from quantgate.evaluate.tailored import Options as Base
from quantgate.evaluate.tailored import Piece, Place, Problem, Tailored, Tool

ROUNDS = (1, 4, 8, 16)
FEWEST_TURNS = 15  # that the longest conversation has
BUDGET = 96  # tokens of an answer, at least
SPARE = 1.15  # conversations of as many rounds differ by less in tokens
PEOPLE = """
Marta Ivan Aisha Pavel Lucia Tomas Ines Omar Yuki Greta Hugo Farah Nils Petra Quentin Rosa Stefan Tara Viktor Wanda
Xenia Yusuf Zora Boris Celia Dario Elsa Felix
""".split()  # noqa: SIM905 - a list of strings would fill the page
CITIES = """
Oslo Rome Lima Cairo Quito Turin Ghent Porto Hanoi Perth Malmo Lyon Gdansk Bergen Tartu Split Leeds Cork
""".split()  # noqa: SIM905 - as above
REPLIES = ("Done.", "That is arranged.", "All set.", "The desk has noted it.", "Taken care of.")
NUMBER = {"type": "string", "description": "the parcel's number"}


def _tool(name: str, description: str, **properties: Any) -> Tool:
    parameters: dict[str, Any] = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": description, "parameters": parameters}


TOOLS: tuple[Tool, ...] = (
    _tool(
        "create_parcel",
        "Makes a new parcel and gives its number.",
        recipient={"type": "string"},
        city={"type": "string"},
        weight_kg={"type": "integer"},
    ),
    _tool("set_city", "Sends a parcel to another city.", parcel=NUMBER, city={"type": "string"}),
    _tool("set_weight", "Corrects the weight of a parcel.", parcel=NUMBER, weight_kg={"type": "integer"}),
    _tool("insure", "Insures a parcel for an amount in euros.", parcel=NUMBER, amount={"type": "integer"}),
)


class Options(Base):
    rounds: tuple[int, ...] = Field(
        default=(), description=f"rounds after which the model must call; left out, those of {ROUNDS} that fit"
    )


@dataclass
class Parcel:
    number: str
    city: str
    weight_kg: int
    made: int  # round in which it was made, from 1


@dataclass
class Step:
    """One round: what is asked, the right call, its result; and how far back its argument lies."""

    request: str
    name: str
    arguments: dict[str, Any]
    result: dict[str, Any]
    kind: str
    distance: int

    @property
    def call(self) -> str:
        return json.dumps({"name": self.name, "arguments": self.arguments})


@dataclass
class Desk:
    """What the desk knows: parcels by recipient."""

    rng: random.Random
    parcels: dict[str, Parcel] = field(default_factory=dict)
    round: int = 0

    def step(self, *, final: bool) -> Step:
        """The next round; the ``final`` one asks about a parcel of long ago, as far as there is any."""
        self.round += 1
        free = [one for one in PEOPLE if one not in self.parcels]
        if not self.parcels or (not final and free and self.rng.random() < 0.4):
            return self._create(self.rng.choice(free))
        known = sorted(self.parcels, key=lambda one: self.parcels[one].made)
        early = known[: max(1, len(known) // 2)] if final else known
        return self._change(self.rng.choice(early))

    def _create(self, who: str) -> Step:
        rng = self.rng
        parcel = Parcel(
            f"{rng.choice('BDFGKLMRT')}{rng.randint(2, 9)}-{rng.randint(1000, 9999)}",
            rng.choice(CITIES),
            rng.randint(2, 40),
            self.round,
        )
        self.parcels[who] = parcel
        arguments = {"recipient": who, "city": parcel.city, "weight_kg": parcel.weight_kg}
        request = f"Please make a parcel for {who} to {parcel.city}, {parcel.weight_kg} kg."
        return Step(request, "create_parcel", arguments, {"parcel": parcel.number, "status": "new"}, "create", 0)

    def _change(self, who: str) -> Step:
        rng, parcel = self.rng, self.parcels[who]
        others = [one for one in self.parcels if one != who and self.parcels[one].city != parcel.city]
        kind = rng.choice(("city", "weight", "insurance", "same_city" if others else "city"))
        if kind == "weight":
            parcel.weight_kg = rng.choice([one for one in range(2, 41) if one != parcel.weight_kg])
            told = f"{who}'s parcel weighs {parcel.weight_kg} kg after all. Please correct that."
            name, argument = "set_weight", dict[str, Any](weight_kg=parcel.weight_kg)
        elif kind == "insurance":
            amount = rng.randint(2, 90) * 10
            told, name, argument = f"Insure {who}'s parcel for {amount} euros.", "insure", {"amount": amount}
        else:
            other = rng.choice(others) if kind == "same_city" else ""
            parcel.city = (
                self.parcels[other].city if other else rng.choice([one for one in CITIES if one != parcel.city])
            )
            told = f"Send {who}'s parcel to " + (f"the same city as {other}'s." if other else f"{parcel.city} instead.")
            name, argument = "set_city", {"city": parcel.city}
        result = {"parcel": parcel.number, **argument, "status": "changed"}
        return Step(told, name, {"parcel": parcel.number, **argument}, result, kind, self.round - parcel.made)


def conversation(rng: random.Random, rounds: int) -> tuple[list[tuple[str, str]], Step]:
    """Turns up to the request of the last of ``rounds``, and that round."""
    desk, turns = Desk(rng), list[tuple[str, str]]()
    for _ in range(rounds - 1):
        step = desk.step(final=False)
        turns += [
            ("user", step.request),
            ("assistant", step.call),
            ("tool", json.dumps(step.result)),
            ("assistant", rng.choice(REPLIES)),
        ]
    last = desk.step(final=True)
    return [*turns, ("user", last.request)], last


def cells(place: Place, options: Options) -> list[int]:
    """The rounds asked. Raises UsageError where they do not fit, or where FEWEST_TURNS turns do not."""
    needed = {rounds: _needed(place, rounds) for rounds in options.rounds or ROUNDS}
    for rounds, tokens in needed.items():
        if options.rounds and (rounds < 1 or tokens > place.context):
            raise UsageError(
                f"tool_conversation: options: {rounds} rounds take about {tokens} tokens, the context holds "
                f"{place.context}; ask for rounds from 1 that fit it"
            )
    fit = [rounds for rounds, tokens in needed.items() if tokens <= place.context]
    if not fit or (not options.rounds and _turns(fit[-1]) < FEWEST_TURNS):
        raise UsageError(
            f"tool_conversation: {FEWEST_TURNS} turns do not fit the context of {place.context} tokens; "
            "name the rounds that do under options: rounds"
        )
    return fit


def _turns(rounds: int) -> int:
    return 4 * (rounds - 1) + 1


def _needed(place: Place, rounds: int) -> int:
    turns, last = conversation(random.Random(0), max(1, rounds))
    return round(SPARE * place.measure(tuple(turns), TOOLS)) + _budget(place, last)


def _budget(place: Place, step: Step) -> int:
    """Twice the tokens of the right call, for templates write calls in forms of their own."""
    return max(BUDGET, 2 * len(place.encode(step.call)) + 32)


def draw(rng: random.Random, rounds: int, place: Place, options: Options) -> Problem:
    turns, last = conversation(rng, rounds)

    def write() -> Piece:
        return Piece(
            identity=identity,
            messages=list(turns),  # type: ignore[arg-type]
            answer=last.call,
            scorer="tool_call",
            reference={"name": last.name, "arguments": last.arguments},
            slices={"round": str(rounds), "kind": last.kind, "back": _band(last.distance)},
            max_tokens=_budget(place, last),
            tools=TOOLS,
        )

    identity = json.dumps(turns)
    return identity, write


def _band(distance: int) -> str:
    """How many rounds ago the parcel was made."""
    return "0" if distance == 0 else "1-3" if distance < 4 else "4-7" if distance < 8 else "8+"


TAILORED = Tailored(
    name="tool_conversation",
    about="Calls go wrong after some rounds of calls and results, with the wrong number or the state of long ago.",
    options=Options,
    cells=cells,
    draw=draw,
)
