"""Workers change where a run is computed, and nothing of what it says."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from quantgate import pipeline
from quantgate.engines.scripted import ScriptedEngine
from quantgate.errors import EngineError, UsageError
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Side
from quantgate.pipeline.executor import Spread, shares
from quantgate.pipeline.turns import Turns
from quantgate.pipeline.workplace import Task, Workplace, post_of
from quantgate.quantize import Recipe
from quantgate.records import canonical
from quantgate.release_config import ExecutorConfig, ReleaseConfig, load_config

VARIANTS = ["W8A16", {"scheme": "W4A16", "group_size": 32}, {"scheme": "W2A16", "group_size": 32, "method": "rtn"}]


def said(report: Any) -> Any:
    """A report without its times and the lines about the machine."""
    return canonical(report.model_copy(update={"environment": None, "stages": (), "paces": {}}).body())


class Threads:
    """A pool of workplaces in this process, each of which opens its own engines and dawdles before every task."""

    def __init__(self, workers: int, seed: int = 0, breaks: int = 0) -> None:
        self.workers, self.breaks, self.rng = workers, breaks, random.Random(seed)
        self.idle = [Workplace(torch.get_num_threads()) for _ in range(workers)]
        self.threads, self.free = ThreadPoolExecutor(workers), threading.Lock()
        self.torch = threading.Lock()  # a process has one default type of tensors, and loading a model changes it
        self.done: list[str] = []

    def _do(self, task: Task, wait: float) -> Any:
        with self.free:
            place = self.idle.pop()
        try:
            time.sleep(wait)
            if self.breaks and sum("prompts" in name for name in self.done) == self.breaks:
                raise EngineError("broken on purpose")
            with self.torch:
                self.done.append(task.name)
                return place.do(task)
        finally:
            with self.free:
                self.idle.append(place)

    def submit(self, task: Task) -> Any:
        return Ticket(self.threads.submit(self._do, task, self.rng.random() * 0.02))

    def stop(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        self.threads.shutdown(wait=True, cancel_futures=True)


class Ticket:
    def __init__(self, future: Any) -> None:
        self.future, self.result = future, future.result

    def ready(self, timeout_s: float) -> bool:
        time.sleep(min(timeout_s, 0.01))
        return bool(self.future.done())

    def told(self) -> None:
        return None


def spread(monkeypatch: pytest.MonkeyPatch, pool: Threads) -> None:
    from contextlib import contextmanager

    @contextmanager
    def opened(_config: ExecutorConfig, _out: Path, **_: Any) -> Any:
        try:
            yield Spread(pool)
        finally:
            pool.close()

    monkeypatch.setattr(pipeline, "executor_for", opened)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("local")


def config_of(release: Any, **more: Any) -> ReleaseConfig:
    return load_config(release(variants=VARIANTS, **more))


@pytest.mark.parametrize(("workers", "seed"), [(1, 0), (2, 1), (3, 2)])
def test_workers_reach_the_local_runs_report(
    release: Any, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, seed: int
) -> None:
    local = pipeline.run(config_of(release), out=shared)
    pool = Threads(workers, seed)
    spread(monkeypatch, pool)
    report = pipeline.run(config_of(release), out=tmp_path / "spread")
    assert said(report) == said(local)
    journals = [{file.name for file in (out / "answers").iterdir()} for out in (shared, tmp_path / "spread")]
    assert journals[0] == journals[1]
    assert sum("prompts" in name for name in pool.done) > len(VARIANTS)


def test_every_batch_is_one_of_the_local_run(
    release: Any, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line of a journal is a batch: the same cases must have stood together, whoever asked."""
    pipeline.run(config_of(release), out=shared)
    spread(monkeypatch, Threads(3, 7))
    pipeline.run(config_of(release), out=tmp_path / "spread")

    def batches(out: Path) -> Any:
        import json

        return {
            file.name: sorted(
                tuple(one["case"] for one in json.loads(line)["answers"]) for line in file.read_text().splitlines()[1:]
            )
            for file in (out / "answers").iterdir()
        }

    assert batches(tmp_path / "spread") == batches(shared)


def test_a_run_goes_on_with_other_workers(release: Any, shared: Path, tmp_path: Path, monkeypatch: Any) -> None:
    local = pipeline.run(config_of(release), out=shared)
    spread(monkeypatch, Threads(2, breaks=4))
    with pytest.raises(EngineError, match="broken on purpose"):
        pipeline.run(config_of(release), out=tmp_path / "run")
    assert not (tmp_path / "run" / "report.json").exists()
    monkeypatch.undo()
    assert said(pipeline.run(config_of(release), out=tmp_path / "run")) == said(local)


