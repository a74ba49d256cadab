"""Artifacts whose bytes are cheap: what is verified is bytes and digests, whatever the bytes mean."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

from quantgate.quantize.manifest import Fate, Manifest, ModelIdentity, Recipe, StoredFile
from quantgate.records import digest_file

IDENTITY = ModelIdentity(
    ref="a-model", architecture="LlamaForCausalLM", weights="sha256:base", tokenizer="sha256:t", template="sha256:p",
    config="sha256:c",
)  # fmt: skip


def safetensors(path: Path, tensors: dict[str, bytes]) -> None:
    """One file by the format's definition: header length, header, bytes."""
    header, at = {}, 0
    for name, raw in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(raw)], "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"".join(tensors.values()))


def artifact(folder: Path, name: str = "W4A16", weights: bytes = b"") -> str:
    """A folder with a manifest of its own that vouches for it; its digest."""
    folder.mkdir(parents=True, exist_ok=True)
    safetensors(folder / "model.safetensors", {"w": weights or os.urandom(5000)})
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    return vouch(folder, name).digest


def vouch(folder: Path, name: str = "W4A16") -> Manifest:
    files = {
        file.name: StoredFile(sha256=digest_file(file), bytes=file.stat().st_size)
        for file in sorted(folder.iterdir())
        if file.name != "manifest.json"
    }
    manifest = Manifest(
        name=name, recipe=Recipe(scheme="W4A16", label=name), method="rtn", checkpoint="compressed_tensors",
        model=IDENTITY, calibration=None, inputs="sha256:in", tool="quantgate 0", torch="2", device="cpu", seed=0,
        fates=(Fate(name="w", asked="int4 g128", got="int4 g128", weights=5000, bytes=5000, tensors=("w",)),),
        ledger=(), tensor_bytes=5000, tensor_weights=5000,
        total_bytes=sum(one.bytes for one in files.values()), files=files,
    )  # fmt: skip
    manifest.save(folder / "manifest.json")
    return manifest
