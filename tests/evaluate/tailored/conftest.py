"""The built-in model and a small sentence-piece one as places, and traffic full of part numbers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from quantgate.evaluate import tailored
from quantgate.pipeline.made_suites import place_of

SHARED = Path(__file__).resolve().parents[4] / "shared"
OPTIONS: dict[str, dict[str, Any]] = {
    "needle": {"lengths": [256, 700], "depths": [0, 0.5, 1]},
    "key_value": {"lengths": [400, 700], "depths": [0, 0.5, 1]},
    "tool_conversation": {"rounds": [1, 3, 5]},
}


def traffic(count: int) -> list[Any]:
    """Conversations of a workshop, each about parts with names of their own."""
    rng = random.Random(5)
    found = []
    for _ in range(count):
        name = rng.choice(["Zorvel", "Quindrax", "Hexalume"])
        part = f"{name}-{rng.choice('BDKX')}{rng.randint(100, 999)}/{rng.randint(2, 9)}"
        other = f"krystoflange{rng.randint(10, 99)}q"
        ask = f"Does the {part} fit the old housing with a {other} ring? We have five of them here."
        found.append((("user", ask), ("assistant", f"The {part} fits if the ring is new.")))
    return found


@pytest.fixture(scope="session")
def place() -> tailored.Place:
    return place_of("quantgate/reference", traffic(400))


@pytest.fixture(scope="session")
def made(place: tailored.Place) -> Any:
    """``made("needle")``: gate cases of a suite, with options that fit the built-in model."""
    kept: dict[Any, Any] = {}

    def make(name: str, split: Any = "gate", count: int = 30, seed: int = 0, **options: Any) -> Any:
        key = (name, split, count, seed, repr(options))
        if key not in kept:
            order = tailored.order_of(name, OPTIONS.get(name, {}) | options)
            kept[key] = tailored.cases(name, place, order, split=split, count=count, seed=seed)
        return kept[key]

    return make
