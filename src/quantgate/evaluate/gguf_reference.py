"""What llama.cpp should compute from a GGUF file: its numbers decoded, run by transformers in float32.

Inputs of every matrix are rounded as llama.cpp's kernel for that matrix rounds them, and keys and values as its cache
does, so that a correct runtime differs in the order of sums alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from quantgate.engines import Identity
from quantgate.engines.torch import TorchEngine
from quantgate.evaluate.proof import Tolerance
from quantgate.models import OpenedModel
from quantgate.quantize.foreign.gguf import GgufArtifact
from quantgate.quantize.gguf.activations import round_inputs
from quantgate.quantize.kv_cache import Rounding

UNKNOWN = "\ufffd"  # a piece that is part of a character has no text of its own


class HalfCache(Rounding):
    """Keys and values as a float16 cache keeps them."""

    def __init__(self) -> None:
        pass

    def __call__(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return keys.half().to(keys.dtype), values.half().to(values.dtype)


class GgufReference:
    """See ``proof.Reference``."""

    def __init__(self, model: OpenedModel, artifact: GgufArtifact, tolerance: Tolerance) -> None:
        self.model, self.artifact, self.tolerance = model, artifact, tolerance
        self.engine = TorchEngine(model, artifact, dtype="float32", kernels="dequantize", device="cpu")
        self.engine.decoder.roundings = [HalfCache() for _ in range(model.depth)]
        network, places = self.engine.network, artifact.tensors.places
        layers = {layer for block in range(model.depth) for group in model.linears(block) for layer in group}
        types = {layer: artifact.tensors.file.tensors[places[f"{layer}.weight"].name].type.name for layer in layers}
        for layer, kind in types.items():
            self._round(network.get_submodule(layer), kind)
        output = artifact.tensors.file.tensors.get("output.weight") or artifact.tensors.file.tensors["token_embd.weight"]
        self._round(network.get_output_embeddings(), output.type.name)

    def _round(self, layer: nn.Module, kind: str) -> None:
        def rounded(_layer: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (round_inputs(args[0], kind), *args[1:])

        layer.register_forward_pre_hook(rounded)

    @property
    def identity(self) -> Identity:
        return self.engine.identity

    @property
    def template(self) -> str:
        return str(self.model.tokenizer.chat_template or "")

    @property
    def vocabulary(self) -> int:
        return int(self.model.config.vocab_size)

    @cached_property
    def pieces(self) -> list[str]:
        tokenizer = self.model.tokenizer
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        texts = [tokenizer.decode([one]) for one in sorted(tokenizer.get_vocab().values()) if one not in special]
        return [text for text in texts if text and UNKNOWN not in text]

    def tokenize(self, text: str) -> list[int]:
        return [int(one) for one in self.model.tokenizer.encode(text, add_special_tokens=False)]

    def encode(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        return self.model.encode([{"role": role, "content": content} for role, content in turns])

    def logits(self, ids: Tensor, at: Tensor | None = None) -> Tensor:
        return self.engine.logits(ids, at)
