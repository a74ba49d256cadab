"""Workers in a Ray cluster: one actor each, which Ray starts anew when it dies, and which is then asked again.

A worker must compute what this process would: it is held to the same versions and number of threads before it is given
anything, and to the run's folder, which it reads artifacts from and writes them to.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantgate import errors
from quantgate.errors import EngineError, MissingExtra, QuantgateError, Stopped, UsageError
from quantgate.pipeline.workplace import HELD, Task, Workplace

AGAIN = 3  # times that a task is given to a worker anew after one has died over it
STORE_BYTES = 256 * 2**20  # of a local Ray's object store
POLL_S = 0.2
START_S = 300.0  # for the workers of a busy cluster to start
STARTS = 3  # of a local Ray, whose own limits (15 s for its agents, 30 s in all) a busy machine can miss
UNLOADED = 1.5  # tasks that it is worth waiting for a worker that has the engine open


@dataclass(frozen=True)
class Failed:
    """An error on its way home: its class by name, because a class with arguments of its own does not travel."""

    kind: str
    sentence: str

    def error(self) -> QuantgateError:
        kind = getattr(errors, self.kind, QuantgateError)
        found: QuantgateError = kind.__new__(kind)
        Exception.__init__(found, self.sentence)
        return found


class Worker:
    """The actor."""

    def __init__(self, threads: int) -> None:
        self.place = Workplace(threads)

    def do(self, task: Task) -> Any:
        try:
            return self.place.do(task)
        except QuantgateError as problem:
            return Failed(type(problem).__name__, str(problem))

    def told(self, task: str) -> tuple[str, int, int] | None:
        return self.place.told.get(task)

    def hello(self, token: str) -> tuple[int, str, dict[str, str], bool]:
        """Process id, machine, versions, and whether it sees the run's folder."""
        return os.getpid(), socket.gethostname(), versions(), Path(token).is_file()