def test_the_baseline_is_asked_in_the_order_of_the_variants(sums_cases: Any, tmp_path: Path) -> None:
    """A later variant that needs what the first has not asked waits until the first has finished."""
    engine = ScriptedEngine(lambda prompt: "x")
    base = Side(engine, Answers(tmp_path, engine.identity))
    turns, order = Turns(base, 2), list[str]()
    begun = threading.Event()

    def second() -> None:
        with turns.part(1) as side:
            begun.set()
            side.answers.of(side.engine, sums_cases[:4])
            order.append("second")

    with turns.part(0) as side:
        thread = threading.Thread(target=second)
        thread.start()
        begun.wait()
        side.answers.of(side.engine, sums_cases[:2])
        time.sleep(0.05)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert [len(line) for line in (sums_cases[:2], sums_cases[2:4])] == [2, 2]
    assert base.answers.asked == 4


def test_what_stopped_the_variants_is_told_and_not_that_they_were_stopped(sums_cases: Any, tmp_path: Path) -> None:
    """The first waits for the second, whose error comes first; then it is stopped itself."""
    engine, failed = ScriptedEngine(lambda prompt: "x"), threading.Event()
    pool = Threads(2)

    def first(side: Side) -> None:
        assert failed.wait(10)
        time.sleep(0.05)
        side.answers.of(side.engine, sums_cases)

    def second(side: Side) -> None:
        failed.set()
        raise EngineError("the second is broken")

    with pytest.raises(EngineError, match="the second is broken"):
        Spread(pool).gather([first, second], Side(engine, Answers(tmp_path, engine.identity)))
    pool.close()


def test_a_variant_that_fails_ends_the_work_of_the_others(tmp_path: Path) -> None:
    """Nobody waits until a long first variant has come to its end by itself."""
    engine, stopped, heard = ScriptedEngine(lambda prompt: "x"), threading.Event(), list[bool]()
    pool = Threads(2)
    pool.stop = stopped.set  # type: ignore[method-assign]

    def first(side: Side) -> None:
        heard.append(stopped.wait(10))

    def second(side: Side) -> None:
        raise EngineError("the second is broken")

    with pytest.raises(EngineError, match="the second is broken"):
        Spread(pool).gather([first, second], Side(engine, Answers(tmp_path, engine.identity)))
    assert heard == [True]
    pool.close()


@pytest.fixture
def sums_cases() -> Any:
    from quantgate.evaluate.suites import Case, Message

    return [
        Case(suite="s", id=str(at), messages=(Message(role="user", content=str(at)),), scorer="exact", reference="x")
        for at in range(6)
    ]


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 9])
def test_shares_hold_every_recipe_once(workers: int) -> None:
    recipes = [
        Recipe(scheme="W4A16", group_size=size, method=method) for size in (16, 32) for method in ("gptq", "rtn", "hqq")
    ]
    found = shares(recipes, workers)
    assert sorted(one.name for share in found for one in share) == sorted(one.name for one in recipes)
    sizes = [len(share) for share in found]
    assert len(found) == min(workers, 6) and max(sizes) - min(sizes) <= 1
    assert shares([], workers) == []


def test_where_a_run_is_computed_is_no_part_of_what_it_judges(release: Any) -> None:
    plain, there = load_config(release()), load_config(release(executor={"ray": {"workers": 4, "address": "auto"}}))
    assert there.executor.ray is not None and there.executor.ray.workers == 4
    assert plain.content == there.content
    assert "executor" not in plain.body()
    assert load_config(release(executor="local")) == plain
    with pytest.raises(UsageError, match=r"unknown key 'worker' in 'executor\.ray'"):
        load_config(release(executor={"ray": {"worker": 4}}))


def test_a_worker_that_sees_other_bytes_refuses(place: Path, tmp_path: Path) -> None:
    from quantgate.errors import ModelError
    from quantgate.models import open_model
    from quantgate.quantize import baseline

    model = open_model(place / "model")
    post = post_of(model, baseline(model), "torch", tmp_path, None)
    with pytest.raises(ModelError, match="a worker sees other weights than the run"):
        Workplace(1).open(post.model_copy(update={"weights": "sha256:else"}))
