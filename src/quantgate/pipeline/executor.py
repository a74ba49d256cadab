"""Who does the work of a run: this process, or the workers of a cluster. Verdicts are the same, to the digest.

    executor.open(...)        an engine: its ``generate`` may run elsewhere
    executor.sweep(...)       the artifacts of all recipes
    executor.gather(...)      the evidence of all variants, in order

A cluster changes nothing that is computed. Workers are sent the very batches that a local run asks, with its number of
threads; the seeded order, the looks at the answers and every journal stay here, with one writer. Where a local run
would ask the baseline for one variant what an earlier one did not need, a variant waits for its turn (``Turns``), since
the rows of a batch may reach into each other's last bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from quantgate.engines import Completion, Engine, Failure, Prompt
from quantgate.errors import ArtifactError
from quantgate.evaluate.compare import Side
from quantgate.pipeline.runtimes import engine_for
from quantgate.pipeline.turns import Turns
from quantgate.pipeline.workplace import Opened, Post, Task, asking, post_of
from quantgate.quantize.manifest import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from quantgate.evaluate.drift_record import Drift
    from quantgate.evaluate.suites import Case
    from quantgate.models import OpenedModel
    from quantgate.quantize import Artifact
    from quantgate.quantize.reuse import Reuse
    from quantgate.release_config import ExecutorConfig
    from quantgate.variant_config import RuntimeConfig

T = TypeVar("T")
Tell = Callable[[str, int, int], None]  # stage, done, total
POLL_S = 0.2  # between two looks at how far the workers are


class Executor(Protocol):
    """Where the work of a run is done."""

    def open(
        self, model: OpenedModel, artifact: Artifact, name: str, out: Path, runtime: RuntimeConfig | None
    ) -> tuple[Engine, str]:
        """See ``runtimes.engine_for``."""
        ...

    def sweep(
        self, model: OpenedModel, samples: Sequence[Sequence[int]], recipes: Sequence[Recipe], out: Path,
        tell: Tell, seed: int,
    ) -> list[Artifact]:  # fmt: skip
        """See ``quantize.sweep.sweep``."""
        ...

    def gather(self, parts: Sequence[Callable[[Side], T]], base: Side) -> list[T]:
        """What every part returns, in order; each is given the baseline's side as it may ask it."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


class Local:
    """This process, one thing after another. ``reuse`` holds finished blocks of earlier sweeps."""

    def __init__(self, reuse: Reuse | None = None) -> None:
        self.reuse = reuse

    def open(
        self, model: OpenedModel, artifact: Artifact, name: str, out: Path, runtime: RuntimeConfig | None
    ) -> tuple[Engine, str]:
        return engine_for(model, artifact, name, out, runtime)

    def sweep(
        self, model: OpenedModel, samples: Sequence[Sequence[int]], recipes: Sequence[Recipe], out: Path,
        tell: Tell, seed: int,
    ) -> list[Artifact]:  # fmt: skip
        from quantgate.quantize.sweep import sweep

        return sweep(model, samples, recipes, out, progress=tell, seed=seed, reuse=self.reuse)

    def gather(self, parts: Sequence[Callable[[Side], T]], base: Side) -> list[T]:
        return [part(base) for part in parts]

    def close(self) -> None: ...


class Ticket(Protocol):
    """A task under way."""

    def result(self) -> Any:
        """Its answer, once it is there. Raises what the task raised, EngineError when no worker survives it."""
        ...

    def ready(self, timeout_s: float) -> bool: ...

    def told(self) -> tuple[str, int, int] | None:
        """Stage, done and total, where the task tells them."""
        ...


class Pool(Protocol):
    """Workers that do tasks."""

    @property
    def workers(self) -> int: ...

    def submit(self, task: Task) -> Ticket: ...

    def stop(self) -> None:
        """Give up what is under way: every ticket raises from now on."""
        ...

    def close(self) -> None: ...


