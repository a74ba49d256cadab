from __future__ import annotations

import json
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from quantgate.errors import DiskFull, TrainingError, UsageError
from quantgate.train.checkpoint import STATE, Checkpoints, Held, Stand

SETTINGS: dict[str, Any] = {"steps": 10, "learning_rate": 3e-4, "recipe": "sha256:" + "a" * 64}


def tensors(step: int) -> dict[str, torch.Tensor]:
    return {"parameter/w": torch.full((50, 50), float(step)), "adamw/w/step": torch.tensor(float(step))}


def saved(folder: Path, steps: int = 3, best: int = 2) -> Checkpoints:
    made = Checkpoints(folder, SETTINGS)
    for step in range(1, steps + 1):
        stand = Stand(step=step, best=0.1, best_step=min(step, best))
        made.save(stand, tensors(step), {"w": torch.full((2,), float(step))} if step <= best else None)
    return made


def newest(folder: Path) -> Held:
    found = Checkpoints(folder, SETTINGS).newest()
    assert found is not None
    return found


def test_the_newest_is_what_was_saved_last(tmp_path: Path) -> None:
    saved(tmp_path)
    held = newest(tmp_path)
    assert (held.stand.step, held.stand.best_step, held.skipped) == (3, 2, "")
    assert held.tensors["parameter/w"][0, 0] == 3 and held.tensors["adamw/w/step"].shape == ()
    assert held.best["w"].tolist() == [2.0, 2.0]


def test_two_are_kept_and_the_best(tmp_path: Path) -> None:
    saved(tmp_path, steps=6, best=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best-2.safetensors", "last-5.safetensors", "last-6.safetensors", STATE]


def test_nothing_was_saved(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "new", SETTINGS).newest() is None


@pytest.mark.parametrize("harm", ["torn", "edited", "gone"])
def test_a_broken_file_is_found_and_the_one_before_is_taken(tmp_path: Path, harm: str) -> None:
    saved(tmp_path)
    path = tmp_path / "last-3.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.unlink() if harm == "gone" else path.write_bytes(raw if harm == "edited" else raw[:100])
    held = newest(tmp_path)
    assert (held.stand.step, held.skipped) == (2, "last-3.safetensors")
    assert held.tensors["parameter/w"][0, 0] == 2


def test_a_broken_best_is_as_bad(tmp_path: Path) -> None:
    saved(tmp_path, steps=3, best=3)
    (tmp_path / "best-3.safetensors").write_bytes(b"")
    assert newest(tmp_path).best["w"].tolist() == [2.0, 2.0]


def test_after_a_broken_one_the_next_save_is_whole_again(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "last-3.safetensors").write_bytes(b"")
    again = Checkpoints(tmp_path, SETTINGS)
    assert again.newest() is not None
    again.save(Stand(step=3), tensors(30), None)
    again.save(Stand(step=4), tensors(4), None)
    (tmp_path / "last-4.safetensors").write_bytes(b"")
    assert newest(tmp_path).tensors["parameter/w"][0, 0] == 30


def test_none_whole_is_one_sentence(tmp_path: Path) -> None:
    saved(tmp_path)
    for path in tmp_path.glob("last-*"):
        path.write_bytes(b"")
    with pytest.raises(
        TrainingError, match=r"last-3.safetensors: not the bytes .* no older checkpoint is whole; restore"
    ):
        newest(tmp_path)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"steps": 3}', b"\xff\xfe"])
def test_a_broken_state_is_one_sentence(tmp_path: Path, raw: bytes) -> None:
    saved(tmp_path)
    (tmp_path / STATE).write_bytes(raw)
    with pytest.raises(TrainingError, match=r"state.json: not the state of a training run; delete"):
        Checkpoints(tmp_path, SETTINGS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": 1e-3, "recipe": "x"}, r"learning_rate 0.0003, and this one has learning_rate 0.001; go on"),
        (
            {"recipe": "sha256:" + "b" * 64},
            r"recipe sha256:aaaaaaaaaaaa…, and this one has recipe sha256:bbbbbbbbbbbb…",
        ),
        ({"more": True}, r"a run with no 'more', and this one has more true"),
    ],
)
def test_other_settings_are_refused_by_the_first_that_differs(tmp_path: Path, change: Any, said: str) -> None:
    saved(tmp_path)
    with pytest.raises(UsageError, match=said):
        Checkpoints(tmp_path, SETTINGS | change)
    assert newest(tmp_path).stand.step == 3


def test_a_file_that_may_not_grow_keeps_the_old_state(tmp_path: Path) -> None:
    made = saved(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        with pytest.raises(Exception, match="File too large"):
            made.save(Stand(step=4), tensors(4), None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert newest(tmp_path).stand.step == 3
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_keeps_the_old_state(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        made = saved(folder)
        (folder / "filler").write_bytes(bytes(64_000))
        with pytest.raises(DiskFull, match=r"last-4.safetensors: the disk is full"):
            made.save(Stand(step=4), {"parameter/w": torch.zeros(200, 200)}, None)
        assert newest(folder).stand.step == 3
        (folder / "filler").unlink()
        made.save(Stand(step=4), tensors(4), None)
        assert newest(folder).stand.step == 4
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_what_is_on_disk_is_plain_json_and_safetensors(tmp_path: Path) -> None:
    saved(tmp_path)
    state = json.loads((tmp_path / STATE).read_bytes())
    assert state["settings"] == SETTINGS
    assert [one["stand"]["step"] for one in state["checkpoints"]] == [3, 2]
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
