"""What llama.cpp should compute from a GGUF file: its numbers decoded, run by transformers in float32.

Inputs of every matrix are rounded as llama.cpp's kernel for that matrix rounds them, and keys and values as its cache
does, so that a correct runtime differs in the order of sums alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from tokenizers.normalizers import NFC
from torch import Tensor, nn

from quantgate.engines import Identity, Kept, Product
from quantgate.engines.torch import TorchEngine
from quantgate.errors import EngineError
from quantgate.evaluate.gguf_cache import ODD, CacheRounding, odd, round_queries, turns
from quantgate.evaluate.proof import Tolerance
from quantgate.models import OpenedModel
from quantgate.quantize.gguf import decode
from quantgate.quantize.gguf.activations import PARTNER, round_inputs
from quantgate.quantize.gguf.artifact import GgufArtifact
from quantgate.quantize.machine import refuse_beyond

EXACT = 1e-4  # of a product's scale: measured 2e-6 where activations have codes alone, a wrong nibble 2e-3 and more
SUMMED = 5e-3  # Q8_1 keeps a block's sum in float16 as well
ROWS_AT_ONCE = 4096  # of a weight, decoded in float64
LOGITS = Tolerance(kl=0.03, spread=0.1)  # measured up to 48 blocks, where the growth has ended: 4e-3 and 0.032
COARSE = {  # caches whose steps are so wide that one code rounded otherwise moves what follows; measured at 6 blocks
    "Q5_0": Tolerance(kl=0.08, spread=0.15), "Q5_1": Tolerance(kl=0.08, spread=0.15),
    "Q4_0": Tolerance(kl=0.15, spread=0.2), "Q4_1": Tolerance(kl=0.15, spread=0.2),
    "IQ4_NL": Tolerance(kl=0.15, spread=0.2),
}  # fmt: skip
BLOCKS = 12  # from here on a coarse cache's divergence may grow with the number of blocks: it was measured to
UNKNOWN = "\ufffd"  # a piece that is part of a character has no text of its own


class GgufReference:
    """See ``proof.Reference``; ``kv_cache`` is the type of the runtime's cache in llama.cpp's words."""

    def __init__(self, model: OpenedModel, artifact: GgufArtifact, kv_cache: str = "f16") -> None:
        self.model, self.artifact, self.kind = model, artifact, kv_cache.upper()
        whole = 4 * sum(fate.weights for fate in artifact.manifest.fates)
        refuse_beyond(
            whole, f"{artifact.path}: its proof decodes every number, which", "free some, or use engine torch"
        )
        self.engine = TorchEngine(model, artifact, dtype="float32", kernels="dequantize", device="cpu")
        width = int(
            getattr(model.config, "head_dim", None) or model.config.hidden_size // model.config.num_attention_heads
        )
        self.turns = turns(self.kind, width)
        paired = any(place.heads for place in artifact.tensors.places.values())
        self.engine.decoder.roundings = [CacheRounding(self.kind, width, paired=paired) for _ in range(model.depth)]
        round_queries(self.engine.network, self.kind, width, paired=paired)
        network, places = self.engine.network, artifact.tensors.places
        layers = {layer for block in range(model.depth) for group in model.linears(block) for layer in group}
        types = {layer: artifact.tensors.file.tensors[places[f"{layer}.weight"].name].type.name for layer in layers}
        for layer, kind in types.items():
            self._round(network.get_submodule(layer), kind)
        output = (
            artifact.tensors.file.tensors.get("output.weight") or artifact.tensors.file.tensors["token_embd.weight"]
        )
        self._round(network.get_output_embeddings(), output.type.name)

    @property
    def tolerance(self) -> Tolerance:
        return tolerance(self.kind, self.model.depth)

    @property
    def matrices(self) -> frozenset[str]:
        return frozenset(name for name, one in self.artifact.tensors.file.tensors.items() if len(one.shape) == 2)

    def errors(self, product: Product) -> tuple[Tensor, float]:
        file = self.artifact.tensors.file
        if product.weight not in file.tensors:
            raise EngineError(f"{file.path}: llama.cpp multiplies '{product.weight}', which the file does not hold")
        kind, raw = file.tensors[product.weight].type, file.rows(product.weight)
        given, made = torch.from_numpy(product.inputs), torch.from_numpy(product.outputs).double()
        if not given.is_floating_point():  # rows taken out of a table
            taken = decode(raw[given.flatten().long().numpy()], kind).double()
            return (made - taken).abs() / taken.square().mean().sqrt().clamp_min(1e-30), EXACT
        rounded, lengths = round_inputs(given, kind.name).double(), given.double().norm(dim=-1, keepdim=True)
        parts = []
        for start in range(0, len(raw), ROWS_AT_ONCE):
            weight = decode(raw[start : start + ROWS_AT_ONCE], kind).double()
            scale = lengths * weight.norm(dim=-1) / weight.shape[-1] ** 0.5
            wanted = rounded @ weight.T
            parts.append((made[:, start : start + ROWS_AT_ONCE] - wanted).abs() / scale.clamp_min(1e-30))
        return torch.cat(parts, dim=-1), SUMMED if PARTNER[kind.name] == "Q8_1" else EXACT

    def kept(self, found: Sequence[Kept]) -> str:
        by_name = {one.name: one for one in found}
        for layer in range(self.model.depth):
            for side, order in zip("kv", self.turns, strict=True):
                name = f"cache_{side}_l{layer}"
                if name not in by_name:
                    return f"'{name}' is not written"
                one = by_name[name]
                if one.kind != self.kind:
                    return f"'{name}' is kept as {one.kind}, expected {self.kind}"
                if one.turned != order:
                    return f"'{name}' is turned by a matrix of {one.turned}, expected {order}"
                if (share := odd(one, self.kind)) > ODD:
                    return f"{share:.1%} of '{name}' are rounded otherwise than {self.kind} rounds"
        return ""

    def _round(self, layer: nn.Module, kind: str) -> None:
        def rounded(_layer: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (round_inputs(args[0], kind), *args[1:])

        layer.register_forward_pre_hook(rounded)

    @property
    def identity(self) -> Identity:
        told = self.engine.identity
        return told.model_copy(update={"runtime": (*told.runtime, f"kv_cache={self.kind}")})

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

    def normal(self, text: str) -> str:
        """In form NFC for a tokenizer that brings text to it, which llama.cpp does not: the ledger says so."""
        backend = getattr(self.model.tokenizer, "backend_tokenizer", None)
        normalizer = None if backend is None else backend.normalizer
        return unicodedata.normalize("NFC", text) if isinstance(normalizer, NFC) else text

    def encode(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        return self.model.encode([{"role": role, "content": content} for role, content in turns])

    def logits(self, ids: Tensor, at: Tensor | None = None) -> Tensor:
        return self.engine.logits(ids, at)


def tolerance(kind: str, blocks: int) -> Tolerance:
    """What a correct runtime may be off by whose cache is of that type: with a coarse one in proportion to its depth.

    >>> tolerance("Q8_0", 80) == tolerance("F16", 4) == LOGITS, tolerance("Q4_0", 6).kl, tolerance("Q4_0", 48)
    (True, 0.15, Tolerance(kl=0.6, spread=0.4))
    """
    if kind not in COARSE:
        return LOGITS
    deeper = max(1.0, blocks / BLOCKS)
    return Tolerance(kl=COARSE[kind].kl * deeper, spread=COARSE[kind].spread * deeper**0.5)
