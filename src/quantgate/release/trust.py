"""Both questions about an artifact at once: are these the bytes, and who says so?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantgate.errors import ArtifactError, UsageError
from quantgate.models.locate import REFERENCE, locate
from quantgate.release.artifacts import at_address, kept_manifest, read_manifest
from quantgate.release.keys import PublicKey, SecretKey
from quantgate.release.seen import KEPT
from quantgate.release.signing import MANIFEST, Signed, check, sign
from quantgate.release.verify import Verified, verify, verify_baseline
from quantgate.store import is_address


@dataclass(frozen=True)
class Examined:
    place: Path
    bytes: Verified | None  # None: a file that was signed by itself, and nobody named its digest
    signed: Signed | None  # None: no key was named

    def lines(self) -> list[str]:
        """What was found, for people."""
        told = [str(self.place)]
        if self.bytes:
            told.append(
                f"bytes: {self.bytes.files} files, {self.bytes.bytes / 1e6:.1f} MB, as {self.bytes.digest} says"
            )
        if self.signed:
            told.append(f"signed by {self.signed.key}: {self.signed.comment}")
        else:
            told.append("signature: not looked at, as no public key was named")
        return told


def examine(
    where: str, *, keys: Sequence[str | Path] = (), digest: str = "", full: bool = False, kept: Path | None = KEPT
) -> Examined:
    """The artifact at a path or address. Its signature is looked at first: it says which manifest is to be believed.

    Raises WrongBytes, SignatureError; ArtifactError where there is nothing to hold it against.
    """
    trusted = [PublicKey.read(one) for one in keys]
    place = (
        at_address(where) if is_address(where) else locate(where) if where == REFERENCE else Path(where).expanduser()
    )
    if not place.exists():
        raise ArtifactError(f"{place}: is not there; name an artifact's folder, a GGUF file, or an address")
    if place.is_dir() and not (place / MANIFEST).is_file() and not digest:
        raise ArtifactError(f"{place}: no {MANIFEST}; name the digest that it must have with --digest")
    signed = check(place, trusted) if trusted else None
    manifest = None if (place / MANIFEST).is_file() else kept_manifest(digest, kept) if digest else None
    if not place.is_dir() and manifest is None:
        if signed is None or digest:
            raise UsageError(f"{place}: a file by itself has no manifest; name the key that signed it with --pubkey")
        return Examined(place, None, signed)  # the signature is over all of its bytes
    if manifest is None and _is_baseline(place):
        return Examined(place, verify_baseline(place, digest, kept=kept, full=full), signed)
    asked = digest or read_manifest(place).digest
    return Examined(place, verify(place, asked, manifest=manifest, kept=kept, full=full), signed)


def _is_baseline(place: Path) -> bool:
    """A model in full precision, which has no manifest."""
    if (place / MANIFEST).is_file() or not (place / "config.json").is_file():
        return False
    from quantgate.quantize.foreign import is_foreign

    return not is_foreign(place)


def endorse(place: Path, secret: SecretKey, *, comment: str = "") -> Path:
    """Sign an artifact whose every byte was read and found to be what its manifest says; the signature's file.

    Raises WrongBytes: nothing damaged is vouched for; what ``sign`` raises.
    """
    if (place / MANIFEST).is_file():
        verify(place, read_manifest(place).digest, full=True)
    return sign(place, secret, comment=comment)
