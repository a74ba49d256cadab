"""A run under way: what it was asked, what it has open, and what it tells the user."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from quantgate.evaluate.answers import Answers
from quantgate.evaluate.evidence import Pace
from quantgate.pipeline.executor import Executor, Local
from quantgate.pipeline.planning import Plan
from quantgate.pipeline.students import Students
from quantgate.pipeline.two_models import Progress
from quantgate.quantize.reuse import Reuse
from quantgate.release_config import ReleaseConfig
from quantgate.report import Stage


@dataclass
class Run:
    """A run under way: its configuration, folder, and what it tells the user."""

    config: ReleaseConfig
    out: Path
    progress: Progress
    planned: Callable[[Plan], None] = lambda _: None
    stages: list[Stage] = field(default_factory=list)
    paces: dict[str, Pace] = field(default_factory=dict)  # of the variants' engines
    here: Path | None = None  # where doctor saved this machine's profile
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)  # keys of servers, by the variables' names
    servers: ExitStack = field(default_factory=ExitStack)  # launched for the whole run: the baseline's
    server: ExitStack = field(default_factory=ExitStack)  # launched for the variant that is being asked
    executor: Executor = field(default_factory=Local)
    journals: dict[str, Answers] = field(default_factory=dict)  # by the key of the engine's identity
    asked: dict[str, int] = field(default_factory=dict)  # cases that each variant is done with
    reuse: Reuse | None = None  # finished blocks of earlier sweeps
    students: Students = field(default_factory=Students)  # variants that are models of their own

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        blocks = self.reuse.blocks if self.reuse else 0
        yield
        told = self.reuse.sentence if self.reuse and self.reuse.blocks > blocks else ""
        self.stages.append(Stage(name=name, seconds=round(time.monotonic() - began, 3), reused=told))
