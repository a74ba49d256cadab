"""Why a model is hard to quantize: what ``quantgate inspect`` computes. Nothing is judged here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate.errors import Stopped, UsageError
from quantgate.evaluate import suites
from quantgate.models import OpenedModel, open_model
from quantgate.pipeline import probing
from quantgate.pipeline.cases import calibration_of
from quantgate.pipeline.lock import alone_in
from quantgate.pipeline.quantize_only import short_variant
from quantgate.pipeline.two_models import Progress
from quantgate.pipeline.variants import recipes_of
from quantgate.quantize.mix import unforeseen
from quantgate.records import parse
from quantgate.release_config import ReleaseConfig
from quantgate.report.inspections import Inspection, LayerView

if TYPE_CHECKING:
    from quantgate.quantize import Artifact
    from quantgate.quantize.depth import InputShape
    from quantgate.quantize.sensitivity import Sensitivity

DEPTH_SAMPLES = 16  # calibration samples that the second walk is given


def inspect(
    model: str,
    variants: Sequence[str],
    *,
    out: Path | str = Path("inspection"),
    capabilities: Sequence[str] = (),
    traffic: Path | str | None = None,
    samples: int = 64,
    max_tokens: int = 512,
    seed: int = 0,
    progress: Progress | None = None,
) -> Inspection:
    """Outliers of every input, output errors, their growth with depth, and what each layer does to each capability.

    ``variants`` are short forms such as ``W4A16:gptq``; ``capabilities`` are built-in suites (default: all) or JSONL
    files. Writes inspection.json and inspection.html to ``out``, beside the artifacts. Raises what ``quantize`` raises.
    """
    calibration = {"samples": samples, "max_tokens": max_tokens, "seed": seed}
    data = {
        "model": model,
        "variants": [short_variant(one) for one in variants],
        "capabilities": _named(capabilities),
        "calibration": calibration | ({} if traffic is None else {"traffic": str(traffic)}),
    }
    config = parse(ReleaseConfig, data, where="inspect")
    opened, folder = open_model(model), Path(out)
    try:
        with alone_in(folder):
            found = _inspect(config, opened, folder, progress or (lambda *_: None))
    except KeyboardInterrupt:
        raise Stopped(f"stopped; what is finished is kept in {folder}, and the same command goes on from it") from None
    _write(found, folder)
    return found


def _named(capabilities: Sequence[str]) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for one in capabilities or suites.names():
        name = Path(one).stem if one.endswith(".jsonl") else one
        if name in found:
            raise UsageError(f"inspect: '{name}' is named twice; keep one, or rename the file")
        found[name] = {"suite": one, "cases": 1} if one.endswith(".jsonl") else {}
    return found


def _inspect(config: ReleaseConfig, model: OpenedModel, out: Path, progress: Progress) -> Inspection:
    from quantgate.engines.torch import open_engine
    from quantgate.evaluate.answers import Answers
    from quantgate.evaluate.compare import Side
    from quantgate.quantize import baseline
    from quantgate.quantize.depth import walk
    from quantgate.quantize.statistics import batches
    from quantgate.quantize.sweep import BATCH_TOKENS, sweep

    probing.check(config)
    recipes, chosen = recipes_of(config.variants), calibration_of(config, model)

    def tell(stage: str, done: int, total: int) -> None:
        progress("quantize", done, total, stage)

    made = sweep(model, chosen.ids, recipes, out / "artifacts", progress=tell, seed=config.calibration.seed)
    some = batches(chosen.ids[:DEPTH_SAMPLES], int(model.config.vocab_size), model.context, BATCH_TOKENS)
    shapes, growth = walk(model, made, some, lambda done, total: progress("walking the blocks", done, total, ""))
    engine = open_engine(model, baseline(model))
    base = Side(engine, Answers(out / "answers", engine.identity))
    sources = {one.name: one for one in made if not unforeseen(one)}
    if not sources:
        raise UsageError(
            "inspect: every variant is rotated or has channel scales folded in; name one without, such as W4A16:gptq"
        )
    found = probing.probe(config, model, sources, base, out, progress)
    return Inspection(
        model=config.model,
        weights=model.weights_digest,
        variants=tuple(one.name for one in made),
        labels=tuple(_label(one) for one in made),
        capabilities=tuple(config.capabilities),
        layers=tuple(_view(shape, made, found, at) for at, shape in enumerate(shapes)),
        growth=tuple(growth),
        answer_tokens=found.tokens,
    )


def _label(artifact: Artifact) -> str:
    """The scheme, and what of it the foreseen drift leaves out."""
    if reason := unforeseen(artifact):
        return f"{artifact.label}: {reason}, so no drift is foreseen"
    left_out = ["activations"] * artifact.rounds_inputs + ["the KV cache"] * (artifact.manifest.kv_cache is not None)
    return f"{artifact.label}: rounded weights alone, without {' and '.join(left_out)}" if left_out else artifact.label


def _view(shape: InputShape, made: Sequence[Artifact], found: Sensitivity, at: int) -> LayerView:
    errors = dict[str, float | None]()
    for artifact in made:
        name = artifact.name
        fates = [fate for fate in artifact.manifest.fates if fate.name in shape.layers and fate.error is not None]
        energies = [fate.error for fate in fates if fate.error is not None]
        errors[name] = max(energies) if energies else None
    drift = {
        name: {capability: float(found.kl(capability)[at, column]) for capability in found.moves}
        for column, name in enumerate(found.sources)
    }
    return LayerView(shape=shape, error=errors, drift=drift)


def _write(found: Inspection, out: Path) -> None:
    from quantgate.records import write_whole
    from quantgate.report.inspections import inspection_page

    found.save(out / "inspection.json")
    write_whole(out / "inspection.html", inspection_page(found).encode())
