"""Other models out of one: blocks cut out, blocks that do nothing put in, weights moved, a tokenizer renumbered."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

BLOCK = re.compile(r"(.*\blayers\.)(\d+)(\..*)")
WEIGHTS = "model.safetensors"
Weights = dict[str, Tensor]


def derive(
    source: Path, out: Path, change: Callable[[Weights], Weights] = lambda weights: weights, **config: Any
) -> Path:
    """A copy of a model folder with other weights and another configuration; the copy may be written to."""
    out.mkdir(parents=True)
    for file in source.iterdir():
        if file.is_file() and file.suffix in (".json", ".jinja"):
            (out / file.name).write_bytes(file.read_bytes())
    told = json.loads((out / "config.json").read_bytes())
    (out / "config.json").write_text(json.dumps(told | config))
    save_file({name: one.contiguous() for name, one in change(load_file(source / WEIGHTS)).items()}, out / WEIGHTS)
    return out


def cut(source: Path, out: Path, keep: Sequence[int]) -> Path:
    """Depth pruning: the blocks ``keep`` alone, in that order."""

    def kept(weights: Weights) -> Weights:
        found = dict[str, Tensor]()
        for name, one in weights.items():
            block = BLOCK.fullmatch(name)
            if block is None:
                found[name] = one
            elif int(block[2]) in keep:
                found[f"{block[1]}{keep.index(int(block[2]))}{block[3]}"] = one
        return found

    return derive(source, out, kept, num_hidden_layers=len(keep))


def with_idle_block(source: Path, out: Path) -> Path:
    """One more block at the end, which adds exactly nothing to the residual stream."""

    def longer(weights: Weights) -> Weights:
        depth = 1 + max(int(block[2]) for name in weights if (block := BLOCK.fullmatch(name)))
        found = dict(weights)
        for name, one in weights.items():
            block = BLOCK.fullmatch(name)
            if block is not None and int(block[2]) == 0:
                idle = "o_proj" in name or "down_proj" in name
                found[f"{block[1]}{depth}{block[3]}"] = torch.zeros_like(one) if idle else one * 1.5
        return found

    depth = json.loads((source / "config.json").read_bytes())["num_hidden_layers"]
    return derive(source, out, longer, num_hidden_layers=depth + 1)


def tuned(source: Path, out: Path, noise: float, part: str = "", seed: int = 0) -> Path:
    """Every matrix whose name holds ``part`` moved by that share of its own spread."""

    def moved(weights: Weights) -> Weights:
        draw = torch.Generator().manual_seed(seed)
        return {
            name: one
            if one.dim() < 2 or part not in name
            else (one.float() + noise * one.float().std() * torch.randn(one.shape, generator=draw)).to(one.dtype)
            for name, one in weights.items()
        }

    return derive(source, out, moved)


def renumbered(source: Path, out: Path, swaps: Mapping[str, str]) -> Path:
    """The same tokens, of which some pairs have changed their ids; the rows of the weights have not."""
    shutil.copytree(source, out)
    file = out / "tokenizer.json"
    told = json.loads(file.read_bytes())
    words = told["model"]["vocab"]
    for one, other in swaps.items():
        words[one], words[other] = words[other], words[one]
    file.write_text(json.dumps(told))
    return out
