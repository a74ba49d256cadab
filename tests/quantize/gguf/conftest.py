"""Small models with a tokenizer that GGUF can tell, and files made of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from quantgate.models import REFERENCE_FOLDER, open_model
from quantgate.models.families import save_family
from quantgate.models.text import TOKENIZER_FILES

KINDS: dict[str, dict[str, Any]] = {  # model_type -> settings that llama.cpp computes
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen2": {"tied": True},
    "qwen3": {},
    "gemma": {"head_dim": 16},
    "gemma2": {"query_pre_attn_scalar": 32},
    "gemma3_text": {"query_pre_attn_scalar": 32},
    "phi3": {},
}


def small(folder: Path, kind: str = "llama", **settings: Any) -> Any:
    """A random model of ``kind`` with the built-in model's tokenizer."""
    told = {"vocabulary": 1544, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "max_position_embeddings": 256}
    save_family(folder, kind, **{**told, **KINDS.get(kind, {}), **settings})
    for name in TOKENIZER_FILES:
        (folder / name).unlink(missing_ok=True)
        if (REFERENCE_FOLDER / name).is_file():
            shutil.copyfile(REFERENCE_FOLDER / name, folder / name)
    return open_model(folder)


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Llama, hidden 64, two blocks, 1544 rows of embeddings, float32, tied."""
    return small(tmp_path_factory.mktemp("gguf") / "tiny")
