"""Detached signatures in minisign's format: who vouches for an artifact, checked without trusting where it lies.

    secret = new_key(Path("release.key"), Path("release.pub"), password="...")
    sign(folder, secret)                        # manifest.json.minisig beside manifest.json
    check(folder, [PublicKey.read("release.pub")]).comment

Ed25519 over the BLAKE2b-512 digest of the file, and a comment that is signed together with the signature, as the
program ``minisign`` makes and reads them (https://jedisct1.github.io/minisign/). What is signed of an artifact is its
manifest, which names every other file by digest; the signature of a file that is an artifact by itself is over the
file. Secret keys lie in files of mode 0600, encrypted with scrypt unless asked otherwise, and are never shown.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from quantgate.errors import SignatureError, UsageError
from quantgate.records import disk_errors, write_whole
from quantgate.release.keys import PublicKey, SecretKey

MANIFEST = "manifest.json"
ENDING = ".minisig"
UNTRUSTED = "untrusted comment: "
TRUSTED = "trusted comment: "
LONGEST = 8192  # bytes of a comment that minisign reads
AGAIN = "sign the artifact again, or fetch it from where it was signed"


@dataclass(frozen=True)
class Signed:
    """A signature that is right."""

    file: Path  # that was signed
    key: str  # id, as minisign shows it
    comment: str  # the trusted one


@dataclass(frozen=True)
class Signature:
    """What a .minisig file holds."""

    key: bytes  # 8, the id of the key
    prehashed: bool  # over the file's digest; the older kind is over the file itself
    signature: bytes = field(repr=False)  # 64
    comment: str
    whole: bytes = field(repr=False)  # 64, over the signature and the comment

    def text(self) -> str:
        kind = b"ED" if self.prehashed else b"Ed"
        first = base64.b64encode(kind + self.key + self.signature).decode()
        last = base64.b64encode(self.whole).decode()
        return f"{UNTRUSTED}signature of quantgate\n{first}\n{TRUSTED}{self.comment}\n{last}\n"

    @classmethod
    def read(cls, file: Path) -> Signature:
        """Raises SignatureError when there is none, or it cannot be read."""
        try:
            raw = file.read_bytes()
        except OSError:
            raise SignatureError(f"{file}: there is no signature; {AGAIN}") from None
        try:
            untrusted, first, trusted, last = raw.decode().rstrip("\n").split("\n")
            body, whole = base64.b64decode(first, validate=True), base64.b64decode(last.strip(), validate=True)
        except ValueError:
            raise SignatureError(f"{file}: is no signature of minisign's format; {AGAIN}") from None
        words = untrusted.startswith(UNTRUSTED) and trusted.startswith(TRUSTED)
        if not words or len(body) != 74 or len(whole) != 64 or body[:2] not in (b"Ed", b"ED"):
            raise SignatureError(f"{file}: is no signature of minisign's format; {AGAIN}")
        return cls(body[2:10], body[:2] == b"ED", body[10:], trusted.removeprefix(TRUSTED), whole)


def signed_file(place: Path) -> Path:
    """What of an artifact is signed: the manifest of a folder, or the file that is one by itself."""
    return place / MANIFEST if place.is_dir() else place


def signature_of(place: Path) -> Path:
    file = signed_file(place)
    return file.with_name(file.name + ENDING)


def sign(place: Path, secret: SecretKey, *, comment: str = "", at: float | None = None) -> Path:
    """Sign an artifact; the signature's file, which lies beside what was signed.

    ``comment`` is signed as well; without one it names the time, the file and the artifact, in minisign's manner.
    Raises UsageError (nothing to sign, a comment that no line can hold), MissingExtra, DiskFull.
    """
    file = signed_file(place)
    if not file.is_file():
        raise UsageError(f"{place}: no {MANIFEST}, so there is nothing to sign; name an artifact's folder, or a file")
    told = comment or _comment(file, time.time() if at is None else at)
    if any(ord(one) < 32 and one != "\t" for one in told) or len(told.encode()) > LONGEST - len(TRUSTED) - 2:
        raise UsageError(f"the comment must be one line of at most {LONGEST - len(TRUSTED) - 2} bytes; shorten it")
    signature = secret.sign(_digest(file))
    made = Signature(secret.id, True, signature, told, secret.sign(signature + told.encode()))
    return write_whole(signature_of(place), made.text().encode())


def check(place: Path, keys: Iterable[PublicKey]) -> Signed:
    """The signature of an artifact by one of ``keys``. Says nothing of the files that the manifest names: see verify.

    Raises SignatureError: there is none, it is another key's, or the file or the comment is not what was signed.
    """
    file, keys = signed_file(place), list(keys)
    if not keys:
        raise UsageError("no public key was given, and a signature alone proves nothing; name the key that you trust")
    found = Signature.read(signature_of(place))
    key = next((one for one in keys if one.id == found.key), None)
    if key is None:
        ours = ", ".join(one.name for one in keys)
        raise SignatureError(
            f"{signature_of(place)}: was made by key {PublicKey(found.key, b'').name}, and trusted is {ours}; {AGAIN}"
        )
    try:
        message = _digest(file) if found.prehashed else file.read_bytes()
    except OSError as problem:
        raise SignatureError(f"{file}: is signed and cannot be read ({problem.strerror}); {AGAIN}") from None
    if not key.signed(found.signature, message):
        raise SignatureError(f"{file}: is not what key {key.name} signed; {AGAIN}")
    if not key.signed(found.whole, found.signature + found.comment.encode()):
        raise SignatureError(f"{signature_of(place)}: its comment is not what key {key.name} signed; {AGAIN}")
    return Signed(file, key.name, found.comment)


def _comment(file: Path, at: float) -> str:
    """What minisign writes by itself, and the artifact's digest."""
    told = f"timestamp:{int(at)}\tfile:{file.name}\thashed"
    if file.name != MANIFEST:
        return told
    import json

    try:
        envelope = json.loads(file.read_bytes())
        return f"{told}\tartifact:{envelope['digest']}"
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"{file}: is no manifest of an artifact, so it is not signed; make the artifact again"
        ) from None


def _digest(file: Path) -> bytes:
    """BLAKE2b-512 of a file, read in pieces."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=64)).digest()


def new_key(secret: Path, public: Path, *, password: str = "", opslimit: int | None = None) -> SecretKey:
    """Make a pair of keys: ``secret`` with mode 0600, encrypted where a ``password`` is given, and ``public``.

    A file that is there is never written over. Raises UsageError, MissingExtra, DiskFull.
    """
    for file in (secret, public):
        if file.exists() or file.is_symlink():
            raise UsageError(f"{file}: is there already, and a lost key cannot be made again; name another file")
    made = SecretKey.new()
    text = made.text(password) if opslimit is None else made.text(password, opslimit=opslimit)
    public.parent.mkdir(parents=True, exist_ok=True)
    secret.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with disk_errors(secret), os.fdopen(descriptor, "w") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        write_whole(public, made.public.text().encode())
    except BaseException:
        secret.unlink(missing_ok=True)
        raise
    return made
