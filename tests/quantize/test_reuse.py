"""Work of earlier sweeps: taken over exactly where the bytes would be the same, and never instead of other bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize import Recipe
from quantgate.quantize.kept import DIGESTS, Kept
from quantgate.quantize.reuse import Reuse
from quantgate.quantize.sweep import sweep
from quantgate.records import digest_file

DEPTH = 3
OWN: dict[str, Any] = {"propagate": "corrected", "steps": "block"}
RECIPES = [
    Recipe(scheme="W3A16", group_size=32),
    Recipe(scheme="W8A8", kv_cache="fp8"),
    Recipe(scheme="W3A16", group_size=32, rotation="hadamard"),
]


def tree(folder):
    return {str(file.relative_to(folder)): digest_file(file) for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = save_random(
        tmp_path_factory.mktemp("base") / "model", hidden=32, layers=DEPTH, feed_forward=64, tied=False
    )
    return folder


@pytest.fixture(scope="module")
def texts():
    rng = random.Random(0)
    return [[rng.randrange(200) for _ in range(rng.randrange(8, 24))] for _ in range(6)]


@pytest.fixture(scope="module")
def kept(base, texts, tmp_path_factory):
    """The work that a sweep of the base leaves."""
    folder = tmp_path_factory.mktemp("kept")
    sweep(open_model(base), texts, RECIPES, tmp_path_factory.mktemp("first"), reuse=Reuse(folder / "work"))
    return folder / "work"


@pytest.fixture(scope="module")
def little(base, texts, tmp_path_factory):
    """The same of one recipe."""
    folder = tmp_path_factory.mktemp("little")
    sweep(open_model(base), texts, RECIPES[:1], folder / "first", reuse=Reuse(folder / "work"))
    return folder / "work"


def fine_tuned(base: Path, folder: Path, *changed: str) -> Path:
    """The same model with other numbers in some tensors; its configuration tells of the training, as trainers do."""
    shutil.copytree(base, folder, dirs_exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    for name in changed:
        tensors[name] = tensors[name] * 1.25
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"use_cache": False, "eos_token_id": 257}))
    return folder


def both(model: Path, texts, recipes, folder: Path, reuse: Reuse) -> None:
    """A sweep with earlier work and one without it end in the same files."""
    sweep(open_model(model), texts, recipes, folder / "with", reuse=reuse)
    sweep(open_model(model), texts, recipes, folder / "without")
    found, wanted = tree(folder / "with"), tree(folder / "without")
    assert len(wanted) >= 2 * len(recipes)
    assert found == wanted


def test_the_last_block_was_trained(base, texts, kept, tmp_path):
    tuned = fine_tuned(base, tmp_path / "model", "model.layers.2.mlp.down_proj.weight")
    reuse = Reuse(kept)
    both(tuned, texts, RECIPES, tmp_path, reuse)
    assert (reuse.blocks, reuse.taken, reuse.skipped, reuse.problem) == (3, 2, 2, "")
    assert reuse.sentence == "2 of 3 blocks were taken over from earlier sweeps; 2 did not even have to run"


@pytest.mark.parametrize(
    "changed", [("lm_head.weight",), ("model.norm.weight",), ()], ids=["head", "final norm", "nothing"]
)
def test_what_stands_behind_the_blocks_takes_every_block(base, texts, little, tmp_path, changed):
    reuse = Reuse(little)
    both(fine_tuned(base, tmp_path / "model", *changed), texts, RECIPES[:1], tmp_path, reuse)
    assert (reuse.taken, reuse.skipped) == (3, 3)


def test_embeddings_of_tokens_that_calibration_does_not_hold_change_nothing(base, texts, little, tmp_path):
    tuned = fine_tuned(base, tmp_path / "model")
    tensors = load_file(tuned / "model.safetensors")
    tensors["model.embed_tokens.weight"][250] += 1  # no text holds token 250
    save_file(tensors, tuned / "model.safetensors", {"format": "pt"})
    both(tuned, texts, RECIPES[:1], tmp_path, reuse := Reuse(little))
    assert reuse.taken == 3


def test_a_block_in_the_middle_takes_what_is_before_it_alone(base, texts, little, tmp_path):
    tuned = fine_tuned(base, tmp_path / "model", "model.layers.1.input_layernorm.weight")
    both(tuned, texts, RECIPES[:1], tmp_path, reuse := Reuse(little))
    assert (reuse.taken, reuse.skipped) == (1, 1)


NAMES = st.sampled_from(
    ["model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"]
    + [f"model.layers.{at}.{name}.weight" for at in range(DEPTH)
       for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj", "post_attention_layernorm")]
)  # fmt: skip


@given(changed=st.sets(NAMES, max_size=3), recipes=st.permutations(RECIPES).map(lambda all: sorted(all[:2], key=repr)))
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_fine_tune_changed_the_bytes_are_those_of_a_fresh_sweep(base, texts, tmp_path, changed, recipes):
    """One folder of work for all examples, so that it holds ever more that must not be mistaken for anything else."""
    folder = tmp_path / f"example-{random.Random(repr((changed, recipes))).random()}"
    tuned = fine_tuned(base, folder / "model", *changed)
    both(tuned, texts, recipes, folder, Reuse(tmp_path / "work"))
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(scheme="W3A16", group_size=32, options=OWN, label="own"),
        Recipe(scheme="W4A16", group_size=32, method="awq"),
        Recipe(scheme="W8A16", lm_head="W8A16", embeddings="W8A16"),
    ],
    ids=lambda recipe: recipe.name,
)
def test_streams_channel_scales_and_coded_ends(base, texts, tmp_path, recipe):
    sweep(open_model(base), texts, [recipe], tmp_path / "first", reuse=Reuse(tmp_path / "work"))
    tuned = fine_tuned(base, tmp_path / "model", "model.layers.2.self_attn.o_proj.weight", "lm_head.weight")
    both(tuned, texts, [recipe], tmp_path, reuse := Reuse(tmp_path / "work"))
    assert reuse.taken == 2
    assert reuse.skipped == (0 if recipe.name == "own" else 2)


def test_without_calibration_every_unchanged_block_is_taken(base, tmp_path):
    recipe = Recipe(scheme="W4A16", group_size=32, method="rtn")
    sweep(open_model(base), None, [recipe], tmp_path / "first", reuse=Reuse(tmp_path / "work"))
    tuned = fine_tuned(base, tmp_path / "model", "model.layers.0.mlp.up_proj.weight")
    both(tuned, None, [recipe], tmp_path, reuse := Reuse(tmp_path / "work"))
    assert (reuse.taken, reuse.skipped) == (2, 0)


@pytest.mark.parametrize("other", ["samples", "seed", "recipes", "batches", "configuration"])
def test_other_inputs_take_nothing(base, texts, little, tmp_path, other):
    given: dict[str, Any] = {"seed": int(other == "seed"), "batch_tokens": 64 if other == "batches" else 4096}
    model = fine_tuned(base, tmp_path / "model")
    if other == "configuration":
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
    recipes = RECIPES[: 1 + (other == "recipes")]
    reuse = Reuse(little)
    texts = texts[1:] if other == "samples" else texts
    sweep(open_model(model), texts, recipes, tmp_path / "out", reuse=reuse, **given)
    assert (reuse.taken, reuse.sentence) == (0, "")


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "digests"])
def test_a_torn_entry_is_made_again(base, texts, little, tmp_path, damage):
    work = tmp_path / "work"
    shutil.copytree(little, work)
    for entry in work.iterdir():
        for file in entry.glob("*.safetensors"):
            whole = file.read_bytes()
            torn = whole[:-1] + bytes([whole[-1] ^ 1]) if damage == "flip" else whole[: len(whole) // 2]
            file.unlink()
            if damage != "gone":
                file.write_bytes(torn if damage in ("flip", "cut") else whole)
        if damage == "digests":
            (entry / DIGESTS).write_bytes(b'{"W3A16')
    sweep(open_model(base), texts, RECIPES[:1], tmp_path / "out", reuse=(reuse := Reuse(work)))
    assert (reuse.taken, bool(reuse.problem)) == (0, True)
    sweep(open_model(base), texts, RECIPES[:1], tmp_path / "again", reuse=(again := Reuse(work)))
    assert (again.taken, again.problem) == (3, "")
    assert tree(tmp_path / "out") == tree(tmp_path / "again") == tree(little.parent / "first")


KILLED = """
import os, signal, sys
from pathlib import Path
from quantgate.models import open_model
from quantgate.quantize import Recipe
from quantgate.quantize.reuse import Reuse
from quantgate.quantize.sweep import sweep

