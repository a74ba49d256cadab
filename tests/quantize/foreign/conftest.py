"""Folders as other programs write them, built here by their published layouts and nothing of quantgate's packing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

LAYER = "model.layers.1.mlp.down_proj"


def linears(tensors):
    """The names of the linear layers of a plain Llama."""
    return sorted(name.removesuffix(".weight") for name in tensors if name.endswith("_proj.weight"))


def bit_stream(codes, bits):
    """Unsigned codes [lines, count] -> int32 words [lines, count * bits / 32], lowest bits first, without padding."""
    spread = (codes[:, :, None] >> np.arange(bits)) & 1
    packed = np.packbits(spread.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little")
    return torch.from_numpy(packed.view("<i4").copy())


def nibbles_of_awq(codes):
    """Unsigned codes [lines, outputs] -> int32 words: nibble i of a word holds output [0, 2, 4, 6, 1, 3, 5, 7][i]."""
    eights = codes.reshape(len(codes), -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]].astype(np.int64)
    words = (eights << (4 * np.arange(8))).sum(axis=2)
    return torch.from_numpy(words.astype(np.uint32).view(np.int32).copy())


class Folder:
    """A foreign folder: ``path``, and ``weights`` with the float32 numbers [out, in] that its layers stand for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.weights: dict[str, torch.Tensor] = {}

    @property
    def tensors(self):
        return load_file(self.path / "model.safetensors")

    @property
    def told(self):
        return json.loads((self.path / "config.json").read_text())["quantization_config"]

    def store(self, tensors):
        save_file(tensors, self.path / "model.safetensors", metadata={"format": "pt"})

    def change(self, **tensors):
        """Replace tensors, or take those that are None away."""
        held = self.tensors
        for name, tensor in tensors.items():
            held.pop(name) if tensor is None else held.update({name: tensor})
        self.store(held)

    def settings(self, change=None, **keys):
        """Change the quantization settings in config.json."""
        config = json.loads((self.path / "config.json").read_text())
        config["quantization_config"] = {**config["quantization_config"], **keys} if change is None else change
        (self.path / "config.json").write_text(json.dumps(config))


def folder_beside(model, path, settings):
    """The baseline's folder again, with quantization settings in its config.json."""
    shutil.copytree(model.path, path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    return Folder(path)


@pytest.fixture
def gptq(tiny, tmp_path):
    """Write a GPTQ folder with random codes: ``gptq(bits=4, sym=True, v2=False, desc_act=False, group=32)``."""

    def write(*, bits=4, sym=True, v2=False, desc_act=False, group=32, per_layer=None, model=tiny, more=(), **settings):
        told = {
            "quant_method": "gptq", "bits": bits, "group_size": group, "sym": sym, "desc_act": desc_act,
            "checkpoint_format": "gptq_v2" if v2 else "gptq", "lm_head": False, "true_sequential": True,
            "meta": {"quantizer": ["somebody:1.2"]}, **settings,
        }  # fmt: skip
        folder = folder_beside(model, tmp_path / "gptq", told)
        held, rng = folder.tensors, np.random.default_rng(7)
        for layer in [*linears(held), *more]:
            width, size = (per_layer or {}).get(layer, (bits, group))
            if width == 16:
                continue
            out, columns = held.pop(f"{layer}.weight").shape
            size = columns if size == -1 else size
            groups, top, middle = -(-columns // size), 1 << width, 1 << (width - 1)
            codes = rng.integers(0, top, (columns, out))
            zeros = np.full((groups, out), middle) if sym else rng.integers(0 if v2 else 1, top, (groups, out))
            scales = rng.uniform(0.001, 0.01, (groups, out)).astype(np.float16)
            g_idx = np.arange(columns) // size
            g_idx = rng.permutation(g_idx) if desc_act else g_idx
            held[f"{layer}.qweight"] = bit_stream(np.ascontiguousarray(codes.T), width).T.contiguous()
            held[f"{layer}.qzeros"] = bit_stream(zeros - (0 if v2 else 1), width)
            held[f"{layer}.scales"] = torch.from_numpy(scales)
            held[f"{layer}.g_idx"] = torch.from_numpy(g_idx.astype(np.int32))
            exact = (codes - zeros[g_idx]) * scales[g_idx].astype(np.float32)
            folder.weights[layer] = torch.from_numpy(exact.T.astype(np.float32))
        folder.store(held)
        return folder

    return write


@pytest.fixture
def awq(tiny, tmp_path):
    """Write an AWQ folder with random codes: ``awq(sym=False, group=32)``."""

    def write(*, sym=False, group=32, **settings):
        told = {"quant_method": "awq", "version": "gemm", "bits": 4, "group_size": group, "zero_point": not sym}
        folder = folder_beside(tiny, tmp_path / "awq", {**told, **settings})
        held, rng = folder.tensors, np.random.default_rng(8)
        for layer in linears(held):
            out, columns = held.pop(f"{layer}.weight").shape
            size = columns if group == -1 else group
            codes = rng.integers(0, 16, (columns, out))
            zeros = np.full((columns // size, out), 8) if sym else rng.integers(0, 16, (columns // size, out))
            scales = rng.uniform(0.001, 0.01, zeros.shape).astype(np.float16)
            held[f"{layer}.qweight"], held[f"{layer}.qzeros"] = nibbles_of_awq(codes), nibbles_of_awq(zeros)
            held[f"{layer}.scales"] = torch.from_numpy(scales)
            exact = (codes - zeros.repeat(size, 0)) * scales.astype(np.float32).repeat(size, 0)
            folder.weights[layer] = torch.from_numpy(exact.T.astype(np.float32))
        folder.store(held)
        return folder

    return write


@pytest.fixture
def stripped(swept, tmp_path):
    """An artifact of ours without its manifest: a folder as compressed-tensors has it, by recipe name."""

    def strip(name):
        shutil.copytree(swept[name].path, tmp_path / name, ignore=shutil.ignore_patterns("manifest.json"))
        return Folder(tmp_path / name)

    return strip
