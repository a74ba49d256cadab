"""The triangular factor of the damped Hessian, and the relative error that it is all about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from quantgate.quantize.methods import LayerStats, Order

STRIPE = 256  # rows of the coupling that are made together
LADDER = 3  # how often damping is raised tenfold before giving up
FIRST_RUNG = 1e-3  # where the ladder starts when no damping was asked for


@dataclass(frozen=True, eq=False)
class Factor:
    """How the error of one column is spread over those that are still to be rounded.

    With U the upper Cholesky factor of the inverse Hessian (H^-1 = U^T U), GPTQ subtracts ``error_i * U_ij / U_ii``
    from column j > i (Frantar et al. 2022, "GPTQ", section 3.3, step 3). ``coupling`` holds ``-U_ij / U_ii`` at [j, i],
    so that what column j receives is one row times all earlier errors.
    """

    order: Tensor  # [in] which column is rounded 1st, 2nd, ...
    coupling: Tensor | None  # [in, in] float32, strictly lower; None when no damping on the ladder was enough
    damping: float  # the fraction of the mean diagonal that was added in the end
    ridge: float  # the same as a number on the diagonal
    retries: tuple[float, ...]  # fractions that were too small
    dead: int  # columns with a zero on the diagonal
    left: Tensor | None = (
        None  # [in] float32, 1 / (H^-1)_jj: what an error in a column costs if all others make up for it
    )


def factorise(hessian: Tensor, damping: float, order: Order) -> Factor:
    """Factor of ``hessian`` [in, in] plus ``damping`` times the mean of its diagonal, columns in the given order.

    Works in float64: at 1 % damping the condition number may pass 10^5, and float32 loses the small eigenvalues.
    Instead of inverting and factoring again, the Hessian is factored from its last column backwards, H = R R^T with R
    upper triangular; then H^-1 = R^-T R^-1 and U = R^-1 is a triangular inverse. A dead column gets the mean diagonal:
    it is coupled to nothing and simply rounded.
    """
    diagonal = hessian.diagonal().double()
    dead = diagonal <= 0
    mean = float(diagonal.mean()) if not bool(dead.all()) else 1.0
    by_weight = order == "activation"
    columns = (
        diagonal.argsort(descending=True, stable=True)
        if by_weight
        else torch.arange(len(diagonal), device=hessian.device)
    )
    backwards = columns.flip(0)
    lift, diagonal = torch.where(dead, mean, 0.0)[backwards], diagonal[backwards]
    retries: list[float] = []
    fraction = damping
    for _ in range(LADDER + 1):
        damped = hessian[backwards][:, backwards].double()
        damped.diagonal().copy_(diagonal + (lift + fraction * mean))
        lower, failed = torch.linalg.cholesky_ex(damped)
        del damped  # float64 matrices are what a solve holds most of: two at a time
        if not bool(failed):
            coupling, left = _coupling(lower)
            if bool(coupling.isfinite().all()):
                left = torch.empty_like(left).index_copy_(0, backwards, left)
                return Factor(columns, coupling, fraction, fraction * mean, tuple(retries), int(dead.sum()), left)
        retries.append(fraction)
        fraction = fraction * 10 if fraction > 0 else FIRST_RUNG
    return Factor(columns, None, retries[-1], retries[-1] * mean, tuple(retries), int(dead.sum()))


def _coupling(lower: Tensor) -> tuple[Tensor, Tensor]:
    """``-U_ij / U_ii`` at [j, i], float32, from the lower Cholesky factor of the reversed Hessian.

    And 1 / (H^-1)_jj, float32 in the reversed order: a column's sum of U_ij^2 is the diagonal of H^-1 = U^T U.
    """
    inverse = torch.eye(len(lower), dtype=lower.dtype, device=lower.device).T  # by columns, as LAPACK wants it
    torch.linalg.solve_triangular(lower, inverse, upper=False, out=inverse)
    left = torch.linalg.vector_norm(inverse, dim=0).pow(-2).float()
    # flipped, the lower inverse is U; transposed, [j, i] is U_ij; a column over its diagonal is U_ij / U_ii
    count, diagonal = len(inverse), inverse.diagonal().flip(0)
    coupling = torch.empty(count, count, device=lower.device)
    for start in range(0, count, STRIPE):
        stop = min(start + STRIPE, count)
        spread = inverse[:, count - stop : count - start].flip(0, 1).T
        coupling[start:stop] = (-spread / diagonal).float()
    return coupling.tril_(-1), left


def relative_error(weight: Tensor, stored: Tensor, stats: LayerStats, norms: dict[int, float]) -> float | None:
    """tr(dW H dW^T) / tr(W H W^T) with dW = stored - weight [out, in]; None when the layer's output is all zero.

    ``norms`` remembers the denominator of each weight by its identity, so that its variants share it.
    """
    if id(weight) not in norms:
        norms[id(weight)] = _norm(weight, stats.hessian)
    whole = norms[id(weight)]
    return _norm(stored - weight, stats.hessian) / whole if whole > 0 else None


def _norm(weight: Tensor, hessian: Tensor) -> float:
    """tr(W H W^T): the mean (or summed) square of the layer's output over the calibration tokens, over all channels."""
    return float((weight @ hessian).mul_(weight).sum(dtype=torch.float64).clamp(min=0))
