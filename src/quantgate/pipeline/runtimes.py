"""Which engine runs a variant; one that is not ours is proven before it is asked anything."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate import plugins
from quantgate.errors import EngineError, RecordError, UnknownName, UsageError
from quantgate.models import OpenedModel
from quantgate.variant_config import RuntimeConfig

if TYPE_CHECKING:
    from quantgate.engines import Engine
    from quantgate.quantize import Artifact

TORCH, LLAMACPP = "torch", "llamacpp"
ENGINES = (TORCH, LLAMACPP)
PLAIN_CACHE = "f16"  # the engine's own


def engine_for(
    model: OpenedModel, artifact: Artifact, name: str, out: Path, runtime: RuntimeConfig | None = None
) -> tuple[Engine, str]:
    """The engine ``name`` on an artifact, and its proof in a sentence ("" for torch, which is the reference itself).

    ``runtime`` sets llama.cpp; a file with a coarse KV cache is proven with a plain one first. A proof is kept in
    ``out`` under the digests of both sides. Raises EngineError when the runtime does not compute what the artifact
    says, UsageError for an artifact that it does not run and for settings of another engine, ArtifactError for a draft
    that is none, MissingExtra.
    """
    if name not in ENGINES:
        raise UnknownName("engine", name, ENGINES)
    settings = (runtime or RuntimeConfig()).settings(name)
    if name == TORCH:
        return plugins.get("engines", TORCH)(model, artifact, **settings), ""
    from quantgate.evaluate.gguf_reference import COARSE
    from quantgate.quantize.gguf.artifact import GgufArtifact

    if not isinstance(artifact, GgufArtifact):
        raise UsageError(f"{artifact.name}: llama.cpp runs GGUF files, and this is none; leave 'engine' out")
    engine = plugins.get("engines", LLAMACPP)(model, artifact, **settings)
    if settings["kv_cache"].upper() in COARSE:  # whose logits prove little beside the cache: the rest is proven without
        _proven(model, artifact, plugins.get("engines", LLAMACPP)(model, artifact), out, PLAIN_CACHE)
    sentence = _proven(model, artifact, engine, out, settings["kv_cache"])
    drafts = (
        f"; {settings['draft_tokens']} tokens at a time drafted by {settings['draft']}" if settings["draft"] else ""
    )
    return engine, sentence + drafts


def runtime_of(name: str, runtime: RuntimeConfig | None) -> tuple[str, ...]:
    """Engine and settings in words, as evidence keeps them: "engine=llamacpp", "kv_cache=q8_0"."""
    changed = runtime.changed if runtime else {}
    return (f"engine={name}", *(f"{setting}={value}" for setting, value in changed.items()))


def check_drafts(model: OpenedModel, runtimes: Iterable[RuntimeConfig | None]) -> None:
    """Before anything slow: raises ArtifactError for a draft that is no GGUF file, or of another vocabulary."""
    drafts = {one.draft for one in runtimes if one is not None and one.draft is not None}
    if not drafts:
        return
    from quantgate.quantize.gguf import layout_of
    from quantgate.quantize.gguf.drafts import check_draft

    tokens = layout_of(model).metadata["tokenizer.ggml.tokens"][1]
    for draft in sorted(drafts):
        check_draft(draft, tokens, model.ref)


def _proven(model: OpenedModel, artifact: Artifact, engine: Engine, out: Path, kv_cache: str) -> str:
    from quantgate.evaluate.gguf_reference import GgufReference
    from quantgate.evaluate.proof import Proof, prove

    reference = GgufReference(model, artifact, kv_cache)  # type: ignore[arg-type]
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
