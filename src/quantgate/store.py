"""Folders elsewhere: artifacts and models under fsspec addresses (``s3://bucket/path``, ``file://``, ``memory://``).

    push(folder, "s3://models/runs/7")     -> "s3://models/runs/7/sha256-4f.../", files first, the index last
    pull("s3://models/runs/7/sha256-4f...") -> a local folder whose bytes are those that the index names

A folder elsewhere is whole when it has its index, which names every file with its digest and is written last;
the folder bears the index's digest as its name, so the same bytes have the same place and nothing there is ever
changed. A transfer that was cut goes on where it stopped: files that are there are not sent again, and of a file that
was being fetched the bytes on disk are kept. Whatever is fetched is held against its digest before it gets its name.

Who may read and write is the business of the storage's own settings (environment, profiles, roles): an address with a
password or a signature in it is refused, since addresses are written into records.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from quantgate.errors import ArtifactError, MissingExtra, StoreError, UsageError
from quantgate.records import Record, digest_file, digest_of, disk_errors, parse, write_whole

INDEX = "quantgate-index.json"
PIECE = 8 * 2**20  # bytes fetched at a time
KEPT = Path("~/.cache/quantgate/pulled")
NESTED = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.gguf")  # what is fetched where there is no index
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://")
EXTRAS = {"s3": "s3", "s3a": "s3"}  # protocol -> the extra that brings it
Progress = Callable[[str, int, int], None]  # file, bytes done, bytes of all files


class Part(Record):
    sha256: str  # "sha256:..."; empty where nobody vouches for the file
    bytes: int


class Index(Record):
    """What a folder elsewhere holds."""

    files: dict[str, Part]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.digest.replace(":", "-")

    @property
    def size(self) -> int:
        return sum(part.bytes for part in self.files.values())


def is_address(ref: str) -> bool:
    """
    >>> is_address("s3://bucket/model"), is_address("org/model"), is_address("/tmp/model")
    (True, False, False)
    """
    return bool(ADDRESS.match(ref))


def index_of(folder: Path) -> Index:
    """Digests of all files of a folder, hidden ones left out."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    return Index(
        files={
            str(file.relative_to(folder)): Part(sha256=digest_file(file), bytes=file.stat().st_size) for file in files
        }
    )


def push(folder: Path, url: str, progress: Progress | None = None) -> str:
    """Put a folder under ``url``, in a folder that bears its digest; the address that it got.

    What is there already is left alone. Raises StoreError (no bucket, no rights, cut), UsageError, MissingExtra.
    """
    index, (files, root) = index_of(folder), _open(url)
    place, done = f"{root.rstrip('/')}/{index.name}", 0
    with _told(url, "sent"):
        there = _sizes(files, place)
        if INDEX in there:
            return f"{url.rstrip('/')}/{index.name}"
        for name, part in index.files.items():
            if there.get(name) != part.bytes:
                _send(files, folder / name, f"{place}/{name}")
            done += part.bytes
            if progress:
                progress(name, done, index.size)
    write_text(f"{url.rstrip('/')}/{index.name}", INDEX, index.model_dump_json(indent=1))
    return f"{url.rstrip('/')}/{index.name}"


def pull(url: str, *, kept: Path | None = None, progress: Progress | None = None) -> Path:
    """The folder at ``url`` on this machine, under ``kept`` by its digest; fetched once.

    A folder without an index (a model that somebody copied there) is fetched by its listing: sizes are checked, and its
    name follows from what the storage says of every file. Raises StoreError, ArtifactError (bytes that are not what the
    index says), UsageError, MissingExtra, DiskFull.
    """
    files, root = _open(url)
    kept = (kept or KEPT).expanduser()
    with _told(url, "fetched"):
        index, name = _index(files, root.rstrip("/"), url)
    final, aside = kept / name, kept / f".{name}.partial"
    kept.mkdir(parents=True, exist_ok=True)
    with FileLock(kept / f".{name}.lock"):
        if final.is_dir():
            return final
        done = 0
        for file, part in index.files.items():
            with _told(url, "fetched"), disk_errors(aside):
                _fetch(files, f"{root.rstrip('/')}/{file}", aside / file, part, url)
            done += part.bytes
            if progress:
                progress(file, done, index.size)
        os.replace(aside, final)
    return final


def _index(files: Any, root: str, url: str) -> tuple[Index, str]:
    """What is there, and the name that it gets here."""
    if files.exists(f"{root}/{INDEX}"):
        index = _parsed(files.cat_file(f"{root}/{INDEX}"), url)
        tail = root.rpartition("/")[2]
        if tail.startswith("sha256-") and tail != index.name:
            raise ArtifactError(f"{url}: its {INDEX} is not the one that its name vouches for; push the folder again")
        return index, index.name
    found = {name: size for name, size in _sizes(files, root).items() if any(Path(name).match(one) for one in NESTED)}
    if not found:
        raise StoreError(f"{url}: nothing is there; check the address, or push the folder again if its upload was cut")
    if any(part.startswith("sha256-") for part in root.split("/")[-1:]):
        raise StoreError(f"{url}: has no {INDEX}, so its upload was cut; run again what pushed it")
    listed = Index(files={name: Part(sha256="", bytes=size) for name, size in sorted(found.items())})
    seen = [[name, str(files.ukey(f"{root}/{name}"))] for name in listed.files]
    return listed, digest_of([url, seen]).replace(":", "-")


