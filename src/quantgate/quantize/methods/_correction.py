"""The weight that a layer should have had, given that its input is no longer the model's.

Before a layer whose input has drifted from x to x', |Q X' - W X|^2 is least, over all matrices and not only those on a
grid, at Q = W C H'^-1 with C = sum x x'^T and H' = sum x' x'^T; and the loss of any Q is that of the optimum plus
tr((Q - Q*) H' (Q - Q*)^T). So rounding Q* under H' is the whole problem, and any solver of the plain one solves it.
Source: Li et al. 2025, "GPTAQ: Efficient Finetuning-Free Quantization for Asymmetric Calibration" (arXiv 2504.02692),
section 3, whose objective this is; the paper corrects column by column within the solver, here it is solved at once.

With D = C - H' = sum (x - x') x'^T the same optimum is W + W D H'^-1, which needs no difference of large numbers, and
a ridge on H' pulls it back to W instead of to 0: it is the optimum of |Q X' - W X|^2 + ridge |Q - W|^2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from quantgate.quantize.methods import LayerStats


def pull(hessian: Tensor, drift: Tensor, ridge: float) -> Tensor:
    """D (H' + ridge I)^-1 [in, in] in float32, from H' and D [in, in]; features that were never used pull nothing.

    Works in float64, as the factor does. Raises RuntimeError when H' + ridge I is not positive definite.
    """
    work = hessian.double()
    unused = work.diagonal() <= 0
    work.diagonal().add_(torch.where(unused, 1.0, 0.0) + ridge)
    return torch.cholesky_solve(drift.double().T, torch.linalg.cholesky(work)).T.float()


def corrected(weight: Tensor, stats: LayerStats, share: float, ridge: float) -> Tensor:
    """``weight`` [out, in] moved ``share`` of the way to the optimum; itself where nothing is known of a drift."""
    if stats.drift is None or share == 0:
        return weight
    return torch.addmm(weight, weight, stats.pull(ridge), alpha=share)


def output_error(weight: Tensor, stored: Tensor, stats: LayerStats) -> float | None:
    """|Q X' - W X|^2 / |W X|^2 for ``stored`` Q and ``weight`` W [out, in]; None without both inputs' statistics.

    An expert has none: the model's router sent it other tokens than the variant's.
    """
    if stats.wanted is None or stats.drift is None:
        return None
    own, shared = stats.hessian.double(), stats.wanted.double()
    crossed = own + stats.drift.double()  # C / n
    q, w = stored.double(), weight.double()
    whole = float(((w @ shared) * w).sum())
    lost = float(((q @ own) * q).sum()) - 2 * float(((w @ crossed) * q).sum()) + whole
    return max(lost, 0.0) / whole if whole > 0 else None
