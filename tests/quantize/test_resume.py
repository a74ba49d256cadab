"""A sweep that is killed, stopped or out of disk resumes to the same bytes; nothing half-made looks whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quantgate.errors import DiskFull, Stopped
from quantgate.models.random import save_random
from quantgate.quantize import Recipe
from quantgate.quantize.shards import write_tensors
from quantgate.quantize.sweep import sweep
from quantgate.records import digest_file

# A hidden stream that a resumed sweep must make again.
OWN: dict[str, Any] = {"propagate": "corrected", "steps": "block"}
RECIPES = [
    Recipe(scheme="W4A16"),
    Recipe(scheme="W3A16", group_size=32),
    Recipe(scheme="W8A8"),
    Recipe(scheme="W3A16", group_size=32, rotation="hadamard"),
    Recipe(scheme="W3A16", group_size=32, options=OWN, label="own"),
]

KILLER = """
import os, random, signal, sys, threading
from quantgate.models import open_model
from quantgate.quantize import Recipe
from quantgate.quantize.sweep import sweep

model_folder, out, seed = sys.argv[1:]
rng = random.Random(0)
samples = [[rng.randrange(256) for _ in range(rng.randrange(8, 48))] for _ in range(12)]
own = {"propagate": "corrected"}
recipes = [Recipe(scheme="W3A16", group_size=32, rotation="hadamard"), Recipe(scheme="W8A8"),
           Recipe(scheme="W2A16", group_size=32, options=own, label="own")]
model = open_model(model_folder)
sweep(model, samples, recipes, f"{out}/undisturbed")  # and everything is imported, once for all children

def run(folder, progress=None):
    "One attempt in a process of its own; True when it was killed."
    pid = os.fork()
    if pid == 0:
        sweep(model, samples, recipes, folder, progress=progress)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def killed_at(event):
    seen = []
    def progress(*what):
        seen.append(what)
        if what[0] != "check" and sum(one[0] != "check" for one in seen) == event:
            die()
    return progress

# 1-4 and 5-8 are the layer groups of the two blocks, 9 is the end of the walk, 10 to 12 the three artifacts
for event in (1, 4, 5, 7, 9, 10, 12):
    assert run(f"{out}/event-{event}", killed_at(event))
    assert not run(f"{out}/event-{event}")
assert not run(f"{out}/event-13", killed_at(13))

def killed_soon(delay):
    def progress(*what):
        if what == ("check", 1, what[2]):
            threading.Timer(delay, die).start()
    return progress

rng, tries = random.Random(int(seed)), 0
while run(f"{out}/random", killed_soon(rng.uniform(0, 0.25))):  # any moment, again and again in one folder
    tries += 1
    if tries > 8:
        assert not run(f"{out}/random")
        break
"""


def tree(folder):
    return {str(file.relative_to(folder)): digest_file(file) for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def whole(tiny, samples, tmp_path_factory):
    """The files of an undisturbed sweep."""
    out = tmp_path_factory.mktemp("whole")
    sweep(tiny, samples, RECIPES, out)
    return tree(out)


class StopAt:
    """A progress callback that presses Ctrl-C at the ``number``-th layer group of the walk; ``seen`` lists them."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.seen: list[int] = []

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage == "quantize":
            self.seen.append(done)
            if len(self.seen) == self.number:
                os.kill(os.getpid(), signal.SIGINT)


def test_kill_9_at_any_point_resumes_to_the_same_bytes(tmp_path):
    model, out = save_random(tmp_path / "model", hidden=64, feed_forward=64), tmp_path / "out"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    script = [sys.executable, "-c", KILLER, str(model), str(out), "7"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    trees = {folder.name: tree(folder) for folder in sorted(out.iterdir())}
    reference = trees["undisturbed"]
    assert len(trees) == 10
    made = {"W8A8/manifest.json", "W3A16-g32-rot/model.safetensors", "own/model.safetensors"}
    assert made < set(reference)
    for name, found in trees.items():
        assert found == reference, name


def test_ctrl_c_keeps_the_finished_blocks(tiny, samples, whole, tmp_path):
    progress = StopAt(6)  # in the second block
    with pytest.raises(Stopped, match="the finished blocks are kept, the same sweep goes on from there"):
        sweep(tiny, samples, RECIPES, tmp_path, progress=progress)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".partial")] == []
    again = StopAt(0)
    sweep(tiny, samples, RECIPES, tmp_path, progress=again)
    assert min(again.seen) == 5  # the first block's four groups were not solved again
    assert tree(tmp_path) == whole


def test_a_torn_block_is_made_again(tiny, samples, whole, tmp_path):
    with pytest.raises(Stopped):
        sweep(tiny, samples, RECIPES, tmp_path, progress=StopAt(6))
    (journal,) = tmp_path.glob(".sweep-*.partial")
    file = journal / "block-00000" / "W4A16.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    sweep(tiny, samples, RECIPES, tmp_path, progress=(again := StopAt(0)))
    assert min(again.seen) == 1
    assert tree(tmp_path) == whole


def test_other_samples_never_meet_the_blocks_of_a_killed_sweep(tiny, samples, tmp_path):
    with pytest.raises(Stopped):
        sweep(tiny, samples, RECIPES, tmp_path / "out", progress=StopAt(6))
    sweep(tiny, samples[:5], RECIPES, tmp_path / "out", progress=(again := StopAt(0)))
    assert min(again.seen) == 1
    sweep(tiny, samples[:5], RECIPES, tmp_path / "fresh")
    for recipe in RECIPES:
        assert tree(tmp_path / "out" / recipe.name) == tree(tmp_path / "fresh" / recipe.name)


def test_a_full_disk_leaves_nothing_half_written_and_is_resumable(tiny, samples, whole, tmp_path):
    with pytest.raises(Stopped):
        sweep(tiny, samples, RECIPES, tmp_path, progress=StopAt(6))
    (journal,) = tmp_path.glob(".sweep-*.partial")
    file = journal / "block-00001" / "W4A16.safetensors"
    file.with_name(f"{file.name}.partial").symlink_to("/dev/full")  # every write there fails with ENOSPC
    with pytest.raises(DiskFull, match=r"W4A16\.safetensors: the disk is full; nothing half-written was kept"):
        sweep(tiny, samples, RECIPES, tmp_path)
    assert not file.exists()
    assert not list(journal.rglob("*.partial"))
    sweep(tiny, samples, RECIPES, tmp_path)
    assert tree(tmp_path) == whole


def test_a_file_too_large_for_the_disk_leaves_the_old_one(tiny, tmp_path):
    file = tmp_path / "model.safetensors"
    write_tensors(file, {"a": tiny.files.entries["model.norm.weight"]})
    before = digest_file(file)
    file.with_name(f"{file.name}.partial").symlink_to("/dev/full")
    with pytest.raises(DiskFull):
        write_tensors(file, tiny.files.entries)
    assert digest_file(file) == before
    assert os.listdir(tmp_path) == ["model.safetensors"]
