from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.tiny import Tiny, asked, training_set
from torch import Tensor

from quantgate.errors import Stopped, TrainingError, UsageError
from quantgate.train import Row, TrainingSet
from quantgate.train.average import Average
from quantgate.train.loop import schedule, train
from quantgate.train.options import QatOptions, TrainOptions
from quantgate.train.teacher import Teacher

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = TrainOptions(steps=24, batch_tokens=256, evaluate_every=6, learning_rate=1e-2, top_k=8)
DATA = training_set()


def silent(stage: str, done: int, total: int, row: Row | None = None) -> None:
    pass


def run(
    folder: Path, network: Tiny, options: TrainOptions = OPTIONS, data: TrainingSet = DATA, **more: Any
) -> list[Row]:
    teacher = Teacher(asked(Tiny(1)), data, folder.parent / "teacher", "one", options.top_k, 256)
    return train(network, data, teacher, options, folder, **{"tell": silent, "recipe": "r", **more})


def curve(rows: list[Row]) -> list[dict[str, Any]]:
    """Without the clock."""
    return [asdict(replace(row, seconds=0.0)) for row in rows]


def numbers(network: Tiny) -> list[Tensor]:
    return [one.detach().clone() for group in network.groups() for one in group.parameters.values()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_training_brings_a_rounded_network_nearer_to_its_teacher(tmp_path: Path) -> None:
    rows = run(tmp_path / "run", Tiny(1, grid=0.25))
    looked = [row.kl for row in rows if row.kl is not None]
    assert [row.step for row in rows] == list(range(25))
    assert [row.step for row in rows if row.kl is not None] == [0, 6, 12, 18, 24]
    assert min(looked) < 0.7 * looked[0]
    assert all(row.more["norm"] > 0 for row in rows[1:])
    assert rows[0].loss > 0 and rows[0].tokens == 0


def test_what_is_left_in_the_network_is_the_best_that_was_seen(tmp_path: Path) -> None:
    network = Tiny(1, grid=0.25)
    options = OPTIONS.model_copy(update={"learning_rate": 0.08, "patience": 9})
    rows = run(tmp_path / "run", network, options)
    looked = [row.kl for row in rows if row.kl is not None]
    assert looked.index(min(looked)) < len(looked) - 1  # it went past its best
    again = run(tmp_path / "look", network, options.model_copy(update={"steps": 0}))
    assert again[0].kl == min(looked)


def test_a_start_that_cannot_be_bettered_stays(tmp_path: Path) -> None:
    network = Tiny(1)
    before = numbers(network)
    rows = run(tmp_path / "run", network, OPTIONS.model_copy(update={"task": 1.0, "patience": 2}))
    assert same(before, numbers(network))
    assert rows[0].kl == pytest.approx(0, abs=1e-5)
    assert rows[-1].step == 12  # patience: two looks without a better KL


def test_a_curve_that_stands_while_the_rate_is_high_is_no_reason_to_stop(tmp_path: Path) -> None:
    options = {"steps": 40, "learning_rate": 0.003, "patience": 5, "evaluate_every": 2}
    rows = run(tmp_path / "run", Tiny(1, grid=0.25), OPTIONS.model_copy(update=options))
    looked = [(row.step, row.kl) for row in rows if row.kl is not None]
    start, early, late = looked[0][1], [kl for step, kl in looked if 0 < step <= 20], [kl for _, kl in looked[11:]]
    assert early.index(min(early)) + 5 < len(early)  # it stood there for longer than patience lasts
    assert max(early) < start
    assert min(late) < min(early)
    assert rows[-1].step == 40 or late[::-1].index(min(late)) == 5


def test_every_step_is_told_and_kept_as_a_curve(tmp_path: Path) -> None:
    told: list[Row] = []
    rows = run(
        tmp_path / "run",
        Tiny(1, grid=0.25),
        tell=lambda stage, done, total, row=None: told.append(row) if row else None,
    )
    assert told == rows
    lines = (tmp_path / "run" / "curve.jsonl").read_text().splitlines()
    assert [Row(**json.loads(line)) for line in lines] == rows


def test_a_finished_run_is_taken_as_it_is(tmp_path: Path) -> None:
    first, second = Tiny(1, grid=0.25), Tiny(2, grid=0.25)
    rows = run(tmp_path / "run", first)
    assert run(tmp_path / "run", second) == rows
    assert same(numbers(first), numbers(second))


class Interrupted(Tiny):
    """Ctrl-C (or another end) at the n-th question."""

    def __init__(self, seed: int, grid: float, at: int, problem: BaseException) -> None:
        super().__init__(seed, grid=grid)
        self.left, self.problem = at, problem

    def logits(self, ids: Tensor, counted: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise self.problem
        return super().logits(ids, counted)


def test_after_ctrl_c_the_same_command_gives_the_same_curve(tmp_path: Path) -> None:
    whole = Tiny(1, grid=0.25)
    rows = run(tmp_path / "whole", whole)
    stops = []
    for at in (2, 14, 25, 33):
        with pytest.raises(Stopped, match=r"stopped; (nothing yet|the state of step \d+).* goes on from it") as stopped:
            run(tmp_path / "run", Interrupted(1, 0.25, at, KeyboardInterrupt()))
        stops.append(str(stopped.value))
    last = Tiny(1, grid=0.25)
    assert curve(run(tmp_path / "run", last)) == curve(rows)
    assert same(numbers(whole), numbers(last))
    assert len(set(stops)) == 4 and "nothing yet" in stops[0]


KILLED = """
import json, os, random, signal, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from tests.train.test_loop import OPTIONS, Tiny, curve, run

class Killed(Tiny):
    left = 10 ** 9
    def logits(self, ids, counted):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().logits(ids, counted)

folder, draw, kills = Path(sys.argv[1]), random.Random(4), 0
for _ in range(4):
    child = os.fork()
    if not child:
        network = Killed(1, grid=0.25)
        network.left = draw.randint(10, 40)
        run(folder / "run", network)
        os._exit(0)
    draw.random()
    kills += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
one, other = Tiny(1, grid=0.25), Tiny(1, grid=0.25)
assert curve(run(folder / "run", one)) == curve(run(folder / "whole", other))
for group, same in zip(one.groups(), other.groups()):
    for name in group.parameters:
        assert torch.equal(group.parameters[name], same.parameters[name]), name
print(kills)
"""


def test_killed_at_random_steps_it_gives_the_same_curve_and_weights(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2
    assert not list((tmp_path / "run").glob(".*"))


def test_two_threads_give_what_one_gives_and_the_same_bits_each_time(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    found = []
    try:
        for name, count in (("one", 1), ("two", 2), ("again", 2)):
            torch.set_num_threads(count)
            network = Tiny(1)  # without a grid: rounding would make a step of a difference in the last bit
            network.head.data *= 0.9
            found.append((curve(run(tmp_path / name, network)), numbers(network)))
    finally:
        torch.set_num_threads(threads)
    (_, one), (rows, two), (rows_again, again) = found
    assert rows == rows_again and same(two, again)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


class Poisoned(Tiny):
    """From the n-th step on a number is not finite: in its logits, or in the gradient of one parameter."""

    def __init__(self, at: int, where: str) -> None:
        super().__init__(1, grid=0.25)
        self.left, self.where = at, where

    @contextmanager
    def step(self) -> Iterator[None]:
        self.left -= 1
        with super().step():
            yield
        if self.left <= 0 and self.where == "gradient":
            assert self.embed.grad is not None
            self.embed.grad[0, 0] = torch.nan

    def logits(self, ids: Tensor, counted: Tensor) -> Tensor:
        found = super().logits(ids, counted)
        return found * torch.nan if self.left <= 0 and self.where == "loss" else found


@pytest.mark.parametrize(
    ("where", "said"),
    [("loss", r"step 9: the loss is nan"), ("gradient", r"step 9: the gradient of 'embed' is not finite")],
)
def test_what_is_not_finite_stops_it_and_the_last_good_state_is_kept(tmp_path: Path, where: str, said: str) -> None:
    whole = Tiny(1, grid=0.25)
    rows = run(tmp_path / "whole", whole)
    with pytest.raises(TrainingError, match=said + r"; set learning_rate to 0.0033 .*Kept: the state of step 6"):
        run(tmp_path / "run", Poisoned(9, where))
    mended = Tiny(1, grid=0.25)
    assert curve(run(tmp_path / "run", mended)) == curve(rows)
    assert same(numbers(whole), numbers(mended))


def test_divergence_is_told_with_both_numbers(tmp_path: Path) -> None:
    options = OPTIONS.model_copy(update={"learning_rate": 30.0, "warmup": 0.0})
    with pytest.raises(
        TrainingError, match=r"training diverged, .* is [\d.e+]+ and was [\d.]+ at the start .*learning_rate to 10 "
    ):
        run(tmp_path / "run", Tiny(1, grid=0.25), options)
    assert (tmp_path / "run" / "best-0.safetensors").is_file()


@pytest.mark.parametrize(
    ("problem", "is_memory"),
    [
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_memory_that_ran_out_is_told_with_figures(tmp_path: Path, problem: Exception, is_memory: bool) -> None:
    options = QatOptions(**OPTIONS.model_dump())
    wanted: tuple[type[Exception], str] = (
        (
            TrainingError,
            r"out of memory at step \d+; a step takes about [\d.]+ MB \(weights .* there; look for other programs or a "
            r"limit that took the rest, or take a smaller model. Kept: ",
        )
        if is_memory
        else (RuntimeError, "mat1 and mat2")
    )
    with pytest.raises(wanted[0], match=wanted[1]):
        run(tmp_path / "run", Interrupted(1, 0.25, 30, problem), options)


def test_other_settings_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    rows = run(tmp_path / "run", Tiny(1, grid=0.25))
    with pytest.raises(UsageError, match=r"learning_rate 0.01, and this one has learning_rate 0.02; go on with"):
        run(tmp_path / "run", Tiny(1), OPTIONS.model_copy(update={"learning_rate": 0.02, "seed": 3}))
    with pytest.raises(UsageError, match=r"data \"made-0\", and this one has data \"made-5\""):
        run(tmp_path / "run", Tiny(1), data=training_set(5))
    with pytest.raises(UsageError, match=r"recipe \"r\", and this one has recipe \"other\""):
        run(tmp_path / "run", Tiny(1), recipe="other")
    assert run(tmp_path / "run", Tiny(1, grid=0.25)) == rows


def test_a_torn_checkpoint_is_told_and_the_one_before_gives_the_same_end(tmp_path: Path) -> None:
    rows = run(tmp_path / "whole", Tiny(1, grid=0.25))
    with pytest.raises(Stopped):
        run(tmp_path / "run", Interrupted(1, 0.25, 33, KeyboardInterrupt()))
    newest = max((tmp_path / "run").glob("last-*"), key=lambda path: int(path.stem.split("-")[1]))
    newest.write_bytes(newest.read_bytes()[:99])
    stages: list[str] = []
    network = Tiny(1, grid=0.25)
    again = run(tmp_path / "run", network, tell=lambda stage, done, total, row=None: stages.append(stage))
    assert curve(again) == curve(rows)
    assert f"resumed; {newest.name} was broken" in stages


def test_rate_rises_and_falls_to_a_share_of_itself() -> None:
    assert [schedule(step, 100, 0.05, 0.1) for step in (0, 4)] == pytest.approx([0.2, 1.0])
    assert schedule(5, 100, 0.05, 0.1) == 1.0
    assert schedule(52, 100, 0.05, 0.1) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * 47 / 95)))
    assert schedule(99, 100, 0.0, 0.1) == pytest.approx(0.1, abs=1e-3)
    assert schedule(99, 100, 0.0, 0.0) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))
    assert schedule(0, 1, 0.05, 0.1) == 1.0


def test_an_average_follows_the_parameters_with_its_decay() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    average = Average({"one": parameter}, 0.75)
    expected = torch.zeros(2)
    for step, value in enumerate((1.0, -3.0, 2.0, 5.0), 1):
        parameter.data.fill_(value)
        average.step(step)
        expected = expected + (1 - min(0.75, (1 + step) / (10 + step))) * (value - expected)
        assert torch.allclose(average.tensors["one"], expected)
    with average.shown():
        assert torch.allclose(parameter, expected)
    assert bool((parameter == 5).all())


AVERAGED = OPTIONS.model_copy(update={"average": 0.8})


def test_the_average_is_what_is_looked_at_and_kept(tmp_path: Path) -> None:
    network = Tiny(1, grid=0.25)
    rows = run(tmp_path / "run", network, AVERAGED)
    plain = run(tmp_path / "plain", Tiny(1, grid=0.25), AVERAGED.model_copy(update={"average": 0.0}))
    best = min(row.kl for row in rows if row.kl is not None)
    assert [row.loss for row in rows[1:7]] == [row.loss for row in plain[1:7]]  # steps are the same
    assert best < min(row.kl for row in plain if row.kl is not None)
    again = run(tmp_path / "look", network, AVERAGED.model_copy(update={"steps": 0}))
    assert again[0].kl == best


def test_an_average_goes_on_after_ctrl_c(tmp_path: Path) -> None:
    whole = Tiny(1, grid=0.25)
    rows = run(tmp_path / "whole", whole, AVERAGED)
    for at in (14, 25):
        with pytest.raises(Stopped):
            run(tmp_path / "run", Interrupted(1, 0.25, at, KeyboardInterrupt()), AVERAGED)
    last = Tiny(1, grid=0.25)
    assert curve(run(tmp_path / "run", last, AVERAGED)) == curve(rows)
    assert same(numbers(whole), numbers(last))


def test_groups_learn_at_their_own_rates(tmp_path: Path) -> None:
    class Fixed(Tiny):
        def groups(self):
            weights, ends = super().groups()
            return [weights, replace(ends, rate=0.0)]

    network = Fixed(1, grid=0.25)
    embed, head = network.embed.detach().clone(), network.head.detach().clone()
    run(tmp_path / "run", network)
    assert torch.equal(network.embed, embed)
    assert not torch.equal(network.head, head)


def test_signals_are_as_they_were(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    run(tmp_path / "run", Tiny(1), OPTIONS.model_copy(update={"steps": 1}))
    assert signal.getsignal(signal.SIGINT) is before
