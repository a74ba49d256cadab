"""What a sweep would take, foretold: memory against a real process, time against its own parts, never less for more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.errors import DataError, UsageError
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize import Recipe, machine
from quantgate.quantize.duration import FACTOR, duration
from quantgate.quantize.footprint import footprint
from quantgate.quantize.forecast import forecast
from quantgate.quantize.machine import Rates
from quantgate.quantize.workload import BlockShape, Group, Tokens, Workload, workload

RATES = Rates(products=1e9, doubles=5e8, elements=1e9, copied=1e9, hashed=1e9, calls=1e5)
ROOT = Path(__file__).parents[2]


def load(model, schemes=("W4A16",), samples=((1, 2, 3, 4),) * 4) -> Workload:
    return workload(model, [Recipe(scheme=one, method="gptq", group_size=32) for one in schemes], samples)


def test_the_work_is_that_of_the_model(tiny) -> None:
    work = load(tiny)
    block = work.blocks[0]
    assert len(work.blocks) == 2
    assert [(group.columns, group.outs) for group in block.groups] == [
        (128, (128, 64, 64)), (128, (128,)), (128, (256, 256)), (256, (128,)),
    ]  # fmt: skip
    linears = sum(group.columns * sum(group.outs) for group in block.groups)
    assert block.weights == linears + 2 * 128  # and two norms
    assert work.tokens == Tokens(real=16, padded=16, batch=16, longest=4)
    assert (work.rows, work.around) == (4, 128)


def test_memory_names_its_parts(tiny) -> None:
    told = footprint(load(tiny), process=10**9)
    assert told.peak == 10**9 + told.hidden + told.weights + told.statistics + told.packed + told.working
    assert told.hidden == 4 * 16 * 128
    assert told.process == 10**9


def test_depth_costs_no_memory(tiny) -> None:
    work = load(tiny)
    assert footprint(replace(work, blocks=work.blocks * 16), 0) == footprint(work, 0)


def test_experts_are_counted_by_the_tokens_they_are_given(tmp_path) -> None:
    model = open_model(save_random(tmp_path / "moe", kind="mixtral", num_local_experts=8, num_experts_per_tok=2))
    shares = {group.share for block in load(model).blocks for group in block.groups}
    assert shares == {1.0, 0.25}


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 64), st.integers(1, 64))
@settings(max_examples=40, deadline=None)
def test_more_tokens_and_wider_blocks_never_take_less(width, wider, tokens, more) -> None:
    def work(columns: int, count: int) -> Workload:
        block = BlockShape(64 * columns**2, 8 * columns, (Group(8 * columns, (8 * columns,), 1.0, ()),))
        return Workload((block,), (), False, Tokens(count, count, count, count), 8 * columns, 10**6, 64, 8, 8, 10**5)

    small, large = work(width, tokens), work(width + wider, tokens + more)
    assert footprint(small, 0).peak <= footprint(large, 0).peak
    assert duration(small, RATES).seconds < duration(large, RATES).seconds


def test_time_is_the_sum_of_its_stages_and_falls_with_faster_machines(tiny) -> None:
    work = load(tiny, ("W4A16", "W3A16"))
    slow = duration(work, RATES)
    fast = duration(work, Rates(**{field.name: 2 * getattr(RATES, field.name) for field in fields(Rates)}))
    assert slow.seconds == pytest.approx(sum(getattr(slow, field.name) for field in fields(slow)))
    assert fast.seconds == pytest.approx(slow.seconds / 2)
    assert (slow.low, slow.high) == (slow.seconds / FACTOR, slow.seconds * FACTOR)
    assert duration(load(tiny), RATES).solve < slow.solve


def test_the_same_codes_in_another_container_are_solved_once(tiny) -> None:
    one = Recipe(scheme="W4A16", group_size=32)
    other = one.model_copy(update={"container": "gptq", "label": "boxed"})
    once, twice = (duration(workload(tiny, recipes, [[1, 2]]), RATES) for recipes in ([one], [one, other]))
    assert once.solve == twice.solve
    assert once.write < twice.write


def test_without_a_calibration_set_nothing_is_run_forward(tiny) -> None:
    told = forecast(tiny, [Recipe(scheme="W8A16", method="rtn")], None)
    assert told.tokens.real == told.memory.hidden == 0
    assert told.time.forward == told.time.statistics == 0
    assert told.time.seconds > 0
    assert told.disk == told.variants[0].tensor_bytes


def test_what_a_sweep_refuses_is_refused(tiny) -> None:
    with pytest.raises(UsageError, match="needs a calibration set"):
        forecast(tiny, [Recipe(scheme="W4A16")], None)
    with pytest.raises(DataError, match="outside the vocabulary"):
        forecast(tiny, [Recipe(scheme="W4A16")], [[10**6]])


def test_the_machine_says_what_it_has() -> None:
    rates = machine.measure()
    assert all(getattr(rates, field.name) > 0 for field in fields(rates))
    if Path("/proc/self/status").is_file():
        assert 10**7 < machine.resident() <= machine.peak()
        free = machine.free()
        assert free is not None
        assert free > 0


CHILD = """
import json, sys
from quantgate.models import open_model
from quantgate.quantize import Recipe, machine
from quantgate.quantize.forecast import forecast
from quantgate.quantize.sweep import sweep
model, recipes = open_model(sys.argv[1]), [Recipe(scheme="W4A16")]
samples = [[at % 250 for at in range(start, start + 128)] for start in range(32)]
if sys.argv[2]:
    sweep(model, samples, recipes, sys.argv[2])
    print(machine.peak())
else:
    told = forecast(model, recipes, samples)
    print(json.dumps([told.memory.peak, told.memory.process]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not tell a process its peak")
def test_the_foretold_peak_is_that_of_a_real_sweep(tmp_path) -> None:
    """Within 20 % of all, and, since a process alone takes most of that, within a factor of two of what is added."""
    shape: dict[str, Any] = {"hidden": 512, "feed_forward": 1536, "heads": 8, "kv_heads": 4, "layers": 2}
    model = save_random(tmp_path / "model", **shape)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}

    def child(out: str) -> str:
        script = [sys.executable, "-c", CHILD, str(model), out]
        return subprocess.run(script, env=environment, capture_output=True, text=True, check=True, timeout=600).stdout

    told, process = json.loads(child(""))
    took = int(child(str(tmp_path / "out")))
    assert told == pytest.approx(took, rel=0.2)
    assert 0.5 < (told - process) / (took - process) < 2
