"""The harness from the jobs to the table, with our own tool in the peers' place: real processes, no environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.peers import quality
from benchmarks.peers.children import METER, Bench
from benchmarks.peers.entries import AUTO, GROUPED, MIXED, Entry, Format
from benchmarks.peers.environments import python_of
from benchmarks.peers.inputs import Shape, Subject, cut
from benchmarks.peers.judge import Judge
from benchmarks.peers.tools.contract import Job
from benchmarks.peers.tools.quantgate import recipe_of
from benchmarks.tables import Table
from quantgate.errors import DataError

SHAPE = Shape(hidden=128, layers=2, feed_forward=256, heads=4, kv_heads=2, vocabulary=300)
RTN = Entry("quantgate", "rtn", peer=True)  # plain rounding, standing for a peer


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), threads=1, say=said.append)


@pytest.fixture(scope="module")
def subject(bench: Bench) -> Subject:
    model = SHAPE.saved(bench.cache)
    ids = torch.randint(0, 256, (4, 32), generator=torch.Generator().manual_seed(1))
    judged = torch.ones_like(ids, dtype=torch.bool)
    judged[:, -1] = False
    rows = json.loads(SHAPE.ids(bench.cache, 8, 32).read_bytes())
    return Subject("random", model, rows, lambda _engine: [(ids, judged)], "random ids")


def settings(format: Format) -> tuple[Entry, ...]:
    return (Entry("quantgate"), RTN)


@pytest.fixture(scope="module")
def table(bench: Bench, subject: Subject) -> Table:
    return quality.compare(bench, subject, settings)


def test_every_format_has_ours_with_a_ratio_and_the_peer_without(table: Table) -> None:
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    formats = ["W4 g128", "W4 g32", "W3 g128", "W8A8"]
    assert [row["format"] for row in rows] == [name for name in formats for _ in range(2)] + ["4.5 bits"]
    assert [row["bits"] for row in rows[:6:2]] == ["4.125", "4.500", "3.125"]
    for own, peer in zip(rows[:-1:2], rows[1:-1:2], strict=True):
        ratio, words = own["over the best peer"].split("x", 1)
        assert float(ratio) == pytest.approx(float(own["mean KL"]) / float(peer["mean KL"]), rel=0.02, abs=0.01)
        assert words == " of quantgate rtn" and own["seconds"].endswith(" for 8")
        assert peer["over the best peer"] == ""
    assert float(rows[-1]["bits"]) <= 4.5 and rows[-1]["setting"] == "auto"


def test_eight_bits_drift_less_than_three_and_both_round(table: Table) -> None:
    kl = {row[0]: float(row[4]) for row in table.rows if row[2] == "default"}
    assert 0 < kl["W8A8"] < kl["W4 g32"] < kl["W3 g128"]


def test_second_run_makes_nothing_anew(table: Table, bench: Bench, subject: Subject, said: list[str]) -> None:
    said.clear()
    assert quality.compare(bench, subject, settings) == table
    assert said == [line for line in said if line.startswith("judging")]


def test_fresh_run_and_other_rows_are_made_again(table: Table, bench: Bench, subject: Subject, said: list[str]) -> None:
    one = quality.mixed_job(MIXED)
    bench.run(AUTO.tool, subject.model.path, subject.ids(bench.cache), [one], "random-mixed")
    said.clear()
    other = SHAPE.ids(bench.cache, 4, 32)
    bench.run(AUTO.tool, subject.model.path, other, [one], "random-mixed")
    assert said[0] == "quantgate, random-mixed: auto-4.5"


def test_child_is_measured(table: Table, bench: Bench) -> None:
    cost = json.loads((bench.folder("quantgate", "random") / "cost.json").read_bytes())
    assert cost["rc"] == 0
    assert cost["cpu_s"] > 0 and 50 * 2**20 < cost["private_bytes"] <= cost["peak_bytes"] < 4 * 2**30


def test_job_that_fails_is_a_row_that_says_why(bench: Bench, subject: Subject) -> None:
    job = Job("broken", 4, 100, method="rtn")  # 128 columns do not divide into groups of 100
    made = bench.run("quantgate", subject.model.path, subject.ids(bench.cache), [job], "random-broken")["broken"]
    assert made.failed.startswith("FormatError: ") and "columns of down_proj" in made.failed
    found = quality.score(bench, subject, Judge(subject), RTN, job, made)
    assert found.kl is None
    assert quality.rows_of("W4", 1.0, [found])[0][4] == f"none: {made.failed}"


def test_process_that_dies_or_takes_too_long_is_a_row_that_says_why(bench: Bench, subject: Subject) -> None:
    ids = subject.ids(bench.cache)
    (none,) = bench.run("nothing", subject.model.path, ids, [RTN.job(GROUPED[0])], "random").values()
    assert none.failed.startswith("its process ended with status 1 (") and "nothing" in none.failed
    hurried = replace(bench, limit_s=0.05)
    (late,) = hurried.run("quantgate", subject.model.path, ids, [Job("late", 4, 32)], "random-late").values()
    assert late.failed == "stopped after 0 s"


def test_memory_of_who_starts_a_command_is_not_counted(tmp_path: Path) -> None:
    """A process that holds 300 MiB starts the meter; what is measured is the small command."""
    held = bytearray(300 * 2**20)
    out = tmp_path / "cost.json"
    command = [sys.executable, "-c", "import time; held = bytearray(64 * 2**20); time.sleep(0.3)"]
    subprocess.run([sys.executable, str(METER), str(out), os.devnull, "--", *command], check=True)
    cost = json.loads(out.read_bytes())
    assert len(held) and 64 * 2**20 < cost["private_bytes"] <= cost["peak_bytes"] < 150 * 2**20
    assert cost["wall_s"] >= 0.3


def test_our_own_tool_runs_in_this_environment(tmp_path: Path) -> None:
    assert python_of("quantgate", tmp_path) == Path(sys.executable)


def test_options_of_a_job_are_fields_of_its_recipe() -> None:
    made = recipe_of(Job("x", 4, 32, symmetric=False, method="gptq", options={"options": {"descent": 8}}))
    assert (made.scheme, made.group_size, made.symmetric, made.options) == ("W4A16", 32, False, {"descent": 8})
    assert recipe_of(Job("y", 8, None, inputs8=True)).scheme == "W8A8"


def test_rows_are_cut_from_one_sample_behind_the_other() -> None:
    assert cut([[1, 2, 3], [4], [5, 6, 7]], 3, 2) == [[1, 2], [3, 4], [5, 6]]
    with pytest.raises(DataError, match="7 tokens of text; 4 rows of 2 need 8"):
        cut([[1, 2, 3], [4], [5, 6, 7]], 4, 2)
