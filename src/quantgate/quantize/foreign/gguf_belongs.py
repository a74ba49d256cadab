"""Whether a GGUF file belongs to the baseline: its architecture, tokenizer, chat template, and its list of tensors.

Everything is held against what the baseline itself would be as a GGUF file. A setting that changes what is computed and
is not the baseline's is refused, for the reference that the file is judged by has the baseline's.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from quantgate.errors import ArtifactError
from quantgate.models import OpenedModel
from quantgate.quantize.gguf import GgufFile, Layout
from quantgate.quantize.gguf.pretokenizers import ALIKE
from quantgate.quantize.manifest import Note

WINDOW_PATTERNS = {"gemma2": 2, "gemma3": 6}  # every so manyth layer looks at everything, where a file does not tell
LEFT_OUT = {  # keys that a runtime makes by itself where they are not told
    "attention.key_length", "attention.value_length", "rope.dimension_count", "vocab_size", "rope.freq_base",
    "attention.sliding_window_pattern", "attention.head_count_kv", "rope.freq_base_swa",
}  # fmt: skip
USUAL: dict[str, dict[str, Any]] = {  # what llama.cpp takes where a file does not tell, by tokenizer.ggml.model
    "llama": {"add_space_prefix": True, "add_bos_token": True, "bos_token_id": 1, "eos_token_id": 2},
    "gpt2": {"bos_token_id": 11, "eos_token_id": 11},
}
NO_MATTER = ("tokenizer.ggml.padding_token_id", "tokenizer.ggml.unknown_token_id")  # text never becomes these
BEGINS = ("llama-bpe", "tekken")  # pre-tokenizers that put the beginning token first unless a file says otherwise
NOTED = ("context_length", "rope.scaling.original_context_length")


def check_settings(file: GgufFile, ours: Layout, ref: str) -> list[Note]:
    """Raises ArtifactError when the file is of another architecture, or has it with other settings."""
    told = file.text("general.architecture")
    if told != ours.architecture:
        raise ArtifactError(
            f"{file.path}: the architecture is {told or 'not told'}, the baseline {ref} is {ours.architecture}; "
            "compare it with the model it was made from"
        )
    if file.metadata.get("split.count", 1) > 1:
        raise ArtifactError(f"{file.path}: is one part of several; join them with llama.cpp's gguf-split --merge")
    notes, prefix = [], f"{told}."
    for key in sorted({*ours.metadata, *file.metadata}):
        if not key.startswith(prefix):
            continue
        short = key.removeprefix(prefix)
        wanted, found = ours.metadata.get(key, ("string", None))[1], file.metadata.get(key)
        if short == "attention.sliding_window_pattern":
            found, wanted = (_pattern(one, told, ours.shape.blocks) for one in (found, wanted))
        if (found is None and short in LEFT_OUT) or _same(wanted, found):
            continue
        if wanted is None and found in (0, 0.0, 1.0, False, "none", "default"):
            continue
        what = f"{key} is {_short(found)}, the baseline {ref} has {_short(wanted)}"
        if short not in NOTED:
            raise ArtifactError(f"{file.path}: {what}; compare it with the model it was made from")
        notes.append(Note(tensor="metadata", event="config", detail=what))
    return notes


def check_words(file: GgufFile, ours: Layout, ref: str) -> None:
    """Raises ArtifactError when text would become other tokens than the baseline's, or a chat another text."""
    wanted = {key: value for key, (_, value) in ours.metadata.items() if key.startswith("tokenizer.")}
    theirs, template = file.text("tokenizer.chat_template"), wanted.pop("tokenizer.chat_template", "")
    if theirs != template:
        raise ArtifactError(
            f"{file.path}: its chat template differs from that of {ref} ({_where_differs(theirs, template)}); "
            "make the file again from the baseline's folder"
        )
    for key, value in wanted.items():
        found = file.metadata.get(key, _usual(key, wanted))
        if key in NO_MATTER and found is None:
            continue
        if key == "tokenizer.ggml.pre":
            same = found in ALIKE.get(value, (value,))
        elif key == "tokenizer.ggml.scores":
            same = _ordered_alike(found, value, wanted["tokenizer.ggml.token_type"])
        else:
            same = found == value or (found is None and not value)
        if not same:
            raise ArtifactError(
                f"{file.path}: its tokenizer differs from that of {ref} ({_difference(key, found, value)}); "
                "compare it with the model it was made from"
            )


def _usual(key: str, ours: dict[str, Any]) -> Any:
    """What llama.cpp takes for a key that a file does not tell."""
    short, pre = key.removeprefix("tokenizer.ggml."), str(ours["tokenizer.ggml.pre"])
    if short == "add_bos_token" and pre in BEGINS:
        return True
    return USUAL[ours["tokenizer.ggml.model"]].get(short)


def check_tensors(file: GgufFile, ours: Layout, model: OpenedModel) -> None:
    """Raises ArtifactError when a tensor is missing, unknown or of another shape."""
    for name, shape in ours.shapes.items():
        if name not in file.tensors:
            raise ArtifactError(
                f"{file.path}: '{name}' of the baseline {model.ref} is missing; the file is incomplete, or it was made "
                "from another model"
            )
        if file.tensors[name].shape != shape:
            raise ArtifactError(
                f"{file.path}: '{name}' is {list(file.tensors[name].shape)}, the baseline {model.ref} has "
                f"{list(shape)}; it was made from another model"
            )
    for name in (name for name in file.tensors if name not in ours.shapes):
        raise ArtifactError(
            f"{file.path}: '{name}' is no tensor of the baseline {model.ref}; what it does is unknown, so the file is "
            "not judged"
        )


def _pattern(value: Any, architecture: str, blocks: int) -> Any:
    """Which layers have a sliding window, however a file tells it."""
    every = WINDOW_PATTERNS.get(architecture) if value is None else value
    if isinstance(every, int) and not isinstance(every, bool):
        return [at % every < every - 1 for at in range(blocks)]
    return every


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)


def _ordered_alike(found: Any, wanted: list[float], types: list[int]) -> bool:
    """Whether normal pieces are preferred in the same order; SentencePiece's own scores are other numbers than ours."""
    if not isinstance(found, list) or len(found) != len(wanted):
        return False
    lowest = min(wanted)
    normal = [at for at, kind in enumerate(types) if kind == 1 and wanted[at] > lowest]
    ranked = sorted(normal, key=lambda at: -wanted[at])
    theirs = [found[at] for at in ranked]
    return all(first > second for first, second in itertools.pairwise(theirs))


def _difference(key: str, found: Any, wanted: Any) -> str:
    short = key.removeprefix("tokenizer.ggml.")
    if isinstance(found, list) and isinstance(wanted, list):
        if len(found) != len(wanted):
            return f"{len(found)} {short} instead of {len(wanted)}"
        at = next((at for at, pair in enumerate(zip(found, wanted, strict=True)) if pair[0] != pair[1]), 0)
        return f"{short}, number {at}: {found[at]!r} instead of {wanted[at]!r}"
    return f"{short} is {_short(found)} instead of {_short(wanted)}"


def _where_differs(found: str, wanted: str) -> str:
    if not found or not wanted:
        return "it has none" if not found else "the baseline has none"
    same = next((at for at, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]), None)
    return f"from character {min(len(found), len(wanted)) if same is None else same} on"


def _short(value: Any) -> str:
    text = "not told" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def made_by(file: GgufFile) -> str:
    """The program that made the file, as far as it says."""
    told = file.text("general.quantized_by")
    return told or "a program that does not say its name"
