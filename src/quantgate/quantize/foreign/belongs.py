"""Whether a foreign artifact belongs to the baseline: its architecture, its tokenizer, and the tensors that it kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quantgate.errors import ArtifactError
from quantgate.models import OpenedModel
from quantgate.models.tensors import TensorFiles, finite
from quantgate.models.text import open_tokenizer, tokenizer_digest
from quantgate.quantize.foreign.layers import FLOATS
from quantgate.quantize.manifest import LEFT_OUT, Fate, Note

UNIMPORTANT = {
    "quantization_config", "compression_config", "dtype", "torch_dtype", "transformers_version", "_name_or_path",
    "name_or_path", "use_cache", "architectures", "auto_map", "pad_token_id", "output_attentions",
    "output_hidden_states", "return_dict",
}  # fmt: skip
TYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}


def check_config(folder: Path, model: OpenedModel) -> list[Note]:
    """A line for every setting of the architecture that differs from the baseline's.

    Raises ArtifactError when it is another architecture, or one that transformers does not know without running code.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, KeyError, TypeError) as problem:
        first = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise ArtifactError(
            f"{folder / 'config.json'}: transformers does not open it without running code from it ({first[:120]}); "
            "expected the architecture of the baseline"
        ) from None
    if config.model_type != model.config.model_type:
        raise ArtifactError(
            f"{folder / 'config.json'}: the architecture is {config.model_type}, the baseline {model.ref} is "
            f"{model.config.model_type}; compare it with the model it was made from"
        )
    ours, theirs = _settings(model.config), _settings(config)
    return [
        Note(tensor="config.json", event="config", detail=f"{key} is {_short(theirs.get(key))}, the baseline has "
             f"{_short(ours.get(key))}")
        for key in sorted({*ours, *theirs} - UNIMPORTANT) if ours.get(key) != theirs.get(key)
    ]  # fmt: skip


def check_tokenizer(folder: Path, model: OpenedModel) -> None:
    """Raises ArtifactError when text would become other tokens than the baseline's, or a chat another text.

    Programs write the files of one tokenizer differently, so it is their content that is compared.
    """
    if tokenizer_digest(folder) == model.tokenizer_digest:
        return
    theirs, ours = open_tokenizer(folder), model.tokenizer
    if (theirs.chat_template or None) != (ours.chat_template or None):
        raise ArtifactError(
            f"{folder}: its chat template differs from that of {model.ref}; copy the baseline's tokenizer files into it"
        )
    one, other = _meaning(theirs), _meaning(ours)
    different = sorted(part for part in {*one, *other} if one.get(part) != other.get(part))
    if different:
        raise ArtifactError(
            f"{folder}: its tokenizer differs from that of {model.ref} ({', '.join(different)}); compare it with the "
            "model it was made from"
        )


def kept_fates(files: TensorFiles, model: OpenedModel, quantized: set[str]) -> list[Fate]:
    """The fates of the baseline's tensors that the artifact holds as they were or with other numbers.

    Raises ArtifactError when one is missing or has another shape, BadTensor when it holds NaN or Inf.
    """
    fates = []
    for name, ours in sorted(model.files.entries.items()):
        if name.removesuffix(".weight") in quantized and name.endswith(".weight"):
            continue
        if name not in files.entries:
            raise ArtifactError(
                f"{files.folder}: '{name}' of the baseline {model.ref} is missing; the artifact is incomplete, or it "
                "was made from another model"
            )
        entry = files.entries[name]
        if entry.shape != ours.shape or entry.dtype not in FLOATS:
            raise ArtifactError(
                f"{files.folder}: '{name}' is {entry.dtype} {list(entry.shape)}, the baseline {model.ref} has "
                f"{ours.dtype} {list(ours.shape)}; it was made from another model, or is stored in a way not read here"
            )
        fates.append(
            Fate(
                name=name.removesuffix(".weight"), asked="keep", got=entry.dtype.lower(),
                because=_compared(files, model, name), weights=entry.weights, bytes=entry.size, tensors=(name,),
            )
        )  # fmt: skip
    return fates


def unused_fates(files: TensorFiles, model: OpenedModel, told: set[str]) -> list[Fate]:
    """The fates of tensors that are neither the baseline's nor a layer's, and change nothing.

    That is a bias of zeros that AutoGPTQ adds, rotary frequencies that old programs stored, and a second copy of tied
    embeddings. Raises ArtifactError for any other tensor: what it does is unknown.
    """
    fates = []
    for name in sorted(set(files.entries) - told):
        entry = files.entries[name]
        if name.endswith("rotary_emb.inv_freq"):
            because = "computed from the config"
        elif name.endswith(".bias") and entry.dtype in FLOATS and not bool(files.read(name).any()):
            because = "a bias of zeros"
        elif name == "lm_head.weight" and model.tied and _copy(files):
            because = "a second copy of the tied embeddings"
        else:
            raise ArtifactError(
                f"{files.folder}: '{name}' is no tensor of the baseline {model.ref} and none that this layout has; "
                "what it does is unknown, so the artifact is not judged"
            )
        fates.append(
            Fate(
                name=name.removesuffix(".weight"),
                asked="keep",
                got=LEFT_OUT,
                because=because,
                bytes=entry.size,
                tensors=(name,),
            )
        )
    return fates


def _compared(files: TensorFiles, model: OpenedModel, name: str) -> str:
    """How a kept tensor stands to the baseline's."""
    import torch

    theirs, ours = files.read(name), model.files.read(name)
    finite(theirs, name, files.entries[name].file)
    if torch.equal(theirs.to(ours.dtype), ours) or torch.equal(theirs, ours.to(theirs.dtype)):
        return "as the baseline has it"
    return "other numbers than the baseline's: what was folded into it is not on record"


def _copy(files: TensorFiles) -> bool:
    import torch

    table = next((name for name in files.entries if name.endswith("embed_tokens.weight")), "")
    return bool(table) and torch.equal(files.read("lm_head.weight"), files.read(table))


def _settings(config: Any) -> dict[str, Any]:
    told: dict[str, Any] = config.to_dict()
    return told


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _meaning(tokenizer: Any) -> dict[str, Any]:
    """What decides the tokens of a text, without how it is written down."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    made: dict[str, Any] = {"vocabulary": tokenizer.get_vocab()} if backend is None else json.loads(backend.to_str())
    for part in ("truncation", "padding", "version"):
        made.pop(part, None)
    return made | {"eos_token": tokenizer.eos_token, "bos_token": tokenizer.bos_token}
