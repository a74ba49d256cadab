"""Artifacts under their digest, here or at an fsspec address, and whether what lies there is what was released.

    put(folder, "s3://models/released")                 -> "s3://models/released/sha256-4f..."
    fetch("s3://models/released/sha256-4f...", digest)   -> a folder here whose bytes are those of the digest
    check(variant)                                       -> the same for a variant of the registry, baseline or not

The place of an artifact bears the artifact's digest and holds one folder for every state of it: with a model card or a
signature added it is another folder of bytes, and the same artifact. ``latest.json`` there tells which folder is the
newest; it is not trusted, since whatever comes is held against the digest.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from quantgate.errors import ArtifactError, QuantgateError, RecordError, UsageError, WrongBytes
from quantgate.models.locate import HUB_ID, locate
from quantgate.quantize.manifest import BASELINE, Manifest, ModelIdentity, Recipe
from quantgate.release import Variant
from quantgate.release.seen import KEPT
from quantgate.release.verify import MANIFEST, Verified, verify, verify_baseline
from quantgate.store import is_address, pull, push, read_text, write_text

LATEST = "latest.json"
FOLDER = re.compile(r"sha256-[0-9a-f]{64}")


def place_of(digest: str) -> str:
    """
    >>> place_of("sha256:4f")
    'sha256-4f'
    """
    return digest.replace(":", "-")


def put(place: Path, address: str, *, manifest: Manifest | None = None) -> str:
    """Put an artifact, a folder or one file, under ``address``; where it lies then, for as long as it is kept.

    ``manifest`` is needed where the place has none. It is verified first: nothing damaged is given away. Raises
    WrongBytes, ArtifactError, StoreError (no bucket, no rights, cut), UsageError, MissingExtra.
    """
    if not is_address(address):
        address = f"file://{Path(address).expanduser().resolve()}"
    told = manifest or read_manifest(place)
    verify(place, told.digest, manifest=told)
    home = f"{address.rstrip('/')}/{place_of(told.digest)}"
    if place.is_dir():
        at = push(place, home)
    else:
        with tempfile.TemporaryDirectory() as aside:
            (Path(aside) / place.name).symlink_to(place.resolve())
            at = push(Path(aside), home)
    if manifest is not None:
        write_text(home, MANIFEST, _saved(manifest))
    write_text(home, LATEST, json.dumps({"folder": at.rpartition("/")[2]}))
    return home


def fetch(
    location: str,
    digest: str,
    *,
    manifest: Manifest | None = None,
    pulled: Path | None = None,
    kept: Path | None = KEPT,
    full: bool = False,
) -> Verified:
    """The artifact at ``location``, an address, on this machine and verified.

    ``pulled`` is where fetched folders are kept. Raises what ``verify`` raises, StoreError, UsageError, MissingExtra.
    """
    place = at_address(location, pulled)
    if (place / MANIFEST).is_file():
        return verify(place, digest, kept=kept, full=full)
    told = manifest or kept_manifest(digest, kept) or _manifest_at(location)
    if told and len(told.files) == 1 and next(iter(told.files)).endswith(".gguf"):
        place = place / next(iter(told.files))
    return verify(place, digest, manifest=told, kept=kept, full=full)


def at_address(location: str, pulled: Path | None = None) -> Path:
    """The newest folder at an address, fetched and not yet verified."""
    return pull(_newest(location), kept=pulled)


def check(
    variant: Variant,
    *,
    like: ModelIdentity | None = None,
    baseline: str = "",
    full: bool = False,
    kept: Path | None = KEPT,
    pulled: Path | None = None,
) -> Verified:
    """The bytes of a variant of the registry, here and verified: what a gateway asks before it serves them.

    ``like``: of the baseline, what a variant's manifest says of it (tokenizer, configuration). ``baseline``: of an
    artifact of another program that has no manifest, the model that it was checked against; its manifest is made
    again, and remembered. Raises WrongBytes, ArtifactError (nothing to look at), ModelError, StoreError.
    """
    where = variant.location
    if not where:
        raise ArtifactError(f"{variant.name}: the registry does not say where it lies; register it with its folder")
    if variant.is_baseline:
        return verify_baseline(locate(where), variant.artifact, like=like, kept=kept, full=full)
    if is_address(where):
        return fetch(where, variant.artifact, pulled=pulled, kept=kept, full=full)
    place = Path(where).expanduser()
    if not place.exists() and HUB_ID.fullmatch(where):
        place = locate(where)
    told = None
    if not (place / MANIFEST).is_file():  # else the folder's own, so that an edited one is found
        told = kept_manifest(variant.artifact, kept)
        if told is None and baseline and place.exists():
            told = remade(place, baseline, variant.name)
            if told.digest == variant.artifact and kept is not None:
                keep_manifest(told, kept)
    return verify(place, variant.artifact, manifest=told, kept=kept, full=full)


def remade(place: Path, baseline: str, name: str) -> Manifest:
    """The manifest of what bears none, made as a run makes it: by opening it; reads every tensor.

    An artifact of another program is opened against its ``baseline``; a model of its own needs none.
    """
    from quantgate import quantize
    from quantgate.models import open_model
    from quantgate.quantize.foreign import is_foreign, open_foreign
    from quantgate.quantize.foreign.gguf import open_gguf_artifact

    if not place.is_dir():
        return open_gguf_artifact(place, open_model(baseline), name).manifest
    if is_foreign(place):
        return open_foreign(place, open_model(baseline), name).manifest
    found = quantize.baseline(open_model(place), Recipe(scheme=BASELINE, label=name)).manifest
    return found.model_copy(update={"model": found.model.model_copy(update={"ref": ""})})


def read_manifest(place: Path) -> Manifest:
    """The manifest in a folder. Raises ArtifactError where there is none, or it cannot be read."""
    if not (place / MANIFEST).is_file():
        raise ArtifactError(f"{place}: no {MANIFEST}; it is not an artifact of quantgate, or was copied without it")
    try:
        return Manifest.load(place / MANIFEST)
    except RecordError as problem:
        raise WrongBytes(str(problem)) from None


def keep_manifest(manifest: Manifest, kept: Path = KEPT) -> Path:
    """Remember the manifest of an artifact that has none of its own; its digest vouches for it wherever it lies."""
    return manifest.save(kept.expanduser() / f"{place_of(manifest.digest)}.manifest.json")


def kept_manifest(digest: str, kept: Path | None = KEPT) -> Manifest | None:
    if kept is None:
        return None
    return _loaded(kept.expanduser() / f"{place_of(digest)}.manifest.json", digest)


def _loaded(file: Path, digest: str) -> Manifest | None:
    """A manifest of either kind; None: there is none of that digest."""
    if not file.is_file():
        return None
    from quantgate.quantize.foreign import ForeignManifest

    for kind in (ForeignManifest, Manifest):
        try:
            found = kind.load(file)
        except (QuantgateError, OSError):
            continue
        return found if found.digest == digest else None
    return None


def _saved(manifest: Manifest) -> str:
    with tempfile.TemporaryDirectory() as aside:
        return manifest.save(Path(aside) / MANIFEST).read_text(encoding="utf-8")


def _manifest_at(location: str) -> Manifest | None:
    """The manifest that was put beside an artifact that has none in itself."""
    text = read_text(location, MANIFEST)
    if text is None:
        return None
    with tempfile.TemporaryDirectory() as aside:
        file = Path(aside) / MANIFEST
        file.write_text(text, encoding="utf-8")
        return _loaded(file, location.rstrip("/").rpartition("/")[2].replace("-", ":", 1))


def _newest(location: str) -> str:
    """The folder of bytes at a place; the place itself where somebody pushed one folder there. Raises UsageError."""
    text = read_text(location, LATEST)
    if text is None:
        return location
    try:
        name = str(json.loads(text)["folder"])
    except (ValueError, KeyError, TypeError):
        name = ""
    if not FOLDER.fullmatch(name):
        raise UsageError(f"{location}: its {LATEST} names no folder; put the artifact there again")
    return f"{location.rstrip('/')}/{name}"
