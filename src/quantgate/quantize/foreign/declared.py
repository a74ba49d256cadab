"""What the folder says about itself: its quantization settings, from whichever file holds them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantgate.errors import ArtifactError
from quantgate.quantize.foreign.autoround import AutoRound
from quantgate.quantize.foreign.awq import Awq
from quantgate.quantize.foreign.compressed import Compressed
from quantgate.quantize.foreign.gptq import Gptq
from quantgate.quantize.foreign.layers import Layout

SIDE_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq", "quantization_config.json": ""}
# the names that programs give to settings beside or instead of config.json's, and whose they are
METHODS: dict[str, Callable[[dict[str, Any], Path], Layout]] = {
    "compressed-tensors": Compressed,
    "gptq": Gptq,
    "awq": Awq,
    "auto-round": AutoRound,
    "intel/auto-round": AutoRound,
}
NAMES = {"bits": ("bits", "w_bit"), "group_size": ("group_size", "q_group_size"), "sym": ("sym",)}
NAMES |= {"desc_act": ("desc_act",), "checkpoint_format": ("checkpoint_format",), "zero_point": ("zero_point",)}


@dataclass(frozen=True)
class Declared:
    """The settings, where they stand, and the layout that they name."""

    file: Path
    config: dict[str, Any]
    algorithm: str  # how codes were chosen, as far as the folder says
    layout: Layout
    made_by: str  # as far as the folder says


def is_foreign(folder: Path) -> bool:
    """Whether ``folder`` holds a quantized model that has no manifest of ours."""
    if (folder / "manifest.json").is_file():
        return False
    if any((folder / name).is_file() for name in SIDE_FILES):
        return True
    try:
        raw = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(raw, dict) and any(key in raw for key in ("quantization_config", "compression_config"))


def declared(folder: Path) -> Declared:
    """Raises ArtifactError when there are no settings, two that differ, or some of a layout that is not read."""
    file, config = _one(folder)
    method = str(config.get("quant_method") or SIDE_FILES.get(file.name, "")).lower()
    if method not in METHODS:
        known = ", ".join(sorted(set(METHODS) - {"intel/auto-round"}))
        found = f"'{method}'" if method else "no quant_method"
        raise ArtifactError(f"{file}: the quantization settings name {found}; supported are {known}")
    if config.get("kv_cache_scheme"):
        raise ArtifactError(
            f"{file}: asks for a quantized KV cache, which quantgate does not run; make it without kv_cache_scheme"
        )
    layout = METHODS[method](config, file)
    return Declared(file, config, _algorithm(config, method), layout, _made_by(folder, config, method))


def _one(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The settings of config.json, or of the file beside it that older programs wrote; both must say the same."""
    main = folder / "config.json"
    raw = _json(main)
    found = [(main, raw[key]) for key in ("quantization_config", "compression_config") if raw.get(key)]
    found += [(folder / name, _json(folder / name)) for name in SIDE_FILES if (folder / name).is_file()]
    if not found:
        raise ArtifactError(
            f"{main}: no quantization_config in it, and no {' or '.join(SIDE_FILES)} beside it; "
            "it is neither an artifact of quantgate nor a quantized model of another program; a model in full "
            "precision is named under 'model'"
        )
    file, config = found[0]
    for other, told in found:
        if not isinstance(told, dict):
            raise ArtifactError(f"{other}: the quantization settings are no JSON object; download it again")
        _agree(file, config, other, told)
    return file, config


def _agree(file: Path, config: dict[str, Any], other: Path, told: dict[str, Any]) -> None:
    for name, spellings in NAMES.items():
        values = [next((one[key] for key in spellings if one.get(key) is not None), None) for one in (config, told)]
        if None not in values and values[0] != values[1]:
            raise ArtifactError(
                f"{file} says {name} is {values[0]}, {other.name} beside it says {values[1]}; keep the one that is true"
            )


def _json(file: Path) -> dict[str, Any]:
    try:
        raw = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{file.parent}: no {file.name}; expected a Hugging Face model folder") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as broken:
        raise ArtifactError(f"{file}: not valid JSON ({broken}); download it again") from None
    if not isinstance(raw, dict):
        raise ArtifactError(f"{file}: holds no JSON object; download it again")
    return raw


def _algorithm(config: dict[str, Any], method: str) -> str:
    if config.get("autoround_version") or method.endswith("auto-round"):
        return "auto-round"
    return "not on record" if method == "compressed-tensors" else method


def _made_by(folder: Path, config: dict[str, Any], method: str) -> str:
    """The program and its version, as far as the settings tell; programs do not all sign their work."""
    if config.get("autoround_version"):
        return f"auto-round {config['autoround_version']}"
    meta = config.get("meta")
    quantizer = meta.get("quantizer") if isinstance(meta, dict) else None
    if quantizer:
        return ", ".join(map(str, quantizer)) if isinstance(quantizer, list) else str(quantizer)
    if method == "compressed-tensors":
        program = "llm-compressor, " if (folder / "recipe.yaml").is_file() else ""
        version = config.get("version")
        return f"{program}compressed-tensors {version}" if version else f"{program}compressed-tensors"
    return f"a program that writes {method} and does not say its name"
