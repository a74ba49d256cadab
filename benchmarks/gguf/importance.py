"""What llama.cpp calls an importance matrix: the mean of every input's square, of our own statistics.

It is the diagonal of H = X^T X / n. ``llama-imatrix`` sums the same squares while llama.cpp runs the text; it leaves
the output layer out unless told ``--process-output``, and here it is in, which can only help llama.cpp. The rows of
queries and keys stand in another order in a file, but importance belongs to columns.
Source: llama.cpp tools/imatrix/imatrix.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quantgate.models import OpenedModel
from quantgate.quantize.gguf import layout_of
from quantgate.quantize.statistics import Batch, Statistics, batches
from quantgate.quantize.sweep import BATCH_TOKENS


@torch.no_grad()
def importance_of(model: OpenedModel, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Float32 [columns] of every matrix but a table that is only looked up, by the file's tensor names.

    Raises DataError for rows that the model cannot take, BadTensor for activations that are not finite.
    """
    places = layout_of(model).places
    cut = batches(rows, int(model.config.vocab_size), model.context, BATCH_TOKENS)
    hidden = model.embed([batch.ids for batch in cut])
    found: dict[str, Tensor] = {}
    for index in range(model.depth):
        groups = model.linears(index)
        with model.block(index, torch.device("cpu")) as block:
            statistics = Statistics(block, groups)
            hidden = [statistics.forward(one, batch) for one, batch in zip(hidden, cut, strict=True)]
            statistics.close()
        for group in groups:
            squares = statistics.take(group[0]).hessian.diagonal().clone()
            found |= {places[f"{layer}.weight"].name: squares for layer in group}
    read = model.walker.table if model.tied else model.walker.head
    return found | {places[f"{read}.weight"].name: _of_output(model, hidden, cut)}


def _of_output(model: OpenedModel, hidden: Sequence[Tensor], cut: Sequence[Batch]) -> Tensor:
    """Of what the output layer is given: the final norm's output at all real tokens."""
    squares, tokens = torch.zeros(int(model.config.hidden_size)), 0
    for batch, given in zip(cut, model.walker.finished(hidden), strict=True):
        rows = given[batch.real].float()
        squares += rows.square().sum(dim=0)
        tokens += len(rows)
    return squares / tokens
