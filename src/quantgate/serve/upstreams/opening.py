"""Whatever a variant is kept as, opened as an engine of this process: ours, another program's, a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantgate import plugins
from quantgate.models import OpenedModel


def open_engine(model: OpenedModel, place: str, name: str = "", **settings: Any) -> Any:
    """An engine that ``LocalUpstream`` can run; ``place`` "" is the baseline itself. ``settings`` are the engine's.

    A GGUF file runs in llama.cpp, all else in torch. Raises ArtifactError, ModelError, EngineError, MissingExtra.
    """
    from quantgate.quantize import baseline, open_artifact

    if place.lower().endswith(".gguf"):
        engine = plugins.get("engines", "llamacpp")  # says which extra is missing before a file is read
        from quantgate.quantize.foreign.gguf import open_gguf_artifact

        return engine(model, open_gguf_artifact(place, model, name), **settings)
    if not place:
        return plugins.get("engines", "torch")(model, baseline(model), **settings)
    if (Path(place) / "manifest.json").is_file():
        found = open_artifact(Path(place))
    else:
        from quantgate.quantize.foreign import open_foreign

        found = open_foreign(Path(place), model, name)
    runs = "llamacpp" if found.manifest.checkpoint == "gguf" else "torch"
    return plugins.get("engines", runs)(model, found, **settings)
