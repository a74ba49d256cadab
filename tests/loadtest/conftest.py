"""An endpoint that answers at once, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"


class InstantServer:
    """``url`` while it runs; ``came`` once it was ended: when each request came in, in seconds from the first one."""

    def __init__(self, *options: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(SOURCE)}
        command = [sys.executable, "-m", "quantgate.loadtest._instant", "--seconds", "120", *options]
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/v1"

    def came(self) -> list[float]:
        told, _ = self.process.communicate(timeout=60)
        found: list[float] = json.loads(told)
        return found


@pytest.fixture
def instant() -> Iterator[Callable[..., InstantServer]]:
    started: list[InstantServer] = []

    def start(*options: str) -> InstantServer:
        started.append(InstantServer(*options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.communicate(timeout=60)
        for pipe in (one.process.stdin, one.process.stdout):
            if pipe is not None:
                pipe.close()
