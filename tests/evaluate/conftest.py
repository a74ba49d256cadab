"""A small suite of sums, and scripted engines that answer it well or badly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from quantgate.engines import Prompt
from quantgate.engines.scripted import ScriptedEngine, last
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Side
from quantgate.evaluate.suites import Case, Message


class Sums:
    """``cases(n)`` asks n different sums; ``engine(...)`` solves them, but not those that it is told to miss."""

    @staticmethod
    def cases(count: int) -> list[Case]:
        return [
            Case(
                suite="sums",
                id=f"sums-{at}",
                messages=(Message(role="user", content=f"{at} + {at + 1}"),),
                scorer="exact",
                reference=str(2 * at + 1),
                slices=(f"last={at % 2}",),
                max_tokens=8,
                answer=str(2 * at + 1),
            )
            for at in range(count)
        ]

    @staticmethod
    def number(prompt: Prompt) -> int:
        return int(last(prompt).split()[0])

    @classmethod
    def share(cls, share: float, salt: str = "") -> Callable[[Prompt], bool]:
        """Whether a prompt belongs to a fixed pseudo-random ``share`` of all."""

        def chosen(prompt: Prompt) -> bool:
            raw = hashlib.blake2b(f"{salt}{cls.number(prompt)}".encode(), digest_size=4).digest()
            return int.from_bytes(raw, "big") < share * 2**32

        return chosen

    @classmethod
    def engine(
        cls,
        miss: Callable[[Prompt], bool] = lambda _: False,
        *,
        fails: Callable[[Prompt], bool] | None = None,
        **identity: str,
    ) -> ScriptedEngine:
        def answer(prompt: Prompt) -> str:
            return "no idea" if miss(prompt) else str(2 * cls.number(prompt) + 1)

        return ScriptedEngine(answer, fails=fails, **identity)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def sums() -> type[Sums]:
    return Sums


@pytest.fixture
def side(tmp_path: Path) -> Callable[[ScriptedEngine], Side]:
    def make(engine: ScriptedEngine) -> Side:
        return Side(engine, Answers(tmp_path / "answers", engine.identity))

    return make
