"""Quantize: a model, calibration samples and recipes become one artifact per recipe, all in one walk over the model.

from quantgate.quantize.sweep import sweep

artifacts = sweep(model, samples, [Recipe(scheme="W4A16"), Recipe(scheme="W8A8")], "artifacts")
artifact = open_artifact("artifacts/W4A16")
artifact.manifest.fates                       # what became of every tensor
artifact.linear(artifact.quantized[0]).codes  # what low-bit kernels run on
load_dequantized(artifact)                    # a plain transformers model with the same numbers

methods/      how codes are chosen, one file each
checkpoints/  how they are stored, one file each
foreign/      artifacts that other programs made
"""

from quantgate.quantize.artifact import Artifact, baseline, open_artifact
from quantgate.quantize.load import load_dequantized
from quantgate.quantize.manifest import (
    ALWAYS_KEPT,
    BASELINE,
    Calibration,
    Fate,
    Manifest,
    ModelIdentity,
    Note,
    Recipe,
    StoredFile,
)

__all__ = [
    "ALWAYS_KEPT",
    "BASELINE",
    "Artifact",
    "Calibration",
    "Fate",
    "Manifest",
    "ModelIdentity",
    "Note",
    "Recipe",
    "StoredFile",
    "baseline",
    "load_dequantized",
    "open_artifact",
]
