"""Models: open a Hugging Face causal language model block by block, without holding it whole.

    model = open_model("quantgate/reference")        # or a folder, or a Hugging Face id
    hidden = model.embed(batches)                    # ids [batch, tokens] -> float32 [batch, tokens, hidden]
    for i in range(model.depth):
        with model.block(i) as block:                # one block's weights in memory
            hidden = [block(one) for one in hidden]

Opening reads configuration and headers only, and refuses at once what cannot work later: pickles, truncated files,
unknown architectures, tensors whose shapes contradict the configuration. ``check()`` then looks at every number for NaN
and Inf.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantgate.errors import ModelError
from quantgate.models import text
from quantgate.models.families import SUPPORTED
from quantgate.models.locate import REFERENCE, REFERENCE_FOLDER, locate
from quantgate.models.seal import Seal
from quantgate.models.tensors import TensorFiles, open_tensors
from quantgate.records import digest_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from quantgate.models.walker import Block, Walker

__all__ = ["REFERENCE", "REFERENCE_FOLDER", "OpenedModel", "open_model"]


class OpenedModel:
    """A baseline model on disk: its configuration, tensors, tokenizer, digests, and its blocks one at a time."""

    def __init__(self, ref: str, path: Path, config: Any, files: TensorFiles, seal: Seal | None = None) -> None:
        self.ref, self.path, self.config, self.files = ref, path, config, files
        self.seal = seal or Seal.of(path)

    def __repr__(self) -> str:
        return f"OpenedModel({self.ref!r}, {self.architecture}, {self.depth} blocks)"

    @property
    def architecture(self) -> str:
        return type(self.walker.skeleton).__name__

    @property
    def depth(self) -> int:
        """How many decoder blocks."""
        return self.walker.depth

    @property
    def parameters(self) -> int:
        """How many numbers the safetensors files hold (tied embeddings count once)."""
        return sum(entry.weights for entry in self.files.entries.values())

    @property
    def weights_bytes(self) -> int:
        return sum(entry.size for entry in self.files.entries.values())

    @property
    def context(self) -> int:
        """The longest sequence the model was made for, in tokens."""
        return int(self.config.max_position_embeddings)

    @property
    def tied(self) -> bool:
        """Whether lm_head is the embedding table and not stored by itself."""
        return bool(self.config.tie_word_embeddings) and f"{self.walker.head}.weight" not in self.files.entries

    @property
    def unquantized(self) -> dict[str, str]:
        """Linear layers and routers that no recipe touches -> why: the head, what stands around the blocks, gates."""
        return self.walker.unquantized

    @property
    def has_experts(self) -> bool:
        return self.walker.has_experts

    @cached_property
    def walker(self) -> Walker:
        from quantgate.models.walker import Walker

        return Walker(self.config, self.files, str(self.path))

    @cached_property
    def tokenizer(self) -> Any:
        return text.open_tokenizer(self.path)

    @cached_property
    def weights_digest(self) -> str:
        """Digest of the tensors' names, types, shapes and bytes; the same however the files are sharded."""
        return self.files.content_digest(self.tensor_digests)

    @cached_property
    def tensor_digests(self) -> dict[str, str]:
        """Digest of the bytes of every tensor, by name."""
        return self.files.digests()

    @cached_property
    def tokenizer_digest(self) -> str:
        return text.tokenizer_digest(self.path)

    @cached_property
    def template_digest(self) -> str:
        """Digest of the chat template, or of its absence."""
        return digest_of(self.tokenizer.chat_template or None)

    @cached_property
    def config_digest(self) -> str:
        return digest_of(json.loads((self.path / "config.json").read_bytes()))

    def unchanged(self) -> None:
        """Raises ModelError when a file was changed since the model was opened: its digests speak of other bytes."""
        if file := self.seal.broken():
            raise ModelError(f"{file}: was changed while the model was in use; let it be finished, then run again")

    def check(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read every weight that the architecture has once. Raises BadTensor naming the first one with NaN or Inf.

        What else is in the files (old GPT-NeoX checkpoints hold masks, with -inf in them) is carried along as it is.
        """
        read = set(self.walker.anatomy.stored.values())
        self.files.check_finite([name for name in self.files.entries if name in read], progress)

    def embed(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """Hidden states in front of block 0: each [batch, tokens] of ids becomes float32 [batch, tokens, hidden]."""
        return self.walker.embed(batches)

    def block(self, index: int, device: str | torch.device = "cpu") -> AbstractContextManager[Block]:
        """``with model.block(3) as block: hidden = block(hidden)``; the weights are released when the ``with`` ends."""
        import torch

        return self.walker.block(index, torch.device(device))

    def linears(self, index: int) -> list[list[str]]:
        """Full names of a block's linear layers; those that read the same input (q/k/v, gate/up) stand together."""
        return self.walker.groups(index)

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, plain: bool = False, tools: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        """A chat as the string that the model expects, ending where its answer begins. Raises ModelError."""
        return text.render(self.tokenizer, messages, self.path, plain=plain, tools=tools)

    def encode(self, prompt: str | Sequence[Mapping[str, str]], *, plain: bool = False) -> list[int]:
        """Token ids of a chat (special tokens come from its template) or of plain text (from the tokenizer)."""
        if isinstance(prompt, str):
            return [int(one) for one in self.tokenizer(prompt)["input_ids"]]
        templated = bool(self.tokenizer.chat_template)
        text = self.render(
            prompt, plain=plain
        )  # a long one is its asker's to refuse, and no warning of the tokenizer's
        ids = self.tokenizer(text, add_special_tokens=not templated, verbose=False)["input_ids"]
        return [int(one) for one in ids]


def open_model(ref: str | Path, *, hub: str | None = None, cache: Path | None = None) -> OpenedModel:
    """Open a model by folder, ``quantgate/reference``, or Hugging Face id; reads no weights yet.

    Raises ModelError (no folder, no config, unknown architecture, truncated or missing files), PickleRefused.
    """
    path = locate(str(ref), hub=hub, cache=cache)
    seal = Seal.of(path)
    files = open_tensors(path)
    model = OpenedModel(str(ref), path, _config(path), files, seal)
    _ = model.walker  # built now, so that what cannot be walked is refused before anything slow starts
    return model


def _config(path: Path) -> Any:
    from transformers import AutoConfig

    file = path / "config.json"
    try:
        raw = json.loads(file.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as broken:
        raise ModelError(f"{file}: not valid JSON ({broken}); download it again") from None
    if "quantization_config" in raw:
        method = raw["quantization_config"].get("quant_method", "unknown")
        raise ModelError(f"{path}: the model is already quantized ({method}); name the full-precision baseline instead")
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as problem:
        kind = raw.get("model_type", "(no model_type)")
        first = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise ModelError(
            f"{file}: transformers does not know the architecture '{kind}' ({first[:120]}); {SUPPORTED}"
        ) from None
