"""What a sweep will take, told before it starts: bytes on disk, the peak of memory, and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantgate.models import OpenedModel
from quantgate.quantize import machine
from quantgate.quantize.duration import Duration, duration
from quantgate.quantize.footprint import Footprint, footprint
from quantgate.quantize.manifest import Recipe
from quantgate.quantize.predict import Predicted, predict
from quantgate.quantize.workload import Tokens, workload


@dataclass(frozen=True)
class Forecast:
    variants: tuple[Predicted, ...]  # disk, to the byte
    memory: Footprint
    time: Duration
    tokens: Tokens
    free: int | None  # bytes of memory that other programs leave now; None where the system does not tell

    @property
    def disk(self) -> int:
        return sum(one.tensor_bytes for one in self.variants)

    @property
    def fits(self) -> bool:
        """Whether the machine has the memory; what the process holds already is not asked for again."""
        return self.free is None or self.memory.peak - self.memory.process <= self.free


def forecast(model: OpenedModel, recipes: Sequence[Recipe], samples: Sequence[Sequence[int]] | None) -> Forecast:
    """What ``sweep(model, samples, recipes)`` would take in this process, on this machine, at this moment.

    Measures the machine for about a second. Raises what the sweep would raise before anything slow.
    """
    work = workload(model, recipes, samples)
    rates = machine.measure()
    found = predict(model, recipes, calibrated=samples is not None)
    return Forecast(
        variants=tuple(found),
        memory=footprint(work, machine.resident()),
        time=duration(work, rates),
        tokens=work.tokens,
        free=machine.free(),
    )