def _parsed(raw: bytes, url: str) -> Index:
    import json

    try:
        data = json.loads(raw)
    except ValueError:
        raise ArtifactError(f"{url}: its {INDEX} cannot be read; push the folder again") from None
    index = parse(Index, data, where=f"{url}/{INDEX}", error=ArtifactError)
    for name in index.files:
        if name.startswith("/") or ".." in Path(name).parts:
            raise ArtifactError(f"{url}: its {INDEX} names '{name}', which lies outside; do not use this folder")
    return index


def _sizes(files: Any, root: str) -> dict[str, int]:
    """Name below ``root`` -> bytes."""
    try:
        found = files.find(root, detail=True)
    except FileNotFoundError:
        return {}
    prefix = files._strip_protocol(root).rstrip("/") + "/"
    return {path.removeprefix(prefix): int(one["size"]) for path, one in found.items() if path.startswith(prefix)}


def _send(files: Any, file: Path, place: str) -> None:
    """One file, whole under its name or not there: object storage does so by itself, a file system by a rename."""
    if _local(files):
        target = Path(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            with disk_errors(target):
                shutil.copyfile(file, aside)
                os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)
    else:
        files.put_file(str(file), place)


def _fetch(files: Any, place: str, target: Path, part: Part, url: str) -> None:
    """One file, from where an earlier attempt stopped."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file():
        return  # held against its digest when it got its name
    aside = target.with_name(f"{target.name}.part")
    if aside.is_file() and aside.stat().st_size > part.bytes:
        aside.unlink()
    with aside.open("ab") as file:
        for start in range(file.tell(), part.bytes, PIECE):
            got = files.cat_file(place, start=start, end=min(start + PIECE, part.bytes))
            if not got:
                raise OSError("it is shorter than it was")
            file.write(got)
        file.flush()
        os.fsync(file.fileno())
    if aside.stat().st_size != part.bytes or (part.sha256 and digest_file(aside) != part.sha256):
        aside.unlink()
        raise ArtifactError(f"{url}/{target.name}: its bytes are not those that {INDEX} vouches for; push it again")
    os.replace(aside, target)


def write_text(url: str, name: str, text: str) -> None:
    """A file below ``url`` that may change, such as a report: it is replaced whole. Raises StoreError."""
    files, root = _open(url)
    with _told(url, "sent"):
        if _local(files):
            write_whole(Path(root) / name, text.encode())
        else:
            files.pipe_file(f"{root.rstrip('/')}/{name}", text.encode())


def read_text(url: str, name: str) -> str | None:
    """A file below ``url``; None when it is not there. Raises StoreError."""
    files, root = _open(url)
    with _told(url, "fetched"):
        place = f"{root.rstrip('/')}/{name}"
        return files.cat_file(place).decode() if files.exists(place) else None


def _local(files: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(files, LocalFileSystem)


def _open(url: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it. Raises UsageError, MissingExtra."""
    import fsspec
    from fsspec.core import url_to_fs

    told = urlsplit(url)
    if told.username or told.password or told.query:
        where = f"{told.scheme}://{told.hostname or ''}{told.path}"
        raise UsageError(
            f"{where}: the address holds a password or a signature, which would be written into records; leave it out, "
            "and let the environment or the storage's own settings say who may read and write"
        )
    if told.scheme not in fsspec.available_protocols():
        raise UsageError(f"{url}: nothing speaks '{told.scheme}' here; expected an address such as s3://bucket/path")
    try:
        files, root = url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    except ImportError as missing:
        extra = EXTRAS.get(told.scheme)
        package = f"quantgate[{extra}]" if extra else str(missing).rpartition(" ")[2]
        raise MissingExtra(f"{url}: needs a package that is not installed; run: pip install '{package}'") from None
    return files, str(root)


@contextmanager
def _told(url: str, what: str) -> Iterator[None]:
    """What a storage says, in one sentence."""
    again = "run again to go on from what is there"
    try:
        yield
    except (StoreError, ArtifactError, UsageError):
        raise
    except PermissionError as problem:
        raise StoreError(
            f"{url}: may not be read or written ({_first(problem)}); check the rights and the credentials"
        ) from None
    except FileNotFoundError as problem:
        raise StoreError(f"{url}: there is no such bucket or folder ({_first(problem)}); check the address") from None
    except Exception as problem:  # storages have errors of their own, most of which are no OSError
        if type(problem).__name__ in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"):
            raise StoreError(f"{url}: no credentials were found ({_first(problem)}); set them up first") from None
        if isinstance(problem, OSError) or type(problem).__module__.startswith(("botocore", "aiobotocore", "aiohttp")):
            raise StoreError(f"{url}: could not all be {what} ({_first(problem)}); {again}") from None
        raise


def _first(problem: BaseException) -> str:
    text = str(problem).strip().splitlines()
    return (text[0] if text else type(problem).__name__)[:160]
