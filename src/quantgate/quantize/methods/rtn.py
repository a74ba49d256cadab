"""rtn: round every weight to its nearest code. No calibration needed; with one, the error is reported in its terms."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from quantgate.errors import FormatError
from quantgate.formats.codec import decode, encode
from quantgate.quantize.methods import Facts, Job, LayerStats, Solved
from quantgate.quantize.methods._factor import relative_error
from quantgate.quantize.methods._scales import Clip, checked_all, choose_scales, clipped_fraction
from quantgate.records import Record


class RtnOptions(Record):
    clip: Clip = "minmax"  # "mse" searches the clipping with the least squared error, "hessian" weighs it by column


class Rtn:
    """Round to nearest."""

    Options: type[Record] = RtnOptions
    needs_stats = False

    def solve_many(self, jobs: Sequence[Job], stats: LayerStats | None) -> list[Solved]:
        norms: dict[int, float] = {}
        return [_solve(job, weight, stats, norms) for job, weight in zip(jobs, checked_all(jobs), strict=True)]


def _solve(job: Job, weight: Tensor, stats: LayerStats | None, norms: dict[int, float]) -> Solved:
    options = job.options or RtnOptions()
    if stats is not None:
        stats.check(weight.shape[1], job.name)
    elif options.clip == "hessian":
        raise FormatError(f"{job.name}: clip 'hessian' needs a calibration set; give one, or choose 'mse'")
    scales, zeros, clip = choose_scales(job, weight, options.clip, stats)
    codes = encode(weight, job.grid, scales, zeros)
    error = None
    if stats is not None:
        error = relative_error(weight, decode(codes, job.grid, scales, zeros), stats, norms)
    facts = Facts(
        asked="rtn",
        method="rtn",
        error=error,
        clip=clip,
        clipped=clipped_fraction(weight, job.grid, scales, zeros),
    )
    return Solved(job.grid, codes, scales, zeros, facts)


METHOD = Rtn()
