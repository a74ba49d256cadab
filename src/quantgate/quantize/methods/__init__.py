"""Methods: one file per way of choosing codes. The grid says which numbers exist; a method says which of them to take.

    stats = LayerStats(hessian, tokens)                  # one per input: q, k and v share the same object
    jobs = [Job(weight, grid, options, name="model.layers.0.self_attn.q_proj"), ...]
    solved = get("gptq").solve_many(jobs, stats)         # one Solved per job, in order

A method's file ends with ``METHOD = ...``, an object with the three members of ``Method``. ``solve_many`` takes every
variant of every layer that reads one input, so that whatever they have in common is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field

from quantgate import plugins
from quantgate.errors import BadTensor
from quantgate.formats import Grid
from quantgate.records import Record

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from quantgate.quantize.methods._factor import Factor

Order = Literal["activation", "natural"]
SAMPLE = 256  # rows of an input that are kept


@dataclass(eq=False)
class LayerStats:
    """What the calibration set says about an input of ``in`` features; shared by every layer and variant reading it."""

    hessian: Tensor  # [in, in] float32, X^T X summed or averaged over the tokens: its scale does not matter
    tokens: int  # rows of X
    absmax: Tensor | None = None  # [in] the largest |x| of each feature
    sample: Tensor | None = None  # [rows, in] some of the rows of X, for what the Hessian cannot tell
    model: LayerStats | None = None  # of the model's own input, where this one is that of a variant's stream
    drift: Tensor | None = None  # [in, in] sum (x - x') x'^T in the Hessian's scale: x the model's input, x' this one
    wanted: Tensor | None = None  # [in, in] sum x x^T in the same scale, over the tokens of ``drift``
    _factors: dict[tuple[float, Order], Factor] = field(default_factory=dict, repr=False)
    _pulls: dict[float, Tensor] = field(default_factory=dict, repr=False)
    _checked: bool = field(default=False, repr=False)

    @classmethod
    def of(cls, inputs: Tensor) -> LayerStats:
        """Statistics of ``inputs`` [tokens, in]."""
        x = inputs.float()
        return cls(x.T @ x / max(len(x), 1), len(x), x.abs().amax(dim=0) if len(x) else None, x[:SAMPLE])

    def divided(self, scales: Tensor) -> LayerStats:
        """The statistics of the input divided by ``scales`` [in]."""
        return LayerStats(
            self.hessian / scales / scales[:, None],
            self.tokens,
            None if self.absmax is None else self.absmax / scales,
            None if self.sample is None else self.sample / scales,
        )

    def largest(self) -> Tensor:
        """[in] the largest |x| of each feature; without a record of it, the root mean square."""
        return self.hessian.diagonal().clamp(min=0).sqrt() if self.absmax is None else self.absmax

    def check(self, columns: int, name: str) -> None:
        """Raises BadTensor when the Hessian is not square, of another width than the layer, or holds NaN or Inf."""
        if tuple(self.hessian.shape) != (columns, columns):
            shape = list(self.hessian.shape)
            raise BadTensor(
                f"{name}: its calibration Hessian has shape {shape}, expected [{columns}, {columns}]; collect it again"
            )
        if not self._checked and not self.hessian.isfinite().all():
            raise BadTensor(
                f"{name}: its calibration Hessian holds NaN or Inf; activations overflowed, check the calibration set"
            )
        self._checked = True

    def factor(self, damping: float, order: Order) -> Factor:
        """The triangular factor that GPTQ spreads errors with, made once per damping and order."""
        from quantgate.quantize.methods._factor import factorise

        if (damping, order) not in self._factors:
            self._factors[damping, order] = factorise(self.hessian, damping, order)
        return self._factors[damping, order]

    def pull(self, ridge: float) -> Tensor:
        """What a drifted input asks of every weight that reads it (``_correction``), made once per ridge."""
        from quantgate.quantize.methods._correction import pull

        assert self.drift is not None  # the caller corrects only where a drift was measured
        if ridge not in self._pulls:
            self._pulls[ridge] = pull(self.hessian, self.drift, ridge)
        return self._pulls[ridge]

    def release(self) -> None:
        """Forget the factors: each takes as much memory as the Hessian."""
        self._factors.clear()
        self._pulls.clear()


OWN = ("propagated", "output_error")  # facts of layers that were solved on their variant's own stream


class Facts(Record):
    """What became of one weight: asked and got, and everything a gate may want to know about it."""

    asked: str  # the method that the recipe names
    method: str  # the method that chose the codes
    because: str = ""  # why the two differ
    error: float | None = Field(default=None, ge=0)  # tr(dW H dW^T) / tr(W H W^T); None without calibration
    clip: str = "minmax"  # how scales were chosen
    clipped: float = Field(default=0.0, ge=0, le=1)  # fraction of weights beyond the reach of their scale
    damping: float | None = None  # fraction of the Hessian's mean diagonal that was added to it in the end
    retries: tuple[float, ...] = ()  # dampings that were too small, tried before
    dead: int = 0  # input features that no calibration token used
    order: str | None = None  # in which order the columns were rounded
    descent: int | None = None  # passes of coordinate descent afterwards
    scaling: str = ""  # the channel scales that were folded into what makes the layer's input; none: ""
    scaling_gain: float | None = None  # estimated loss with them over the loss without
    propagated: str = ""  # what was propagated to the layer's input ("inputs", "corrected"); nothing: ""
    output_error: float | None = None  # |Q X' - W X|^2 / |W X|^2, X' the variant's own input; None unless corrected

    def body(self) -> dict[str, Any]:
        """Without what only propagated layers have, so that the records of all others stay what they were."""
        return {key: value for key, value in super().body().items() if key not in OWN or value}


@dataclass(frozen=True, eq=False)
class Solved:
    """Codes [out, in] (int8 or float8_e4m3fn), scales as the grid shapes them, zero points if asymmetric, the facts.

    Of a BlockGrid the scales are uint8, what a GGUF file has beside the codes; ``formats.ggml.pack`` needs no more.
    """

    grid: Grid
    codes: Tensor
    scales: Tensor
    zeros: Tensor | None
    facts: Facts

    def weight(self) -> Tensor:
        """float32 [out, in]: what a runtime computes with."""
        from quantgate.formats.codec import decode

        return decode(self.codes, self.grid, self.scales, self.zeros)


@dataclass(frozen=True, eq=False)
class Job:
    """One weight to be stored on one grid."""

    weight: Tensor  # [out, in]
    grid: Grid
    options: Any = None  # the method's Options, None for its defaults
    name: str = "weight"  # the layer, for error sentences
    scale_dtype: torch.dtype | None = None  # None: bfloat16
    least_scale: float = 0.0  # what the container can store; only integer grids ask for so little
    reach: float | None = None  # the largest magnitude of all weights that share NVFP4's global scale; None: this one's


class Method(Protocol):
    """How codes are chosen."""

    Options: type[Record]  # the keys a recipe may set; unknown ones are errors
    needs_stats: bool  # False: also works without a calibration set

    def solve_many(self, jobs: Sequence[Job], stats: LayerStats | None) -> list[Solved]:
        """One Solved per job. Raises BadTensor on NaN or Inf, FormatError when groups do not divide."""
        ...


def solve(method: Method, job: Job, stats: LayerStats | None) -> Solved:
    """One job alone."""
    return method.solve_many([job], stats)[0]


def names() -> tuple[str, ...]:
    return plugins.names("methods")


def get(name: str, *, where: str = "") -> Method:
    return plugins.get("methods", name, where=where)  # type: ignore[no-any-return]
