"""A hundred thousand lines of traffic against ten thousand cases: time and peak memory, in a process of its own.

Texts are strung together from fragments of one vocabulary with Zipf's frequencies, so passages recur as in real text;
one line in a hundred is a case, word for word, cut or inside something else. The floor is what reading the traffic
costs by itself: normal form, words, and one hash of every 5 characters. ``python -m benchmarks.overlap '{...}'`` is the
child.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.result import Result
from quantgate.evaluate.overlap import Sample, find
from quantgate.evaluate.overlap.near import character_codes, shingles
from quantgate.evaluate.overlap.texts import normal, words
from quantgate.evaluate.suites import Case, Message
from quantgate.quantize import machine

SAMPLES, CASES = 100_000, 10_000
WORDS, VOCABULARY, FRAGMENTS = 60, 20_000, 40_000
PLANTED = 100  # every so many lines one is a case
SECONDS, BYTES = 60, 2 * 1024**3
LETTERS = "etaoinshrdlucmfwypvbgkjqxz"


def run() -> list[Result]:
    size = {"samples": SAMPLES, "cases": CASES}
    took, floor = _child(size | {"floor": False}), _child(size | {"floor": True})
    what = f"overlap of {SAMPLES:,} samples with {CASES:,} cases of {WORDS} words"
    seconds = (
        f"{took['seconds']:.1f} s ({took['cpu']:.1f} s of one core; {took['cpu'] / floor['cpu']:.1f}x reading alone)"
    )
    memory = f"{took['peak'] / 1024**2:.0f} MiB"
    found = f"{took['found']} of {took['planted']} planted copies found, {took['wrong']} others called copies"
    return [
        Result(f"{what}: time", seconds, f"under {SECONDS} s", took["seconds"] < SECONDS),
        Result(f"{what}: peak memory of the process", memory, "under 2 GiB", took["peak"] < BYTES),
        Result(f"{what}: copies", found, "all, no other", took["found"] == took["planted"] and not took["wrong"]),
    ]


def _child(asked: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.overlap", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


class _Writer:
    """Texts of fragments; equal seeds write equal texts."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        draw = random.Random(0)
        made = ["".join(draw.choices(LETTERS, range(26, 0, -1), k=draw.randint(2, 9))) for _ in range(VOCABULARY)]
        ranks = [1 / (at + 10) for at in range(VOCABULARY)]
        self.fragments = [" ".join(draw.choices(made, ranks, k=draw.randint(2, 6))) for _ in range(FRAGMENTS)]

    def text(self) -> str:
        parts = list[str]()
        while sum(len(part.split()) for part in parts) < WORDS:
            parts.append(self.rng.choice(self.fragments))
        parts.insert(3, str(self.rng.randrange(2, 5000)))
        return f"{' '.join(parts)} {self.rng.randrange(2, 300)}"


def _cases(count: int) -> list[Case]:
    writer = _Writer(1)
    return [
        Case(
            suite="suite", id=str(at), messages=(Message(role="user", content=writer.text()),), scorer="exact",
            reference="x",
        )
        for at in range(count)
    ]  # fmt: skip


def _samples(count: int, cases: list[Case]) -> Iterator[Sample]:
    writer = _Writer(2)
    for number in range(1, count + 1):
        text = writer.text()
        if number % PLANTED == 0:
            text = _changed(cases[number // PLANTED % len(cases)].messages[0].content, number // PLANTED % 3)
        yield Sample(number, (("system", "You help."), ("user", text), ("assistant", "Done.")))


def _changed(text: str, how: int) -> str:
    """Word for word; with a word in twenty left out; inside something else."""
    if how == 0:
        return text
    if how == 1:
        return " ".join(word for at, word in enumerate(text.split()) if at % 20 != 10)
    return f"please look at the following, which came in today: {text} - and tell me what you think of it"


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    cases = _cases(asked["cases"])
    samples = list(_samples(asked["samples"], cases))
    began, cpu = time.perf_counter(), time.process_time()
    if asked["floor"]:
        for one in samples:
            text = normal(one.turns[1][1])
            shingles([character_codes(text, words(text))])
        return {"cpu": time.process_time() - cpu}
    found = find(samples, cases)
    took = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu, "peak": machine.peak()}
    planted = {number: str(number // PLANTED % len(cases)) for number in range(PLANTED, len(samples) + 1, PLANTED)}
    called = {pair.sample: pair.case for pair in found.blocking}
    right = sum(called.get(number) == case for number, case in planted.items())
    return took | {"found": right, "planted": len(planted), "wrong": len(called.keys() - planted.keys())}


if __name__ == "__main__":
    print(json.dumps(_answer(json.loads(sys.argv[1]))))