def versions() -> dict[str, str]:
    """What decides how numbers are computed, besides the threads."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    cpu = f"torch {torch.__version__} for {torch.backends.cpu.get_cpu_capability()}"
    return {"torch": cpu} | {name: of(name) for name in ("quantgate", "transformers", "tokenizers", "numpy")}


@dataclass
class RayTicket:
    pool: RayPool
    task: Task
    worker: int
    ref: Any
    counted: bool = False

    def ready(self, timeout_s: float) -> bool:
        import ray

        if self.pool.closed:
            raise Stopped("stopped; what is finished is kept")
        done, _ = ray.wait([self.ref], timeout=timeout_s)
        return bool(done)

    def result(self) -> Any:
        import ray

        while not self.ready(POLL_S):
            pass
        try:
            found = ray.get(self.ref)
        except ray.exceptions.RayError as problem:
            if self.pool.closed:
                raise Stopped("stopped; what is finished is kept") from None
            raise _died(self.task, problem) from None
        finally:
            self.pool.done(self)
        if isinstance(found, Failed):
            raise found.error()
        return found

    def told(self) -> tuple[str, int, int] | None:
        import ray

        ref = self.pool.actors[self.worker].told.remote(str(self.task.given[-1]))
        done, _ = ray.wait([ref], timeout=POLL_S)
        try:
            return ray.get(ref) if done else None
        except ray.exceptions.RayError:
            return None  # it is being started anew


@dataclass
class RayPool:
    """``workers`` actors at ``address``. Raises UsageError, MissingExtra and EngineError when they cannot work."""

    address: str
    workers: int
    out: Path
    pids: list[int] = field(default_factory=list)  # of the workers, as they were started
    closed: bool = False
    actors: list[Any] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)  # tasks that each worker has
    loaded: list[list[str]] = field(
        default_factory=list
    )  # keys of the engines that each worker has open, last used last
    guard: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        import torch

        self.threads = torch.get_num_threads()
        self.ray = _connect(self.address, self.workers * self.threads)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        ray = self.ray
        held = ray.cluster_resources()
        if held.get("CPU", 0) < self.workers * self.threads:
            raise UsageError(
                f"executor: ray: {self.workers} workers of {self.threads} threads need {self.workers * self.threads} "
                f"CPUs, the cluster has {held.get('CPU', 0):g}; ask for fewer workers"
            )
        actor = ray.remote(
            num_cpus=self.threads,
            num_gpus=min(1.0, held.get("GPU", 0) / self.workers),
            max_restarts=-1,
            max_task_retries=AGAIN,
            concurrency_groups={"aside": 1},
        )(_grouped(ray))
        self.actors = [actor.remote(self.threads) for _ in range(self.workers)]
        self.pending, self.loaded = [0] * self.workers, [[] for _ in range(self.workers)]
        token = self.out / f".executor-{secrets.token_hex(8)}"
        token.touch()
        try:
            found = ray.get([one.hello.remote(str(token.resolve())) for one in self.actors], timeout=START_S)
        except ray.exceptions.RayError as problem:
            first = str(problem).strip().splitlines()[0][:160]
            raise EngineError(
                f"executor: ray: a worker cannot start ({first}); install the same quantgate[ray] on every machine"
            ) from None
        finally:
            token.unlink()
        self.pids = [pid for pid, *_ in found]
        for _, host, theirs, sees in found:
            self._alike(host, theirs)
            if not sees:
                raise UsageError(
                    f"executor: ray: {host} does not see {self.out.resolve()}; use a folder that all share"
                )

    def _alike(self, host: str, theirs: dict[str, str]) -> None:
        for name, ours in versions().items():
            if theirs.get(name) != ours:
                raise UsageError(
                    f"executor: ray: {host} has {name} {theirs.get(name)}, this machine {ours}; results would not be "
                    "those of a local run, install the same on both"
                )

    def submit(self, task: Task) -> RayTicket:
        with self.guard:
            if self.closed:
                raise Stopped("stopped; what is finished is kept")
            at = min(range(self.workers), key=lambda one: (self._cost(one, task), one))
            self.pending[at] += 1
            for key in task.posts:
                self.loaded[at] = [*(one for one in self.loaded[at] if one != key), key][-HELD:]
            return RayTicket(self, task, at, self.actors[at].do.options(name=task.name).remote(task))

    def _cost(self, worker: int, task: Task) -> float:
        return self.pending[worker] + UNLOADED * sum(key not in self.loaded[worker] for key in task.posts)

    def done(self, ticket: RayTicket) -> None:
        with self.guard:
            if not ticket.counted:
                ticket.counted = True
                self.pending[ticket.worker] -= 1

    def stop(self) -> None:
        with self.guard:
            if self.closed:
                return
            self.closed = True
        for one in self.actors:
            self.ray.kill(one)

    def close(self) -> None:
        """After the last thread that asks for a result: a call to Ray that comes later would start it anew."""
        self.stop()
        self.ray.shutdown()


def _grouped(ray: Any) -> type:
    """The actor's class; what it tells of itself waits behind no work."""

    class Hand(Worker):
        told = ray.method(concurrency_group="aside")(Worker.told)

    return Hand


def _connect(address: str, cpus: int) -> Any:
    try:
        import ray
    except ModuleNotFoundError:
        raise MissingExtra(
            "executor: ray needs the package 'ray', which is not installed; run: pip install 'quantgate[ray]'"
        ) from None
    if ray.is_initialized():
        raise UsageError("executor: ray: this process is connected to a Ray cluster already; end that, or use local")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address == "local":
        from ray._common.usage import usage_lib

        usage_lib.set_usage_stats_enabled_via_env_var(False)  # nothing about the user leaves the machine
        alone = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": STORE_BYTES}
        _start_local(ray, alone | {"_node_ip_address": "127.0.0.1"} | quiet)
        return ray
    try:
        ray.init(address=address, **quiet)
    except ConnectionError as problem:
        first = str(problem).strip().splitlines()[0][:160]
        raise UsageError(f"executor: ray: no cluster runs here ({first}); start one, or use address: local") from None
    return ray


def _start_local(ray: Any, settings: dict[str, Any]) -> None:
    """Nothing has been asked yet, so a start that failed is tried again; what it left ends with this process."""
    for left in reversed(range(STARTS)):
        try:
            ray.init(address="local", **settings)
            return
        except Exception as problem:  # Ray raises no narrower one when its processes miss its limits
            if not left:
                first = next(iter(str(problem).strip().splitlines()), type(problem).__name__)
                raise EngineError(
                    f"executor: ray: Ray did not start here in {STARTS} tries ({first[:160]}); run again when this "
                    "machine has less to do, or use executor: local"
                ) from problem


def _died(task: Task, problem: Exception) -> EngineError:
    first = next(itertools.chain(str(problem).strip().splitlines(), [type(problem).__name__]))
    return EngineError(
        f"{task.name}: the worker died {AGAIN + 1} times over it ({first[:160]}); give it more memory, or fewer workers"
    )
