"""An engine of this process under load: a queue in front of it, and whatever waits is decoded as one batch.

The engine runs in a thread of its own, one batch after the other: a request that comes while a batch runs waits in the
queue, as it would behind a server without continuous batching. The wait, the prompt's share and the writing are
reported by the clock of that thread; a first token counts when it is computed, which is when a server could send it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol, Self

from quantgate.engines import Completion, Engine, Failure, Prompt
from quantgate.errors import EngineError, QuantgateError
from quantgate.loadtest import Heard, Stage

WARM_UP = Prompt(turns=(("user", "Hi"),), max_tokens=2)
Watch = Callable[[Sequence[int]], None]


class Watched(Protocol):
    """An engine that says, at every step, which of the asked prompts just got a token."""

    watch: Watch | None


class _Waiting:
    def __init__(self, prompt: Prompt, loop: asyncio.AbstractEventLoop) -> None:
        self.prompt, self.loop = prompt, loop
        self.joined = time.perf_counter()
        self.future: asyncio.Future[Heard] = loop.create_future()

    def tell(self, heard: Heard) -> None:
        """From the engine's thread; the loop may have ended, or nobody may wait any more."""
        try:
            self.loop.call_soon_threadsafe(lambda: None if self.future.done() else self.future.set_result(heard))
        except RuntimeError:
            return


class Batched:
    """See ``loadtest.Target``. At most ``rows`` requests are decoded together."""

    def __init__(self, engine: Engine, *, rows: int = 16, name: str = "") -> None:
        if rows < 1:
            raise EngineError(f"rows={rows}: a batch has at least 1 row")
        self.engine, self.rows, self.name = engine, rows, name or engine.identity.engine
        self.waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None

    async def __aenter__(self) -> Self:
        self.thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self.thread.start()
        heard = await self.ask(WARM_UP)
        if heard.lost:
            await self.__aexit__()
            raise EngineError(f"{self.name}: does not answer: {heard.lost}; choose a model that answers 'Hi'")
        return self

    async def __aexit__(self, *problem: object) -> None:
        if self.thread is not None:
            self.waiting.put(None)
            await asyncio.get_running_loop().run_in_executor(None, self.thread.join)  # the batch that runs goes on
            self.thread = None

    async def ask(self, prompt: Prompt) -> Heard:
        one = _Waiting(prompt, asyncio.get_running_loop())
        self.waiting.put(one)
        return await one.future

    def _work(self) -> None:
        ended = False
        while not ended:
            first = self.waiting.get()
            if first is None:
                break
            batch = [first]
            while len(batch) < self.rows:
                try:
                    more = self.waiting.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    ended = True
                    break
                batch.append(more)
            self._answer([one for one in batch if not one.future.cancelled()])

    def _answer(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        stamps: list[list[float]] = [[] for _ in batch]

        def watch(got: Sequence[int]) -> None:
            now = time.perf_counter()
            for index in got:
                stamps[index].append(now)

        began = time.perf_counter()
        try:
            if hasattr(self.engine, "watch"):
                self.engine.watch = watch
            found: Sequence[Completion | Failure] = self.engine.generate([one.prompt for one in batch])
        except (
            QuantgateError,
            RuntimeError,
            MemoryError,
        ) as problem:  # torch's own
            found = [Failure(reason=f"the engine failed: {' '.join(str(problem).split())[:200]}")] * len(batch)
        finally:
            if hasattr(self.engine, "watch"):
                self.engine.watch = None
        ended = time.perf_counter()
        for one, answer, seen in zip(batch, found, stamps, strict=True):
            one.tell(_heard(one, answer, seen, (began, ended), len(batch)))


def _heard(one: _Waiting, answer: Completion | Failure, seen: list[float], span: tuple[float, float], rows: int) -> Any:
    if isinstance(answer, Failure):
        return Heard(sent=one.joined, lost=answer.reason, batch=rows)
    tokens = answer.tokens
    written = seen if tokens is None else seen[: max(tokens, 1)]  # the token that ends an answer is no text
    stages: dict[Stage, float] = {"queue": span[0] - one.joined}
    last = span[1]
    if seen:
        last = seen[-1]
        stages |= {"prefill": seen[0] - span[0], "decode": last - seen[0]}
    return Heard(
        sent=one.joined,
        first=written[0] if written else None,
        last=last,
        gaps_s=tuple(later - earlier for earlier, later in pairwise(written)),
        tokens=tokens,
        prompt_tokens=answer.prompt_tokens,
        batch=rows,
        stages=stages,
    )
