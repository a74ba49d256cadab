"""``torch.compile`` for the parts of a network that see whole batches of numbers and nothing else: MLPs and norms.

Attention is left to torch's own kernels: its cache moves by Python numbers, and a graph for every place in it would be
compiled anew until torch gives up and runs what it was given. Shapes are dynamic, so one graph serves every batch.
Compiled code sums in another order than torch's kernels do, so it is part of what an engine is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from quantgate.errors import EngineError

BACKEND = "inductor"


def compile_blocks(network: Any) -> int:
    """Compile the parts of every block that are no attention, in place; how many modules were.

    One short run compiles them, so what cannot be compiled is told now. Raises EngineError: no C++ compiler, experts
    (whose routing no one graph holds).
    """
    layers = next(
        one
        for one in network.modules()
        if isinstance(one, nn.ModuleList) and len(one) == network.config.num_hidden_layers
    )
    parts = [one for block in layers for one in _parts(block)]
    try:
        for part in parts:
            part.compile(backend=BACKEND, dynamic=True)
        with torch.inference_mode():
            network(input_ids=torch.zeros(2, 3, dtype=torch.long, device=network.device), use_cache=False)
    except Exception as problem:  # torch raises whatever its compiler's backend does
        if not type(problem).__module__.startswith("torch._"):
            raise
        first = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise EngineError(
            f"compile: torch.compile cannot build this model here ({first[:160]}); install a C++ compiler "
            "(Debian and Ubuntu: apt-get install g++), or leave 'compile' out"
        ) from None
    return len(parts)


def _parts(block: nn.Module) -> list[nn.Module]:
    """The children of a block that have weights and are no attention."""
    found = [
        child
        for child in block.children()
        if "Attention" not in type(child).__name__ and any(True for _ in child.state_dict())
    ]
    if any(hasattr(inner, "experts") for child in found for inner in child.modules()):
        raise EngineError("compile: experts route tokens one by one, which no one graph holds; leave 'compile' out")
    return found
