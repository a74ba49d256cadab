"""Whether a GGUF file can draft for a model: its tokens must be the model's, number by number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quantgate.errors import ArtifactError
from quantgate.quantize.gguf.read import GgufFile, open_gguf

DO = "draft with a model of the same tokenizer"


def check_draft(path: Path | str, tokens: Sequence[str], ref: str) -> GgufFile:
    """The header of the file ``path``, whose tokens are ``tokens``, those of ``ref``. Raises ArtifactError."""
    file = open_gguf(path)
    found = file.array("tokenizer.ggml.tokens")
    if len(found) != len(tokens):
        raise ArtifactError(f"{path}: has {len(found)} tokens, {ref} has {len(tokens)}; {DO}")
    for number, (one, other) in enumerate(zip(found, tokens, strict=True)):
        if one != other:
            raise ArtifactError(f"{path}: token {number} is {one!r}, in {ref} it is {other!r}; {DO}")
    return file
