"""One judge for all: our loader opens every artifact, in float32, and mean KL is taken on the same positions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from benchmarks.peers.inputs import Subject
from quantgate.engines.torch import TorchEngine
from quantgate.evaluate.drift import joined, positions, summarize
from quantgate.evaluate.drift_record import Drift
from quantgate.formats import IntGrid
from quantgate.models import OpenedModel, open_model
from quantgate.pipeline.variants import open_variant
from quantgate.quantize import Artifact, baseline
from quantgate.quantize.load import round_input
from quantgate.quantize.mix import linears

INPUTS8 = IntGrid(bits=8, strategy="token")


class Judge:
    """Holds the baseline's logits at the judged positions of one subject, float32 [positions, vocabulary]."""

    def __init__(self, subject: Subject) -> None:
        self.model = subject.model
        engine = engine_of(self.model, baseline(self.model))
        self.batches = subject.held_out(engine)
        self.logits = [engine.logits(ids, at) for ids, at in self.batches]

    @property
    def tokens(self) -> int:
        return sum(len(one) for one in self.logits)

    def drift(self, engine: TorchEngine) -> Drift:
        """Raises EngineError for logits that are not finite."""
        seen = []
        for (ids, at), base in zip(self.batches, self.logits, strict=True):
            seen.append(positions(base, engine.logits(ids, at), _next(ids, at)))
        return summarize(joined(seen))

    def artifact(self, folder: Path) -> tuple[Drift, float]:
        """Drift, and stored bits a weight, of an artifact of ours or of another program.

        Raises ArtifactError, ModelError and UsageError when it cannot be read or belongs to another baseline.
        """
        artifact = open_variant(str(folder), self.model)
        return self.drift(engine_of(self.model, artifact)), bits_of(self.model, artifact)

    def plain(self, folder: Path, *, inputs8: bool) -> Drift:
        """Drift of a folder of dequantized weights; ``inputs8``: its linear layers see int8 inputs, a scale a token."""
        model = open_model(folder)
        engine = engine_of(model, baseline(model))
        for layer in (layer for group in linears(model) if inputs8 for layer in group):
            round_input(engine.network.get_submodule(layer), INPUTS8)
        return self.drift(engine)


def engine_of(model: OpenedModel, artifact: Artifact) -> TorchEngine:
    return TorchEngine(model, artifact, dtype="float32", kernels="dequantize", device="cpu")


def bits_of(model: OpenedModel, artifact: Artifact) -> float:
    """Stored bits a weight over all linear layers of the blocks, those that were kept included."""
    return bits_of_layers(artifact, [layer for group in linears(model) for layer in group])


def bits_of_layers(artifact: Artifact, layers: Sequence[str]) -> float:
    fates = {fate.name: fate for fate in artifact.manifest.fates}
    return 8 * sum(fates[one].bytes for one in layers) / sum(fates[one].weights for one in layers)


def _next(ids: Tensor, at: Tensor) -> Tensor:
    return ids.roll(-1, dims=1)[at]
