"""Tensors and fates become an artifact folder: weights, configuration, tokenizer, and the manifest written last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from quantgate.models import OpenedModel
from quantgate.models.tensors import Entry
from quantgate.models.text import tokenizer_files
from quantgate.quantize.artifact import MANIFEST, identity, open_artifact
from quantgate.quantize.manifest import Fate, Manifest, StoredFile, tool_version
from quantgate.quantize.shards import SHARD_BYTES, write_model
from quantgate.records import digest_file, disk_errors


def write_artifact(
    folder: Path,
    model: OpenedModel,
    entries: Mapping[str, Entry],
    fates: Mapping[str, Fate],
    config: dict[str, Any],
    shard_bytes: int = SHARD_BYTES,
    more_weights: int = 0,
    **facts: Any,
) -> None:
    """Fill ``folder``, which exists and bears no good name yet.

    ``entries`` are all its tensors, wherever their bytes lie now; ``config`` is its config.json; ``more_weights``
    counts the numbers that the model does not store (an untied output layer); ``facts`` are the manifest's other
    fields. Raises DiskFull, and ArtifactError when the fates do not cover the tensors.
    """
    write_model(folder, entries, shard_bytes)
    with disk_errors(folder):
        (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        for file in [*tokenizer_files(model.path), model.path / "generation_config.json"]:
            if file.is_file():
                shutil.copyfile(file, folder / file.name)
    size = sum(entry.size for entry in entries.values())
    vouch(folder, model, fates, tensor_bytes=size, more_weights=more_weights, **facts)


def vouch(
    folder: Path,
    model: OpenedModel,
    fates: Mapping[str, Fate],
    *,
    tensor_bytes: int,
    more_weights: int = 0,
    **facts: Any,
) -> None:
    """Write the manifest of what is in ``folder``, and open it. See ``write_artifact``."""
    files = {
        file.name: StoredFile(sha256=digest_file(file), bytes=file.stat().st_size) for file in sorted(folder.iterdir())
    }
    Manifest(
        model=identity(model),
        tool=tool_version(),
        torch=torch.__version__,
        fates=tuple(fates[name] for name in sorted(fates)),
        tensor_bytes=tensor_bytes,
        tensor_weights=model.parameters + more_weights,
        total_bytes=sum(file.bytes for file in files.values()),
        files=files,
        **facts,
    ).save(folder / MANIFEST)
    open_artifact(folder, verify=False)  # nothing gets its name before its own manifest vouches for it
