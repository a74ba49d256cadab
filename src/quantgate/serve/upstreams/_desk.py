"""One thread that writes several answers, a step of each in turn, so that a long one holds up nobody.

The engine is opened in that thread and touched by no other. Answers are awaited in an event loop: whoever stops
listening ends the work before its next token.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

from quantgate.engines._token_stream import Answer, Piece
from quantgate.serve import UpstreamFault

T = TypeVar("T")


class Job:
    """One answer that was asked for. ``stages`` are seconds; whole once the last piece came."""

    def __init__(self, begin: Callable[[], Answer]) -> None:
        self.begin = begin
        self.answer: Answer | None = None
        self.stages: dict[str, float] = {}
        self.gone = False
        self._loop, self._asked = asyncio.get_running_loop(), time.perf_counter()
        self._came: asyncio.Queue[Piece | BaseException] = asyncio.Queue()

    async def pieces(self) -> AsyncGenerator[Piece]:
        """Raises UpstreamFault and what the engine raised; leaving the loop ends the work."""
        try:
            while True:
                came = await self._came.get()
                if isinstance(came, BaseException):
                    raise came
                yield came
                if came.finish:
                    return
        finally:
            self.gone = True

    def tell(self, came: Piece | BaseException) -> None:
        """From the thread: hand a piece over, or what ended it."""
        if isinstance(came, BaseException) or came.finish:
            self._count()
        try:
            self._loop.call_soon_threadsafe(self._came.put_nowait, came)
        except RuntimeError:  # the loop is closed, so nobody listens
            self.gone = True

    def step(self) -> bool:
        """The next step of it, in the thread; False once it is over."""
        try:
            if self.gone:
                self.close()
                return False
            if self.answer is None:
                self._start()
            assert self.answer is not None
            piece = next(self.answer)
        except Exception as problem:  # one answer failed: whoever asked is told, the others go on
            self.tell(problem)
            self.close()
            return False
        self.tell(piece)
        if piece.finish:
            self.close()
        return piece.finish is None

    def close(self) -> None:
        if self.answer is not None:
            with suppress(Exception):  # what cannot be kept for the next conversation is not kept
                self.answer.close()

    def _start(self) -> None:
        began = time.perf_counter()
        self.stages["queue"] = began - self._asked
        self.answer = self.begin()
        self.stages["context"] = time.perf_counter() - began

    def _count(self) -> None:
        if self.answer is not None:
            times = self.answer.times
            self.stages |= {"cache": times.cache, "prefill": times.prefill, "decode": times.decode}


class Desk:
    """At most ``at_once`` answers are written in turns, and at most ``waiting`` more wait for their turn."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self.at_once, self.waiting = at_once, waiting
        self._jobs = deque[Job]()
        self._calls = deque[Callable[[], None]]()
        self._change = threading.Condition()
        self._running = list[Job]()
        self._ends = False
        self._thread = threading.Thread(target=self._work, name="quantgate-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def call(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the thread, between two steps."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as problem:
                done.set_exception(problem)

        with self._change:
            self._calls.append(run)
            self._change.notify()
        return await asyncio.wrap_future(done)

    def ask(self, begin: Callable[[], Answer]) -> Job:
        """Raises UpstreamFault: overloaded, or closed."""
        with self._change:
            if self._ends or not self._thread.is_alive():
                raise UpstreamFault("refused", "the engine of this process is not running", status=503)
            free = max(0, self.at_once - len(self._running))
            if sum(not job.gone for job in self._jobs) >= self.waiting + free:
                raise UpstreamFault(
                    "overloaded", f"{self.at_once} answers are being written and {self.waiting} more wait", status=503
                )
            job = Job(begin)
            self._jobs.append(job)
            self._change.notify()
            return job

    async def close(self) -> None:
        """End the thread after its present step; answers that were not finished are cut."""
        with self._change:
            self._ends = True
            self._change.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while self._take():
            self._running = [job for job in self._running if job.step()]
        cut = UpstreamFault("cut", "the engine of this process was stopped in the middle of an answer")
        for job in (*self._running, *self._jobs):
            job.tell(cut)
            job.close()

    def _take(self) -> bool:
        """Wait for something to do, and take up what there is room for; False: the end."""
        with self._change:
            while not (self._ends or self._calls or self._jobs or self._running):
                self._change.wait()
            calls = [self._calls.popleft() for _ in range(len(self._calls))]
            while self._jobs and len(self._running) < self.at_once:
                self._running.append(self._jobs.popleft())
            ends = self._ends
        for call in calls:
            call()
        return not ends
