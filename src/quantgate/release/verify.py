"""The bytes of an artifact, held against the digest that was released: same bytes, or a sentence naming the file.

    verify(Path("runs/release/artifacts/W4A16"), "sha256:...")            # by the manifest.json in the folder
    verify(Path("model-Q4_K_M.gguf"), "sha256:...", manifest=told)        # of another program: by its opening's
    verify_baseline(Path("models/llama"), "sha256:...")                   # by the digest of its weights

The digest of a manifest names the artifact, and the manifest names every file with its own digest, so nothing in the
folder is trusted that does not lead up to the digest. Beside the manifest a folder may hold what no loader reads: a
model card (README.md), a signature, a licence. They are outside of the digest and may come and go.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from quantgate.errors import ArtifactError, ModelError, QuantgateError, RecordError, WrongBytes
from quantgate.models.tensors import Entry, open_tensors
from quantgate.models.text import TOKENIZER_FILES, tokenizer_digest
from quantgate.quantize.manifest import Manifest, ModelIdentity, StoredFile
from quantgate.records import digest_of
from quantgate.release.seen import KEPT, Seen, Stamp, stamp

MANIFEST = "manifest.json"
INDEX = "model.safetensors.index.json"
THREADS = 8
PIECE = 1 << 22  # bytes of a file that are held together
# what loaders take from a folder without being told its name
WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".npz")
CODE_AND_WORDS = (".py", ".so", ".jinja", ".model", ".tiktoken")
NAMED = (*TOKENIZER_FILES, "config.json", "generation_config.json", "adapter_config.json", "params.json", "tekken.json")
SETTINGS = (".json", ".txt", ".yaml", ".yml")  # in a folder of our own nothing of this kind comes from elsewhere
INDEX_OF_STORE = "quantgate-index.json"
T = TypeVar("T")


@dataclass(frozen=True)
class Verified:
    """A place whose bytes are those of ``digest``."""

    place: Path
    digest: str
    files: int  # that were held against it
    bytes: int  # in them
    read: int  # bytes read for it now; the others had not changed since they were read before
    manifest: Manifest | None = None  # None: a baseline


def verify(
    place: Path,
    digest: str,
    *,
    manifest: Manifest | None = None,
    kept: Path | None = KEPT,
    full: bool = False,
    threads: int = THREADS,
) -> Verified:
    """Hold a folder, or a file that is an artifact by itself, against ``digest``, the digest of its manifest.

    ``manifest`` is needed where the place has none: an artifact of another program. ``kept`` is where unchanged files
    are remembered, None: nowhere; ``full`` reads every byte whatever is remembered. Raises WrongBytes, with the file
    and what was expected; ArtifactError where there is nothing to hold it against, or it cannot be read.
    """
    folder = place if place.is_dir() else place.parent
    with _readable(place):
        if not place.exists():
            raise ArtifactError(f"{place}: is not there; fetch the artifact again, or register where it lies now")
        told = manifest or _manifest(place)
        if told.digest != digest:
            raise WrongBytes(
                f"{place}: its manifest is that of {told.name} {told.digest[:19]}, and {digest[:19]} was asked for; it "
                "is another artifact, or its manifest was edited: fetch the one that was released"
            )
        if not told.files:  # a model as it is
            same = verify_baseline(place, told.model.weights, like=told.model, kept=kept, full=full, threads=threads)
            return replace(same, digest=digest, manifest=told)
        for name, stored in sorted(told.files.items()):
            _in_place(folder, name, stored)
        if place.is_dir():
            _nothing_else(folder, told)
        seen = Seen.of(place, kept)
        found, read = _digests(folder, told.files, seen, full, threads)
        for name, stored in sorted(told.files.items()):
            if found[name] != stored.sha256:
                raise WrongBytes(
                    f"{folder / name}: holds other bytes than its manifest says ({found[name][:19]}, expected "
                    f"{stored.sha256[:19]}); it was changed or damaged, fetch the artifact again"
                )
        seen.save()
        return Verified(place, digest, len(told.files), sum(one.bytes for one in told.files.values()), read, told)


def verify_baseline(
    folder: Path,
    digest: str,
    *,
    like: ModelIdentity | None = None,
    kept: Path | None = KEPT,
    full: bool = False,
    threads: int = THREADS,
) -> Verified:
    """Hold a full-precision model against ``digest``, that of its weights, however its files are sharded.

    ``like``: what a variant's manifest says of the model it was made from, whose tokenizer and configuration are
    compared as well; the weights' digest knows nothing of them. Raises WrongBytes, ArtifactError.
    """
    with _told(folder):
        entries = open_tensors(folder).entries
    with _readable(folder):
        files = {file.name: file for file in sorted({entry.file for entry in entries.values()})}
        whole = folder / "model.safetensors"
        if whole.is_file() and whole.name not in files:
            raise WrongBytes(f"{whole}: {INDEX} does not name it, and other programs would load it instead; remove it")
        seen = Seen.of(folder, kept)
        sums, size, read = _sums(files, entries, seen, full, threads)
        content = digest_of([[name, one.dtype, list(one.shape), sums[name]] for name, one in sorted(entries.items())])
        if content != digest:
            raise WrongBytes(
                f"{folder}: its weights are {content[:19]}, and the baseline of the release is {digest[:19]}; it was "
                "changed or damaged, fetch the model again"
            )
        if like is not None:
            _alike(folder, like)
        seen.save()
        return Verified(folder, digest, len(files), size, read)


def _manifest(place: Path) -> Manifest:
    if not place.is_dir() or not (place / MANIFEST).is_file():
        raise ArtifactError(
            f"{place}: no {MANIFEST}, so nothing says what its bytes were; name the baseline that it was checked "
            "against, so that its manifest can be made again"
        )
    _inside(place, place / MANIFEST)
    try:
        return Manifest.load(place / MANIFEST)
    except RecordError as problem:
        raise WrongBytes(f"{problem}") from None


def _in_place(folder: Path, name: str, stored: StoredFile) -> None:
    """What can be said without reading: it is there, a file, in the folder, and as long as it was."""
    file = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise WrongBytes(f"{folder}: its manifest names '{name}', which lies outside of it; do not use this artifact")
    if not file.is_file():
        what = "is no file" if file.exists() else "is missing"
        raise WrongBytes(f"{file}: {what}, expected {stored.bytes} bytes; fetch the artifact again")
    _inside(folder, file)
    size = file.stat().st_size
    if size != stored.bytes:
        kind = "cut short" if size < stored.bytes else "longer than it was"
        raise WrongBytes(f"{file}: {kind}: {size} bytes, expected {stored.bytes}; fetch the artifact again")


def _inside(folder: Path, file: Path) -> None:
    """A link must not lead out of the folder; Hugging Face's cache links into the blobs of the same model."""
    home, real = folder.resolve(), file.resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if not (real.is_relative_to(home) or real.is_relative_to(blobs)):
        raise WrongBytes(f"{file}: is a link that leads out of the folder; put the file itself there")


