"""A model whose weights are not here: its config.json suffices to know every tensor's name and shape.

model = outline(Path("llama-70b.json"))     # or a folder without weights
model.parameters, model.weights_bytes       # as the files would have them; nothing of them can be read
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from quantgate.errors import ModelError
from quantgate.models import OpenedModel, open_model
from quantgate.models.families import SUPPORTED
from quantgate.models.tensors import Entry, TensorFiles

WORDS = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
BYTES = {"F16": 2, "BF16": 2, "F32": 4}


def open_or_outline(ref: str | Path, **hub: Any) -> OpenedModel:
    """A config.json, a folder that has no weights, or any model that ``open_model`` opens.

    Raises ModelError for a file that is no configuration of a model that can be walked.
    """
    path = Path(ref).expanduser()
    if path.is_file():
        return outline(path)
    if path.is_dir() and (path / "config.json").is_file() and not any(path.glob("*.safetensors*")):
        if pickles := sorted(path.glob("*.bin")):
            return open_model(ref, **hub) if pickles else outline(path / "config.json")
        return outline(path / "config.json")
    return open_model(ref, **hub)


def outline(file: Path) -> OpenedModel:
    """The model of a config.json, by transformers' skeleton of it. Raises ModelError."""
    from quantgate.models.anatomy import take_apart

    config = _config(file)
    word = WORDS.get(str(getattr(config, "dtype", None)).removeprefix("torch."), "BF16")
    anatomy = take_apart(config, str(file))  # makes the configuration say float32
    shapes = {path: tuple(tensor.shape) for path, tensor in anatomy.model.state_dict().items()}
    tied = {f"{anatomy.head}.weight"} if config.tie_word_embeddings else set()
    entries = {
        name: Entry(file, word, shapes[path], 0, BYTES[word] * math.prod(shapes[path]))
        for path, name in anatomy.stored.items()
        if path not in tied
    }
    model = OpenedModel(str(file), file.parent, config, TensorFiles(file.parent, entries))
    _ = model.walker
    return model


def _config(file: Path) -> Any:
    from transformers import AutoConfig

    try:
        raw = json.loads(file.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as broken:
        raise ModelError(f"{file}: not a config.json that can be read ({broken}); name a model's config.json") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("model_type"), str):
        raise ModelError(f"{file}: names no model_type; name a model's config.json as the hub has it")
    raw = {
        key: value for key, value in raw.items() if key not in ("quantization_config", "auto_map", "torch_dtype")
    } | ({"dtype": raw["torch_dtype"]} if "torch_dtype" in raw else {})
    kind = raw.pop("model_type")
    try:
        return AutoConfig.for_model(kind, **raw)
    except (ValueError, KeyError, TypeError) as problem:
        first = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise ModelError(
            f"{file}: transformers does not know the architecture '{kind}' ({first[:120]}); {SUPPORTED}"
        ) from None
