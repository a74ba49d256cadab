"""Training: what is told of torchao's side and ours, and that a step of every kind of network can be timed."""

from __future__ import annotations

from typing import Any

from benchmarks import train_step
from benchmarks.peers import qat
from quantgate.quantize import Recipe

TOLD: dict[str, Any] = {
    "kl": {"torchao": [[0.02, 0.025, 9.0], [0.03, 0.02, 9.0]], "quantgate": [[0.01, 0.011, 9.0], [0.009, 0.01, 9.0]]},
    "before": {"torchao": 0.05, "quantgate": 0.03},
    "steps": {"plain": [1.0, 2.0, 1.0], "torchao": [1.4, 2.8, 1.5], "quantgate": [1.1, 2.2, 1.5]},
}


def test_each_side_is_judged_at_the_rate_that_its_tune_split_chose() -> None:
    theirs, ours = qat.rows_of("W4A16-g32", TOLD, (1e-4, 3e-4))
    assert theirs == ("W4A16-g32", "torchao", "0.0001", "0.0250", "0.0500", "1.500 s", "1.40x", "", "")
    goal = "KL 0.40x of torchao's, a step 0.79x (0.79 to 1.00), both at most 1x"
    assert ours == ("W4A16-g32", "quantgate", "0.0003", "0.0100", "0.0300", "1.500 s", "1.10x", goal, "met")


def test_a_slower_step_or_a_worse_kl_misses_the_goal() -> None:
    slower = TOLD | {"steps": TOLD["steps"] | {"quantgate": [2.0, 3.0, 2.0]}}
    worse = TOLD | {"kl": TOLD["kl"] | {"quantgate": [[0.01, 0.03, 9.0], [0.009, 0.026, 9.0]]}}
    assert [qat.rows_of("W4A8-g32", told, (1e-4, 3e-4))[1][-1] for told in (slower, worse)] == ["missed", "missed"]


def test_steps_of_all_networks_are_timed_side_by_side() -> None:
    shape = train_step.Shape(64, 1, 64, rounds=1)
    rows = train_step.run((shape,), {"W4A4": Recipe(scheme="W4A4", group_size=32, method="rtn")})
    assert [row.what for row in rows] == [
        "a plain step of 4096 tokens, hidden 64, 1 blocks",
        "a step of W4A4 over a plain one, hidden 64, 1 blocks",
        "a step of W4A4, adapters of rank 8 over a plain one, hidden 64, 1 blocks",
    ]
    assert [row.target for row in rows[1:]] == ["at most 1.6x"] * 2