def _nothing_else(folder: Path, told: Manifest) -> None:
    """No file that a loader would read and nobody vouches for."""
    foreign = not (folder / MANIFEST).is_file()
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.is_dir():
            _inside(folder, file)
        if file.is_dir() or name in told.files or name in (MANIFEST, INDEX_OF_STORE):
            continue
        if foreign and name == INDEX:
            _index_within(file, told)
        elif _is_read(file.name, foreign):
            raise WrongBytes(
                f"{file}: is not in the manifest, and a loader would read it; remove it, or make the artifact again"
            )


def _is_read(name: str, foreign: bool) -> bool:
    """Whether a loader may take a file for its own.

    >>> _is_read("README.md", False), _is_read("notes.json", False), _is_read("notes.json", True)
    (False, True, False)
    """
    known = (*WEIGHTS, *CODE_AND_WORDS) if foreign else (*WEIGHTS, *CODE_AND_WORDS, *SETTINGS)
    return not name.startswith(".") and (name.lower().endswith(known) or name in NAMED)


def _index_within(file: Path, told: Manifest) -> None:
    """Of another program: its index is not under the manifest's digest, so it may only point at what is."""
    import json

    try:
        named = set(json.loads(file.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WrongBytes(f"{file}: cannot be read; fetch the artifact again") from None
    for name in sorted(named - set(told.files)):
        raise WrongBytes(f"{file}: names '{name}', which is not in the manifest; fetch the artifact again")


def _digests(folder: Path, names: Iterable[str], seen: Seen, full: bool, threads: int) -> tuple[dict[str, str], int]:
    """Digest of every file, and how many bytes were read for them."""
    found, todo = dict[str, str](), list[str]()
    for name in names:
        known = None if full else seen.digest(name, stamp((folder / name).stat()))
        if known is None:
            todo.append(name)
        else:
            found[name] = known
    todo.sort(key=lambda name: -(folder / name).stat().st_size)  # the longest first, so that no thread ends alone
    read = 0
    for name, (now, digest) in zip(todo, _each(threads, lambda name: _file(folder / name), todo), strict=True):
        found[name] = digest
        seen.learn(name, now, digest)
        read += now[2]
    return found, read


def _each(threads: int, work: Callable[[str], T], todo: list[str]) -> list[T]:
    if not todo:
        return []
    with ThreadPoolExecutor(min(threads, len(todo), os.cpu_count() or 1)) as pool:
        return list(pool.map(work, todo))


def _file(file: Path) -> tuple[Stamp, str]:
    with file.open("rb") as handle:
        before = stamp(os.fstat(handle.fileno()))
        digest = "sha256:" + hashlib.file_digest(handle, "sha256").hexdigest()
        _unchanged(file, before, stamp(os.fstat(handle.fileno())))
    return before, digest


def _unchanged(file: Path, before: Stamp, after: Stamp) -> None:
    if before != after:
        raise WrongBytes(f"{file}: was changed while it was read; let it be finished, then try again")


def _sums(
    files: Mapping[str, Path], entries: Mapping[str, Entry], seen: Seen, full: bool, threads: int
) -> tuple[dict[str, str], int, int]:
    """Digest of every tensor's bytes by name, bytes of the files, and how many of them were read."""
    sums, size, read = dict[str, str](), 0, 0
    for name, file in files.items():
        now = stamp(file.stat())
        own = {key: entry for key, entry in entries.items() if entry.file == file}
        rows = {} if full else _remembered(seen, name, now, own)
        if not rows:
            rows = _tensors(own, threads)
            read += now[2]
            _unchanged(file, now, stamp(file.stat()))
            for key, one in rows.items():
                seen.learn(f"{name}/{key}", now, one)
        sums |= rows
        size += now[2]
    return sums, size, read


def _remembered(seen: Seen, name: str, now: Stamp, own: Mapping[str, Entry]) -> dict[str, str]:
    """Digests of a file's tensors; nothing unless all are known."""
    rows = {key: seen.digest(f"{name}/{key}", now) for key in own}
    return {key: one for key, one in rows.items() if one is not None} if None not in rows.values() else {}


def _tensors(entries: Mapping[str, Entry], threads: int) -> dict[str, str]:
    """Digest of the bytes of every tensor, by name."""
    names = sorted(entries)
    return dict(zip(names, _each(threads, lambda name: _tensor(entries[name]), names), strict=True))


def _tensor(entry: Entry) -> str:
    found = hashlib.sha256()
    with entry.file.open("rb") as file:
        file.seek(entry.start)
        for left in range(entry.size, 0, -PIECE):
            found.update(file.read(min(left, PIECE)))
    return found.hexdigest()


def _alike(folder: Path, like: ModelIdentity) -> None:
    import json

    with _told(folder):
        words, config = tokenizer_digest(folder), digest_of(json.loads((folder / "config.json").read_bytes()))
    for what, ours, theirs in (("tokenizer", words, like.tokenizer), ("config.json", config, like.config)):
        if ours != theirs:
            raise WrongBytes(
                f"{folder}: its {what} is not that of the baseline that the variants were compared with "
                f"({ours[:19]}, expected {theirs[:19]}); fetch the model again"
            )


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """A model that cannot be read is not the one that was released."""
    try:
        yield
    except (ModelError, OSError, ValueError) as problem:
        told = str(problem) if isinstance(problem, QuantgateError) else f"{folder}: cannot be read ({problem})"
        raise WrongBytes(told) from None


@contextmanager
def _readable(place: Path) -> Iterator[None]:
    """No rights, a broken disk: nothing is known of the bytes then."""
    try:
        yield
    except OSError as problem:
        where = problem.filename or place
        raise ArtifactError(f"{where}: cannot be read ({problem.strerror}); check its rights and its disk") from None
