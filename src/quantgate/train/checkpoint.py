"""Where a run stands, on disk: tensors in safetensors, the rest in state.json, which is written last and names them.

    folder/last-150.safetensors     parameters and optimizer state after step 150; the one before it is kept too
    folder/best-100.safetensors     parameters alone, where the tune KL was lowest
    folder/state.json               the settings, and for each of the two checkpoints its files with their digests

A checkpoint counts only when state.json names it. A file whose bytes are not those that were written is found by its
digest, and the checkpoint before it is taken.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from quantgate.errors import TrainingError, UsageError
from quantgate.records import digest_file, disk_errors, write_whole

STATE = "state.json"
KEPT = 2


@dataclass
class Stand:
    """What is known after a step, besides tensors. All of it goes into state.json as it is."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float | None = None  # lowest tune KL so far, and after which step
    best_step: int = 0
    stale: int = 0  # looks since then
    first: dict[str, float] = field(default_factory=dict)  # tune KL and loss at the start
    smooth: float | None = None  # the loss, smoothed
    ended: str = ""  # why, when it has: "all steps", "patience"
    rows: list[dict[str, Any]] = field(default_factory=list)  # the curve so far


@dataclass(frozen=True)
class Held:
    """A checkpoint that was found whole; ``skipped`` names the newer one that was not."""

    stand: Stand
    tensors: dict[str, Tensor]
    best: dict[str, Tensor]
    skipped: str = ""


class Checkpoints:
    """The checkpoints of one run in ``folder``.

    Raises UsageError when the folder holds a run with other ``settings`` (name -> JSON value, compared in their order).
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self._settings = folder, json.loads(json.dumps(settings))
        self._entries: list[dict[str, Any]] = []  # newest first
        self.reread()

    def reread(self) -> None:
        """Take what state.json names now: another process of the same run may have written it."""
        state = _state(self.folder / STATE)
        if state is None:
            return
        refuse_others(self.folder, state["settings"], self._settings)
        self._entries = state["checkpoints"]

    def save(self, stand: Stand, tensors: Mapping[str, Tensor], best: Mapping[str, Tensor] | None) -> None:
        """``best``: the parameters, when this step is the best so far; None: the best is the one saved before.

        Raises DiskFull; what was saved before stands.
        """
        entry: dict[str, Any] = {"stand": asdict(stand), "last": self._tensors(f"last-{stand.step}", tensors)}
        entry["best"] = self._entries[0]["best"] if best is None else self._tensors(f"best-{stand.step}", best)
        older = [one for one in self._entries if one["stand"]["step"] != stand.step]
        entries = [entry, *older][:KEPT]
        document = {"settings": self._settings, "checkpoints": entries}
        write_whole(self.folder / STATE, json.dumps(document, allow_nan=False).encode() + b"\n")
        self._entries = entries
        named = {one[kind]["file"] for one in entries for kind in ("last", "best")}
        for path in self.folder.glob("*.safetensors"):
            if path.name not in named and path.name.startswith(("last-", "best-")):
                path.unlink()

    def newest(self) -> Held | None:
        """The newest checkpoint that is whole; None: nothing was saved yet. Raises TrainingError: none is whole."""
        broken = ""
        for entry in self._entries:
            last, best = self._whole(entry["last"]), self._whole(entry["best"])
            if last is not None and best is not None:
                return Held(Stand(**entry["stand"]), last, best, broken)
            broken = broken or entry["last" if last is None else "best"]["file"]
        if broken:
            raise TrainingError(
                f"{self.folder / broken}: not the bytes that were written, and no older checkpoint is whole; "
                f"restore the file, or delete {self.folder} and train again"
            )
        return None

    def _tensors(self, name: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Write aside, flush, rename."""
        path = self.folder / f"{name}.safetensors"
        aside = self.folder / f".{name}.{os.getpid()}.partial"
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with disk_errors(path):
                save_file({key: one.detach().cpu().contiguous() for key, one in tensors.items()}, aside)
                with aside.open("rb") as file:
                    os.fsync(file.fileno())
                digest = digest_file(aside)
                os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        return {"file": path.name, "sha256": digest}

    def _whole(self, stored: dict[str, str]) -> dict[str, Tensor] | None:
        path = self.folder / stored["file"]
        try:
            return load_file(path) if digest_file(path) == stored["sha256"] else None
        except (OSError, SafetensorError):
            return None


def refuse_others(folder: Path, held: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raises UsageError for the first setting that differs."""
    for name in [*asked, *held]:
        if held.get(name) != asked.get(name):
            raise UsageError(
                f"{folder}: holds a run with {_said(name, held)}, and this one has {_said(name, asked)}; "
                "go on with the settings it was begun with, or begin anew in another folder"
            )


def _said(name: str, settings: Mapping[str, Any]) -> str:
    if name not in settings:
        return f"no '{name}'"
    value = settings[name]
    shown = value[:19] + "…" if isinstance(value, str) and value.startswith("sha256:") else json.dumps(value)
    return f"{name} {shown}"


def _state(path: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        state = {}
    if set(state) != {"settings", "checkpoints"}:
        raise TrainingError(f"{path}: not the state of a training run; delete {path.parent} and train again")
    return state
