"""One device, or several through accelerate: every process takes its share of a step's batches, gradients are summed.

A launcher says that there are several: ``accelerate launch`` for GPUs, ``torchrun --nproc_per_node 2`` for CPUs too
(``accelerate launch --cpu`` starts one process unless MPI is there). Each process runs the same command; only the
first of them writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from quantgate.errors import MissingExtra
from quantgate.train.launch import launched, told


class Devices(Protocol):
    """The processes of a run; ``sums`` adds up over them in place, and gives each of them the same bits."""

    rank: int
    count: int
    device: torch.device | None  # this process's own; None: as one chooses

    def sums(self, tensors: Sequence[Tensor]) -> None: ...

    def wait(self) -> None: ...

    def main_first(self) -> Any: ...


class Alone:
    """One process."""

    rank, count = 0, 1
    device: torch.device | None = None

    def sums(self, tensors: Sequence[Tensor]) -> None:
        pass

    def wait(self) -> None:
        pass

    @contextmanager
    def main_first(self) -> Iterator[None]:
        yield


class Launched:
    """Several processes, started by accelerate's launcher or torch's."""

    def __init__(self) -> None:
        try:
            from accelerate import PartialState
        except ImportError:
            raise MissingExtra(
                "training on several devices needs the package 'accelerate', which is not installed; "
                "pip install 'quantgate[train]', or start one process"
            ) from None
        self._state = PartialState(cpu=not torch.cuda.is_available() or told("ACCELERATE_USE_CPU") == "true")
        self.device: torch.device | None = self._state.device
        self.rank, self.count = int(self._state.process_index), int(self._state.num_processes)

    def sums(self, tensors: Sequence[Tensor]) -> None:
        """One message for all tensors of a type."""
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            mine = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in mine])
            torch.distributed.all_reduce(flat)
            for tensor, part in zip(mine, flat.split([tensor.numel() for tensor in mine]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def wait(self) -> None:
        self._state.wait_for_everyone()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        with self._state.main_process_first():
            yield


def here() -> Devices:
    """The processes that this one belongs to. Raises MissingExtra where there are several and no accelerate."""
    return Launched() if launched() else Alone()
