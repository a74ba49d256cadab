"""The two ends of a model, its embedding table and its output layer: kept, unless a recipe names a scheme for them.

    recipe           what is stored                                      on a tied model
    (nothing)        both as the model has them                          one table, as the model has it
    lm_head: S       the output layer as codes of scheme S               refused; with untie, a layer of its own
    embeddings: S    the table as codes, its rows rounded to nearest     refused; with untie, the layer kept
    both             both as codes                                       one set of codes that serves both

Everything here is known before the start: what is asked, every reason to refuse it, and what it takes in bytes.
A tied model reads one table for both, so a runtime cannot have codes in one of them alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantgate.errors import FormatError, UsageError
from quantgate.formats import Scheme, scheme
from quantgate.formats.size import stored_bytes
from quantgate.models import OpenedModel
from quantgate.models.tensors import Entry
from quantgate.quantize.manifest import KEEP, Fate, Recipe

if TYPE_CHECKING:
    from quantgate.quantize.artifact import Artifact
    from quantgate.quantize.checkpoints import Checkpoint

KEYS = {"head": "lm_head", "table": "embeddings"}


@dataclass(frozen=True)
class Ends:
    """What one variant does with them. ``None`` for a scheme: kept."""

    head: str  # what the checkpoint calls the output layer: lm_head
    table: str  # and the embedding table: model.embed_tokens
    lm_head: Scheme | None = None
    embeddings: Scheme | None = None
    tied: bool = False  # the model reads its table as the output layer
    untied: bool = False  # and the artifact stores an output layer of its own all the same

    @property
    def shared(self) -> bool:
        """One set of codes is looked up and read as the output layer."""
        return self.tied and not self.untied and self.embeddings is not None

    @property
    def solved(self) -> Scheme | None:
        """The scheme of an output layer that is solved with statistics of its own input."""
        return None if self.shared else self.lm_head

    @property
    def coded(self) -> dict[str, Scheme]:
        """The modules that are stored as codes."""
        found = {self.table: self.embeddings, self.head: self.solved}
        return {name: scheme for name, scheme in found.items() if scheme is not None}

    def copied(self, entries: Mapping[str, Entry]) -> dict[str, Entry]:
        """The table's bytes under the output layer's name, where that is untied and kept."""
        if self.untied and self.lm_head is None:
            return {f"{self.head}.weight": entries[f"{self.table}.weight"]}
        return {}

    def more_weights(self, entries: Mapping[str, Entry]) -> int:
        """How many numbers the artifact has that the model does not store: those of an untied output layer."""
        return entries[f"{self.table}.weight"].weights if self.untied else 0

    def source(self, name: str) -> str:
        """The tensor of the model that holds the weight of the head or the table."""
        return f"{self.table}.weight" if self.tied else f"{name}.weight"


def resolve(model: OpenedModel, recipe: Recipe, blocks: Scheme, container: Checkpoint, where: str) -> Ends:
    """What ``recipe`` asks of the ends, against one model, the scheme of its blocks, and the container.

    Raises UnknownName for a scheme that is none, UsageError for keys that contradict each other or the model, and
    FormatError for what the container, or whoever reads it, cannot have.
    """
    asked = {key: _scheme(getattr(recipe, key), f"{where}, {key}") for key in KEYS.values()}
    found = Ends(model.walker.head, model.walker.table, tied=model.tied, untied=recipe.untie, **asked)
    _check_untie(model, recipe, found, where)
    if not found.coded:
        return found
    if model.config.tie_word_embeddings and not model.tied:
        raise UsageError(
            f"{where}: {_told(recipe)}, but {model.ref} says tie_word_embeddings and stores {found.head} as well, so "
            "its readers differ in which they take; set tie_word_embeddings to what is meant, or delete that tensor"
        )
    for key, name in (("lm_head", found.head), ("embeddings", found.table)):
        if asked[key] is not None and (pattern := recipe.kept_by(name)):
            raise UsageError(
                f"{where}: keep: '{pattern}' covers {name}, and {key} asks for codes; leave one of them out"
            )
    _check_tied(model, recipe, found, blocks, where)
    if reason := container.refuse_ends(found, blocks):
        raise FormatError(f"{where}: the container {recipe.container} cannot hold {_told(recipe)}: {reason}")
    for name, one in found.coded.items():
        _check_shape(model, container, found, name, one, where)
    return found


def _scheme(label: str, where: str) -> Scheme | None:
    if label == KEEP:
        return None
    found = scheme(label, where=where)
    if found.weights is None:
        raise UsageError(f"{where}: {found.label} quantizes nothing; say keep, or name a scheme such as W8A16")
    if found.activations is not None:
        raise UsageError(
            f"{where}: {found.label} rounds inputs as well; name a weight-only scheme such as W8A16, or keep"
        )
    return found


def _check_untie(model: OpenedModel, recipe: Recipe, ends: Ends, where: str) -> None:
    if not ends.untied:
        return
    if not ends.tied:
        raise UsageError(f"{where}: untie: {model.ref} stores {ends.head} by itself already; leave untie out")
    if ends.lm_head is None and ends.embeddings is None:
        raise UsageError(
            f"{where}: untie: nothing is asked of lm_head or embeddings, so it would only copy; leave it out"
        )


def _check_tied(model: OpenedModel, recipe: Recipe, ends: Ends, blocks: Scheme, where: str) -> None:
    """Raises UsageError where a tied model would have to hold codes in one end and other numbers in the other."""
    if not ends.tied or ends.untied or recipe.lm_head.upper() == recipe.embeddings.upper():
        return
    entry = model.files.entry(f"{ends.table}.weight")
    own = f"a kept {ends.head}" if ends.lm_head is None else f"{ends.head} in codes"
    grid = ends.lm_head
    size = entry.size if grid is None else _bytes(entry, grid)
    both = "say " if blocks.activations else f"say {blocks.label}, as the blocks have it, for both, or "
    raise UsageError(
        f"{where}: {_told(recipe)}, but {model.ref} is tied: it reads one table ({ends.table}) for both, so both must "
        f"be the same; {both}'untie: true', which stores {own} of {size / 1e6:.2f} MB beside the table"
    )


def _bytes(entry: Entry, scheme: Scheme) -> int:
    out, columns = entry.shape
    wide = 4 if entry.dtype == "F32" else 2
    return stored_bytes(out, columns, scheme.weights, packed=scheme.packed, scale_bytes=wide).total_bytes


def _check_shape(model: OpenedModel, container: Checkpoint, ends: Ends, name: str, scheme: Scheme, where: str) -> None:
    out, columns = model.files.entry(ends.source(name)).shape
    grid = scheme.weights
    if grid is not None and grid.group_size is not None and columns % grid.group_size:
        raise FormatError(
            f"{where}: the {columns} columns of {name} do not divide into groups of {grid.group_size}; "
            "choose a group that divides them, or W8A16, which has none"
        )
    if reason := container.refuse_layer(scheme, out, columns):
        raise FormatError(f"{where}: {name}: {reason}; keep it")


def _told(recipe: Recipe) -> str:
    return " and ".join(f"{key}: {getattr(recipe, key)}" for key in KEYS.values() if getattr(recipe, key) != KEEP)


def ends_of(artifact: Artifact, model: OpenedModel) -> Ends:
    """The ends of an artifact as they are, whoever made it: read off its fates."""
    head, table = model.walker.head, model.walker.table
    coded = {name: artifact.scheme_of(name) for name in (head, table) if name in artifact.coded}
    untied = model.tied and any(fate.name == head and fate.weights for fate in artifact.manifest.fates)
    shared = coded.get(table) if model.tied and not untied else None
    return Ends(head, table, coded.get(head, shared), coded.get(table), model.tied, untied)


@dataclass(frozen=True)
class Part:
    """One end as an artifact holds it, or will."""

    name: str
    got: str  # a format in words, or the stored type
    bytes: int


def reason(ends: Ends, part: Part, total: int) -> str:
    """By which rule an end is what it is, and its share of the artifact's ``total`` bytes of tensors."""
    key = "lm_head" if part.name == ends.head else "embeddings"
    asked = ends.lm_head if key == "lm_head" else ends.embeddings
    words = [f"by the rule '{key}: {KEEP if asked is None else asked.label}'"]
    if ends.untied and key == "lm_head":
        words.append("stored by itself where the model reads the embeddings (untie)")
    elif ends.tied and not ends.untied:
        words.append("also read as the output layer (tied)")
    return f"{', '.join(words)}; {part.bytes / 1e6:.2f} MB, {part.bytes / max(total, 1):.1%} of the tensors' bytes"


def sentences(ends: Ends, parts: Iterable[Part], total: int) -> tuple[str, ...]:
    """What became of the ends, by which rule, and what share of the artifact they are."""
    return tuple(
        f"{part.name}: {'' if part.name in ends.coded else 'kept as '}{part.got} {reason(ends, part, total)}"
        for part in parts
    )


def parts_of(fates: Iterable[Fate], ends: Ends) -> list[Part]:
    """The ends among an artifact's fates."""
    return [Part(fate.name, fate.got, fate.bytes) for fate in fates if fate.name in (ends.table, ends.head)]


def kept_end(ends: Ends, name: str, entry: Entry, total: int) -> Fate:
    """The fate of an end that is stored as the model has it in ``entry``, in an artifact of ``total`` bytes."""
    got = entry.dtype.lower()
    return Fate(
        name=name,
        asked=KEEP,
        got=got,
        because=reason(ends, Part(name, got, entry.size), total),
        weights=entry.weights,
        bytes=entry.size,
        tensors=(f"{name}.weight",),
    )
