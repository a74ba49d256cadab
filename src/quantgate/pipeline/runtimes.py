"""Which engine runs a variant; one that is not ours is proven before it is asked anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from quantgate import plugins
from quantgate.errors import EngineError, RecordError, UnknownName, UsageError
from quantgate.models import OpenedModel

if TYPE_CHECKING:
    from quantgate.engines import Engine
    from quantgate.quantize import Artifact

TORCH, LLAMACPP = "torch", "llamacpp"
ENGINES = (TORCH, LLAMACPP)


def engine_for(model: OpenedModel, artifact: Artifact, name: str, out: Path) -> tuple[Engine, str]:
    """The engine ``name`` on an artifact, and its proof in a sentence ("" for torch, which is the reference itself).

    A proof is kept in ``out`` under the digests of both sides. Raises EngineError when the runtime does not compute
    what the artifact says, UsageError for an artifact that it does not run, MissingExtra.
    """
    if name not in ENGINES:
        raise UnknownName("engine", name, ENGINES)
    if name == TORCH:
        return plugins.get("engines", TORCH)(model, artifact), ""
    from quantgate.quantize.gguf.artifact import GgufArtifact

    if not isinstance(artifact, GgufArtifact):
        raise UsageError(f"{artifact.name}: llama.cpp runs GGUF files, and this is none; leave 'engine' out")
    engine = plugins.get("engines", LLAMACPP)(model, artifact)
    return engine, _proven(model, artifact, engine, out)


def _proven(model: OpenedModel, artifact: Artifact, engine: Engine, out: Path) -> str:
    from quantgate.evaluate.gguf_reference import GgufReference
    from quantgate.evaluate.proof import Proof, prove

    reference = GgufReference(model, artifact)  # type: ignore[arg-type]
    path = out / "proofs" / f"{engine.identity.key[7:23]}-{reference.identity.key[7:23]}.json"
    found: Proof | None = None
    if path.exists():
        try:
            found = Proof.load(path)
        except RecordError:
            path.unlink()  # an older version wrote it
    if found is None:
        found = prove(engine, reference)  # type: ignore[arg-type]
        found.save(path)
    if not found.passed:
        raise EngineError(f"{artifact.path}: {found.sentence}; make the file again, or judge it with engine torch")
    return found.sentence