class Elsewhere:
    """An engine that runs in the pool. See ``engines.Engine``."""

    def __init__(self, pool: Pool, post: Post, opened: Opened) -> None:
        self.pool, self.post = pool, post
        self.identity, self.kernels = opened.identity, opened.kernels
        self.begun: dict[str, Ticket] = {}

    def begin(self, prompts: Sequence[Prompt]) -> None:
        """Start on what ``generate`` will be asked; the same prompts again are one task."""
        task = asking(self.post, prompts)
        if task.digest not in self.begun:
            self.begun[task.digest] = self.pool.submit(task)

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion | Failure]:
        self.begin(prompts)
        found: list[Completion | Failure] = self.begun.pop(asking(self.post, prompts).digest).result()
        return found

    def encode(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        return self._do("encode", list(turns))  # type: ignore[no-any-return]

    def logits(self, ids: Tensor, at: Tensor | None = None) -> Tensor:
        return self._do("logits", ids, at)  # type: ignore[no-any-return]

    def drift_from(self, baseline: Elsewhere, cases: Sequence[Case]) -> Drift:
        """Measured where the engines are: logits are large."""
        posts = (baseline.post, self.post)
        task = Task(f"{self.post.name}: drift", "drift", (*posts, list(cases)), tuple(one.key for one in posts))
        return self.pool.submit(task).result()  # type: ignore[no-any-return]

    def _do(self, call: str, *given: Any) -> Any:
        return self.pool.submit(Task(f"{self.post.name}: {call}", call, (self.post, *given), (self.post.key,))).result()


@dataclass
class Spread:
    """The workers of a pool; several variants under way at a time."""

    pool: Pool

    def open(
        self, model: OpenedModel, artifact: Artifact, name: str, out: Path, runtime: RuntimeConfig | None
    ) -> tuple[Engine, str]:
        post = post_of(model, artifact, name, out, runtime)
        opened: Opened = self.pool.submit(Task(f"{post.name}: open", "open", (post,), (post.key,))).result()
        return Elsewhere(self.pool, post, opened), opened.proof

    def sweep(
        self, model: OpenedModel, samples: Sequence[Sequence[int]], recipes: Sequence[Recipe], out: Path,
        tell: Tell, seed: int,
    ) -> list[Artifact]:  # fmt: skip
        """Each worker walks the model once, for its share of the recipes: the walk is paid once per worker."""
        from quantgate.quantize import open_artifact
        from quantgate.quantize.journal import refuse_strangers
        from quantgate.quantize.plan import plan

        refuse_strangers(out, [one.name for one in plan(model, recipes, calibrated=True)])
        post = post_of(model, _as_is(model), "", out, None)
        ids, tickets = [list(one) for one in samples], []
        for at, share in enumerate(shares(recipes, self.pool.workers)):
            given = (post.model, post.weights, ids, share, str(out.resolve()), seed, f"sweep {at}")
            tickets.append(self.pool.submit(Task(", ".join(one.name for one in share), "sweep", given)))
        _watch(tickets, tell)
        made = {name: digest for ticket, share in zip(tickets, shares(recipes, self.pool.workers), strict=True)
                for name, digest in zip((one.name for one in share), ticket.result(), strict=True)}  # fmt: skip
        found = [open_artifact(out / recipe.name) for recipe in recipes]
        for one in found:
            if one.manifest.digest != made[one.name]:
                raise ArtifactError(
                    f"{one.path}: is not what the worker made; let nobody else write there, and run again"
                )
        return found

    def gather(self, parts: Sequence[Callable[[Side], T]], base: Side) -> list[T]:
        turns = Turns(base, len(parts))

        def at(place: int) -> T:
            with turns.part(place) as side:
                return parts[place](side)

        threads = ThreadPoolExecutor(max(1, self.pool.workers), thread_name_prefix="variant")
        try:
            found = [threads.submit(at, place) for place in range(len(parts))]
            wait(found, return_when=FIRST_EXCEPTION)
            if turns.cause is not None:
                raise turns.cause  # and not what it did to those before it
            return [one.result() for one in found]
        except BaseException as problem:  # Ctrl-C as well
            turns.stop(problem)
            self.pool.stop()  # whoever waits for a worker is told
            raise
        finally:
            threads.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        self.pool.close()


def shares(recipes: Sequence[Recipe], workers: int) -> list[list[Recipe]]:
    """The recipes in at most ``workers`` parts of nearly one size; those of one method stay together where they can.

    >>> names = ["W4A16:gptq", "W8A16:rtn", "W3A16:gptq", "W2A16:rtn"]
    >>> recipes = [Recipe(scheme=one.split(":")[0], method=one.split(":")[1]) for one in names]
    >>> [[one.name for one in share] for share in shares(recipes, 2)]
    [['W4A16-gptq', 'W3A16-gptq'], ['W8A16-rtn', 'W2A16-rtn']]
    """
    ordered = sorted(recipes, key=lambda one: one.method)
    count = min(workers, len(ordered))
    bounds = [round(at * len(ordered) / count) for at in range(count + 1)] if count else []
    return [ordered[start:end] for start, end in itertools.pairwise(bounds)]


def _watch(tickets: Sequence[Ticket], tell: Tell) -> None:
    """Tell how far the workers are, all together, until each is done."""
    while waiting := [ticket for ticket in tickets if not ticket.ready(0)]:
        told = [one for ticket in waiting if (one := ticket.told())]
        if told:
            tell(told[0][0], sum(done for _, done, _ in told), sum(total for _, _, total in told))
        waiting[0].ready(POLL_S)


def _as_is(model: OpenedModel) -> Artifact:
    from quantgate.quantize import baseline

    return baseline(model)


@contextmanager
def executor_for(config: ExecutorConfig, out: Path, reuse: Reuse | None = None) -> Any:
    """The executor of a configuration, closed when the block ends; ``reuse`` is for this process, not for workers.

    Raises UsageError, MissingExtra.
    """
    if config.ray is None:
        yield Local(reuse)
        return
    from quantgate.pipeline._ray import RayPool

    executor = Spread(RayPool(config.ray.address, config.ray.workers, out))
    try:
        yield executor
    finally:
        executor.close()
