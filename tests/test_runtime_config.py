"""``runtime`` in release.yaml: what llama.cpp is set to, and where that cannot be."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from quantgate.errors import UsageError
from quantgate.pipeline.variants import runtimes_of
from quantgate.release_config import load_config
from quantgate.variant_config import RuntimeConfig, VariantConfig


def write(folder: Path, **variant: Any) -> Path:
    path = folder / "release.yaml"
    path.write_text(yaml.safe_dump({"capabilities": ["math"], "variants": [variant]}))
    return path


def test_a_runtime_is_read_and_its_draft_lies_beside_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, scheme="Q4_K_M", engine="llamacpp", name="a",
                 runtime={"kv_cache": "q8_0", "draft": "small.gguf", "draft_tokens": 4})  # fmt: skip
    config = load_config(path)
    wanted = RuntimeConfig(kv_cache="q8_0", draft=str(tmp_path / "small.gguf"), draft_tokens=4)
    assert runtimes_of(config.variants) == {"a": wanted}


def test_a_configuration_without_a_runtime_keeps_its_digest(tmp_path: Path) -> None:
    assert "runtime" not in VariantConfig(scheme="Q4_K_M").body()
    assert runtimes_of(load_config(write(tmp_path, scheme="Q4_K_M")).variants) == {}


@pytest.mark.parametrize(
    ("variant", "sentence"),
    [
        (
            {"scheme": "W4A16", "runtime": {"kv_cache": "q8_0"}},
            r"'kv_cache' is a setting of engine llamacpp; choose it",
        ),
        (
            {"scheme": "Q4_K_M", "engine": "llamacpp", "runtime": {"compile": True}},
            r"'compile' is a setting of engine torch",
        ),
        (
            {"scheme": "Q4_K_M", "engine": "llamacpp", "kv_cache": "int8"},
            r"no KV cache in int8; write runtime: \{kv_cache",
        ),
        (
            {"scheme": "Q4_K_M", "engine": "llamacpp", "runtime": {"kv_cash": "q8_0"}},
            r"unknown key 'kv_cash'.*'kv_cache'",
        ),
        (
            {"scheme": "Q4_K_M", "engine": "llamacpp", "runtime": {"draft_tokens": 0}},
            r"'variants.0.runtime.draft_tokens'",
        ),
        ({"scheme": "Q4_K_M", "engine": "llamacpp", "runtime": {"kv_cache": "q9"}}, r"'variants.0.runtime.kv_cache'"),
    ],
)
def test_what_cannot_be_is_one_sentence(variant: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=sentence):
        load_config(write(tmp_path, **variant))


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_the_cache_types_are_the_engines() -> None:
    from quantgate.engines._llama import KV_TYPES

    assert set(get_args(RuntimeConfig.model_fields["kv_cache"].annotation)) == set(KV_TYPES)
