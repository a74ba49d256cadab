"""Embedding tables in codes: rows are decoded as they are looked up, so the table stays as small as it is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from quantgate.quantize.checkpoints import DecodedLinear, StoredLinear

ON_LOOKUP, ON_LOAD = "rows decoded on lookup", "rows decoded on load"


class CodedEmbedding(nn.Module):
    """Codes [tokens, hidden] int8 and scales [tokens, hidden / group]; gives rows of ``StoredLinear.dequantized``."""

    def __init__(self, stored: StoredLinear, dtype: torch.dtype) -> None:
        super().__init__()
        self._stored, self._dtype = replace(stored, codes=stored.codes[:0], scales=stored.scales[:0], zeros=None), dtype
        self.codes, self.scales = nn.Buffer(stored.codes.contiguous()), nn.Buffer(stored.scales.contiguous())
        self.zeros = None if stored.zeros is None else nn.Buffer(stored.zeros.contiguous())

    def forward(self, ids: Tensor) -> Tensor:
        """ids [...] -> [..., hidden]."""
        rows = ids.reshape(-1)
        zeros = None if self.zeros is None else self.zeros[rows]
        found = replace(self._stored, codes=self.codes[rows], scales=self.scales[rows], zeros=zeros)
        return found.dequantized(self._dtype).reshape(*ids.shape, -1)


def build_table(
    present: nn.Embedding, stored: StoredLinear, dtype: torch.dtype, kernels: str
) -> tuple[nn.Module, str, str, str]:
    """The module that looks ``stored`` up, the path that was asked for, the one it got, and why they differ (or "").

    ``present`` holds the decoded table, and stays where it does more than look rows up (Gemma scales them).
    """
    because = ""
    if kernels == "dequantize":
        because = "kernels: dequantize was asked for"
    elif isinstance(stored, DecodedLinear):
        because = "its blocks are decoded when it is read"
    elif type(present) is not nn.Embedding:
        because = f"{type(present).__name__} does more than look rows up"
    if because:
        return present, ON_LOOKUP, ON_LOAD, because
    return CodedEmbedding(stored, dtype), ON_LOOKUP, ON_LOOKUP, ""


def coded_paths(network: nn.Module, coded: Sequence[str], paths: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Every module that computes from codes: the artifact's name of the codes, and its path in ``network``.

    The output layer of a tied model reads the codes of the table; it comes before the table is replaced.
    """
    head, table = network.get_output_embeddings(), network.get_input_embeddings()  # type: ignore[operator]
    places = {id(module): path for path, module in network.named_modules()}
    for name in coded:
        if paths[name] == places[id(table)] and head.weight is table.weight:
            yield name, places[id(head)]
        yield name, paths[name]
