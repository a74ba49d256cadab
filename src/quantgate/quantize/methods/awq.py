"""awq: columns that meet large activations are scaled up before rounding, so that their relative error shrinks.

Activation-aware weight quantization (Lin et al. 2023, arXiv 2306.00978, section 3.2) scales column j by the size of its
activations to a power, ``s_j = |x_j|^a``, and finds ``a`` by trying. Here the loss of a try is exact and cheap,
tr(dW H dW^T) over all layers that read the input, and a second family also divides by the column's own size,
``|x_j|^a / |w_j|^(1-a)``. The sweep folds the scales into what makes the input; without a fold the layer is rounded
as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from quantgate.quantize.methods import LayerStats
from quantgate.quantize.methods._scaling import Family, ScalingMethod, column_size


class Awq(ScalingMethod):
    """Activation-aware scaling, then rounding."""

    name = "awq"

    def families(self, stats: LayerStats, weights: Sequence[Tensor]) -> Mapping[str, Family]:
        x, w = stats.hessian.diagonal().clamp(min=0).sqrt(), column_size(weights, "rms")
        return {"x^a": lambda a: x**a, "x^a / w^(1-a)": lambda a: x**a / w ** (1 - a)}


METHOD = Awq()