model, out, work, at = sys.argv[1:]
def progress(stage, done, total):
    if stage == "quantize" and done == int(at):
        os.kill(os.getpid(), signal.SIGKILL)
texts = [[(7 * n + at) % 200 for n in range(20)] for at in range(6)]
recipes, reuse = [Recipe(scheme="W3A16", group_size=32)], Reuse(Path(work))
sweep(open_model(model), texts, recipes, out, progress=progress, reuse=reuse)
"""


def test_kill_9_leaves_what_is_finished_for_another_fine_tune(base, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2] / "src")
    told = [str(base), str(tmp_path / "out"), str(tmp_path / "work"), "9"]  # in the third block
    done = subprocess.run([sys.executable, "-c", KILLED, *told], env=environment, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    texts = [[(7 * n + at) % 200 for n in range(20)] for at in range(6)]
    tuned = fine_tuned(base, tmp_path / "model", "model.layers.1.mlp.up_proj.weight")
    both(tuned, texts, RECIPES[:1], tmp_path, reuse := Reuse(tmp_path / "work"))
    assert (reuse.taken, reuse.skipped) == (1, 1)


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_saving(base, texts, tmp_path):
    (tmp_path / "work").write_text("a file where the folder would be")
    both(base, texts, RECIPES[:1], tmp_path, reuse := Reuse(tmp_path / "work"))
    assert reuse.taken == 0
    assert str(tmp_path / "work") in reuse.problem


def entry(folder: Path, name: str, size: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(bytes(size))
    return [folder / name]


def test_what_was_not_used_for_longest_makes_room(tmp_path):
    for at, key in enumerate(("a", "b", "c")):
        first = Kept(tmp_path / "work", limit=1000, spare=0)
        first.open()
        assert first.put(key, entry(tmp_path / "files", key, 100))
        os.utime(tmp_path / "work" / key / DIGESTS, (at, at))
    kept = Kept(tmp_path / "work", limit=600, spare=0)  # an entry takes 83 bytes more than its file
    kept.open()
    (tmp_path / "into").mkdir()
    assert kept.take("a", tmp_path / "into")
    assert kept.put("d", entry(tmp_path / "files", "d", 100))
    assert sorted(one.name for one in (tmp_path / "work").iterdir()) == ["a", "c", "d"]


def test_a_sweep_never_throws_out_its_own_work(tmp_path):
    kept = Kept(tmp_path / "work", limit=250, spare=0)
    kept.open()
    assert kept.put("a", entry(tmp_path / "files", "a", 100))
    assert kept.put("b", entry(tmp_path / "files", "b", 100))
    assert not kept.put("c", entry(tmp_path / "files", "c", 100))
    assert kept.problem.endswith("work: holds its 2.5e-07 GB")
    assert kept.has("a")
    assert kept.has("b")


def test_a_nearly_full_disk_is_left_alone(tmp_path):
    kept = Kept(tmp_path / "work", spare=1 << 60)
    kept.open()
    assert not kept.put("a", entry(tmp_path / "files", "a", 1))
    assert "of its disk would be left free" in kept.problem


def test_what_a_killed_writer_left_is_cleared_away_later(tmp_path):
    old, new = tmp_path / "work" / "a.1.partial", tmp_path / "work" / "b.2.partial"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "half").write_bytes(b"?")
    os.utime(old, (0, 0))
    Kept(tmp_path / "work").open()
    assert (old.exists(), new.exists()) == (False, True)


def test_the_states_in_front_of_blocks_take_a_quarter_at_most(base, texts, tmp_path):
    size = sum(32 * 4 * max(map(len, texts)) for _ in texts)  # one batch, padded
    sweep(open_model(base), texts, RECIPES[:1], tmp_path / "first", reuse=Reuse(tmp_path / "work", limit=4 * size))
    held = [load_file(file) for file in (tmp_path / "work").rglob("states.safetensors")]
    assert [one["000000"].nbytes for one in held] == [size]
