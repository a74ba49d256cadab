"""smoothquant: outliers of the activations are moved into the weights, where one scale per row still holds them.

SmoothQuant (Xiao et al. 2022, arXiv 2211.10438, equation 4): ``s_j = max|x_j|^a / max|w_j|^(1-a)``. The exponent, 0.5
in the paper, is found for each input on the calibration set: the error of rounded weights plus that of rounded
activations on a sample of tokens. The sweep folds the scales into what makes the input; without a fold the layer is
rounded as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from quantgate.quantize.methods import LayerStats
from quantgate.quantize.methods._scaling import Family, ScalingMethod, column_size


class SmoothQuant(ScalingMethod):
    """Smoothing, then rounding."""

    name = "smoothquant"

    def families(self, stats: LayerStats, weights: Sequence[Tensor]) -> Mapping[str, Family]:
        x, w = stats.largest(), column_size(weights, "max")
        return {"max|x|^a / max|w|^(1-a)": lambda a: x**a / w ** (1 - a)}


METHOD = SmoothQuant()
