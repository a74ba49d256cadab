"""Put an artifact together from layers of others: no weight is quantized anew, bytes are copied as they were solved.

    mix(model, {"W3A16": small, "W8A16": large}, {"model.layers.0.mlp.down_proj": "W8A16", ...}, Path("W3A16-mixed"))

Layers that read one input (q/k/v, gate/up) are fused by runtimes, so they come from one source. The name ``BF16`` is
that of the model itself. Sources that are rotated, or have channel scales folded in (AWQ, SmoothQuant), can be mixed
with nothing, since their layers expect another input. A layer that was solved on its variant's own stream
(``propagate``) is lent as the tensor that it is: its correction was made for the blocks that stood before it there, and
its fate goes on to say so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantgate.errors import ArtifactError, FormatError, RecordError, UsageError, hint
from quantgate.formats import Scheme
from quantgate.models import OpenedModel
from quantgate.models.tensors import Entry
from quantgate.quantize.artifact import Artifact, identity, kept, open_artifact
from quantgate.quantize.checkpoints.compressed_tensors import CHECKPOINT
from quantgate.quantize.gguf.artifact import GgufArtifact
from quantgate.quantize.gguf.mixed import write_mixture
from quantgate.quantize.journal import refuse_strangers
from quantgate.quantize.manifest import BASELINE, CONTAINER, GGUF, MIXED, Fate, Note, Recipe, tool_version
from quantgate.quantize.publish import write_artifact
from quantgate.records import digest_of, folder_aside

Choice = Mapping[str, str]  # linear layer -> the source it comes from


def mix(
    model: OpenedModel, sources: Mapping[str, Artifact], choice: Choice, out: Path, *, because: Mapping[str, str] = {}
) -> Artifact:
    """The artifact ``out``, whose every linear layer comes from the source that ``choice`` names.

    One that is there already, whole and made of the same parts, is taken as it is. ``because`` says for some layers why
    theirs was chosen; it goes into their fates.

    Raises UsageError for a choice that leaves out a layer, names another or an unknown source, or parts fused layers;
    FormatError for sources that cannot be mixed.
    """
    _check_choice(model, sources, choice)
    used = {name: sources[name] for name in sorted(set(choice.values())) if name != BASELINE}
    for name, source in used.items():
        _check_source(model, name, source)
    parts = {name: source.manifest.digest for name, source in used.items()}
    inputs = digest_of([tool_version(), identity(model).body(), parts, sorted(choice.items()), sorted(because.items())])
    if (made := _ready(out, inputs)) is not None:
        return made
    if len(containers := {source.manifest.checkpoint for source in used.values()}) > 1:
        raise FormatError(
            f"mix: its parts are stored as {' and '.join(sorted(containers))}; take those of one container"
        )
    first, container = next(iter(used.values())).manifest, containers.pop()
    fates, entries = dict[str, Fate](), dict[str, Entry]()
    for layer, name in choice.items():
        fate = _fate(model, used.get(name), layer, because.get(layer, ""))
        if container != GGUF:
            files = model.files if fate.asked == "keep" else used[name].files
            entries |= {tensor: files.entries[tensor] for tensor in fate.tensors}
        fates[layer] = fate
    recipe = Recipe(scheme=MIXED, label=out.name, container=container, options={"parts": dict(parts)})
    facts: dict[str, Any] = {
        "name": out.name, "recipe": recipe,
        "method": "mix", "checkpoint": container, "calibration": first.calibration, "inputs": inputs,
        "device": first.device, "seed": first.seed, "ledger": tuple(_notes(used, choice)),
    }  # fmt: skip
    if container == GGUF:
        lending = {name: source for name, source in used.items() if isinstance(source, GgufArtifact)}
        with folder_aside(out) as folder:
            write_mixture(folder, model, lending, choice, fates, **facts)
        return open_artifact(out, verify=False)
    for tensor in model.files.entries:
        if tensor.removesuffix(".weight") not in fates:
            fates[tensor.removesuffix(".weight")] = kept(model, tensor, "keep", "not the weight of a linear layer")
            entries[tensor] = model.files.entries[tensor]
    with folder_aside(out) as folder:
        write_artifact(folder, model, entries, fates, _config(model, used, choice), **facts)
    return open_artifact(out, verify=False)


def _ready(out: Path, inputs: str) -> Artifact | None:
    """The mixture that is there. Raises ArtifactError where something else bears the name: that is never replaced."""
    refuse_strangers(out.parent, [out.name])
    try:
        made = open_artifact(out, verify=False)
    except (ArtifactError, RecordError):
        return None  # not there, broken, or of another version: made, and replaced
    if made.manifest.recipe.scheme != MIXED:
        raise ArtifactError(f"{out}: is an artifact of its own, and no mixture; give the mixture another name")
    try:
        return open_artifact(out) if made.manifest.inputs == inputs else None
    except ArtifactError:
        return None


def linears(model: OpenedModel) -> list[list[str]]:
    """All linear layers, those that read one input together."""
    return [group for block in range(model.depth) for group in model.linears(block)]


def cost(model: OpenedModel, source: Artifact | None, layer: str) -> int:
    """Bytes of one layer in a source; None is the model itself."""
    return _fate(model, source, layer, "").bytes


def mixable(model: OpenedModel, name: str, source: Artifact) -> str:
    """Why ``source`` cannot lend its layers to a mixture, or nothing when it can."""
    if source.is_baseline:
        return ""
    if model.has_experts:
        return f"{model.ref} is a mixture of experts, whose fused kernels take one format for all experts of a block"
    manifest = source.manifest
    if manifest.model.weights != model.weights_digest:
        return f"'{name}' was made from {manifest.model.ref}, which is another model"
    if manifest.checkpoint not in (CONTAINER, GGUF):
        return f"'{name}' is stored as {manifest.checkpoint}; only {CONTAINER} and {GGUF} say each layer's format"
    if manifest.kv_cache is not None:
        return f"'{name}' has a KV cache in {manifest.kv_cache.format}, which is a matter of all layers"
    if manifest.recipe.rotation:
        return f"'{name}' is rotated, so its layers expect another input"
    ends = [name for name in (model.walker.table, model.walker.head) if name in source.coded]
    if ends and manifest.checkpoint != GGUF:  # a GGUF mixture takes them from the source that lends most
        return f"'{name}' has {ends[0]} in codes, and a mixture keeps it"
    if manifest.training is not None:
        return f"'{name}' was trained as a whole, so its layers make up for each other"
    if moved := folded(source):
        return f"'{name}' has channel scales of {moved} and others folded in, so its layers expect another input"
    return ""


def folded(source: Artifact) -> str:
    """A layer whose channel scales were folded into what makes its input, or nothing."""
    return next((fate.name for fate in source.manifest.quantized if fate.facts.get("scaling")), "")


def unforeseen(source: Artifact) -> str:
    """Why the source's weights are not the model's plus an error, so that nothing is foreseen from them; or nothing."""
    if source.manifest.recipe.rotation:
        return "its channels are rotated"
    if source.manifest.training is not None:
        return "its weights were trained"
    return "channel scales are folded in" if folded(source) else ""


def _check_choice(model: OpenedModel, sources: Mapping[str, Artifact], choice: Choice) -> None:
    groups = linears(model)
    every = [layer for group in groups for layer in group]
    if wrong := sorted(set(choice) - set(every)):
        raise UsageError(f"mix: '{wrong[0]}' is not a linear layer of {model.ref}; {hint(wrong[0], every)}")
    if missing := sorted(set(every) - set(choice)):
        raise UsageError(f"mix: nothing is chosen for '{missing[0]}'; choose for all {len(every)} linear layers")
    for layer, name in choice.items():
        if name != BASELINE and name not in sources:
            raise UsageError(f"mix: '{layer}' is to come from '{name}'; {hint(name, [*sources, BASELINE])}")
    for group in groups:
        if len({choice[layer] for layer in group}) > 1:
            raise UsageError(
                f"mix: {', '.join(group)} read one input and runtimes fuse them; choose one source for all of them"
            )
    if set(choice.values()) <= {BASELINE}:
        raise UsageError("mix: every layer is to stay as it is; that is the model itself")


def _check_source(model: OpenedModel, name: str, source: Artifact) -> None:
    if reason := mixable(model, name, source):
        raise FormatError(f"mix: {reason}; leave it out")


def _fate(model: OpenedModel, source: Artifact | None, layer: str, because: str) -> Fate:
    """The source's own fate of the layer; the model's where there is no source, or where the source keeps it."""
    if source is None or layer not in source.coded:
        return kept(model, f"{layer}.weight", "keep", because or "the mixture keeps it")
    fate = source.coded[layer]
    return fate.model_copy(update={"because": because or fate.because})


def _config(model: OpenedModel, used: Mapping[str, Artifact], choice: Choice) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((model.path / "config.json").read_bytes())
    schemes = dict[str, Scheme]()
    for layer, name in choice.items():
        if name in used and layer in used[name].coded:
            schemes[layer] = used[name].scheme_of(layer)
    return CHECKPOINT.mixed_config(config, schemes, ["lm_head", *sorted(set(choice) - set(schemes))])


def _notes(used: Mapping[str, Artifact], choice: Choice) -> list[Note]:
    """The sources' ledgers, each for the layers that come from it."""
    return [note for name, source in used.items() for note in source.manifest.ledger if choice.get(note.tensor) == name]
