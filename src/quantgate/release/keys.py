"""Keys in minisign's files: public ones in the clear, secret ones encrypted with scrypt.

    a public key   2 "Ed", 8 id, 32 key
    a secret key   2 "Ed", 2 "Sc" (or zeros: in the clear), 2 "B2", 32 salt, 8 opslimit, 8 memlimit, then 104 bytes that
                   are encrypted by XOR with scrypt's output: 8 id, 32 seed, 32 public key, 32 checksum

Numbers are little endian; the id is shown as one, in hex. Each lies in a file of two lines: a comment, and base64.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from quantgate.errors import MissingExtra, SignatureError, UsageError

OPSLIMIT = 33_554_432  # libsodium's "sensitive", as minisign: scrypt with N = 2**20, r = 8, p = 1, which takes 1 GiB
MEMORY = 32  # bytes of memory for each of opslimit
MOST = 2**31 - 2**25  # bytes of memory that a key file may ask for; Python's scrypt takes no more
CLEAR, SCRYPT = b"\0\0", b"Sc"


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise MissingExtra(
            "signatures need a package that is not installed; run: pip install 'quantgate[sign]'"
        ) from None
    return ed25519


@dataclass(frozen=True)
class PublicKey:
    id: bytes  # 8
    raw: bytes  # 32

    @property
    def name(self) -> str:
        """As minisign shows it.

        >>> PublicKey(bytes(range(8)), b"").name
        '0706050403020100'
        """
        return f"{int.from_bytes(self.id, 'little'):016X}"

    @classmethod
    def read(cls, given: str | Path) -> Self:
        """From a file, or from the base64 text itself. Raises UsageError."""
        text, where = str(given), "the public key"
        if isinstance(given, Path) or not _is_key(text):
            where = text
            try:
                text = Path(given).expanduser().read_text(encoding="utf-8")
            except (OSError, ValueError):
                raise UsageError(f"{where}: no such public key; name a file, or give the key's text, RW...") from None
        raw = _decoded(text)
        if len(raw) != 42 or raw[:2] != b"Ed":
            raise UsageError(f"{where}: is no public key of minisign's format; expected a line of 56 letters, RW...")
        return cls(raw[2:10], raw[10:])

    def text(self) -> str:
        return f"untrusted comment: minisign public key {self.name}\n{self.line}\n"

    @property
    def line(self) -> str:
        """The key itself."""
        return base64.b64encode(b"Ed" + self.id + self.raw).decode()

    def signed(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature is this key's over the message. Raises MissingExtra."""
        from_bytes = _ed25519().Ed25519PublicKey.from_public_bytes
        from cryptography.exceptions import InvalidSignature

        try:
            from_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class SecretKey:
    id: bytes  # 8
    seed: bytes = field(repr=False)  # 32
    public: PublicKey

    @classmethod
    def new(cls) -> Self:
        return cls._of(secrets.token_bytes(8), secrets.token_bytes(32))

    @classmethod
    def _of(cls, number: bytes, seed: bytes) -> Self:
        raw = _ed25519().Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        return cls(number, seed, PublicKey(number, raw))

    def sign(self, message: bytes) -> bytes:
        signature: bytes = _ed25519().Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)
        return signature

    def text(self, password: str = "", *, opslimit: int = OPSLIMIT) -> str:
        """The key's file, encrypted where there is a password; more of ``opslimit`` makes guessing dearer."""
        body = self.id + self.seed + self.public.raw
        if not password:
            head = b"Ed" + CLEAR + b"B2" + bytes(48)
            raw = head + body + bytes(32)  # without a checksum, as minisign -W writes it
        else:
            salt = secrets.token_bytes(32)
            memlimit = opslimit * MEMORY
            head = b"Ed" + SCRYPT + b"B2" + salt + opslimit.to_bytes(8, "little") + memlimit.to_bytes(8, "little")
            raw = head + _xor(body + _checksum(body), _stream(password, salt, opslimit, memlimit))
        return f"untrusted comment: minisign encrypted secret key\n{base64.b64encode(raw).decode()}\n"

    @classmethod
    def read(cls, file: Path, password: str | None = None) -> Self:
        """Raises UsageError (no such key, one that others may read, no password), SignatureError (a wrong one)."""
        raw = cls._bytes(file)
        kind, head, body = raw[2:4], raw[6:54], raw[54:]
        if kind == SCRYPT:
            if not password:
                raise UsageError(f"{file}: the key is encrypted; give its password")
            opslimit, memlimit = int.from_bytes(head[32:40], "little"), int.from_bytes(head[40:], "little")
            if max(memlimit, opslimit * MEMORY) > MOST:
                raise UsageError(f"{file}: asks for {memlimit / 2**30:.0f} GiB to be opened; make a new key")
            body = _xor(body, _stream(password, head[:32], opslimit, memlimit))
            if not hmac.compare_digest(_checksum(body[:72]), body[72:]):
                raise SignatureError(f"{file}: the password is not that of this key; try again")
        key = cls._of(body[:8], body[8:40])
        if key.public.raw != body[40:72]:
            raise UsageError(f"{file}: its two halves do not belong together; take the key from a copy")
        return key

    @staticmethod
    def is_encrypted(file: Path) -> bool:
        return SecretKey._bytes(file)[2:4] == SCRYPT

    @staticmethod
    def _bytes(file: Path) -> bytes:
        try:
            mode = file.stat().st_mode
            text = file.read_text(encoding="utf-8")
        except (OSError, ValueError):
            raise UsageError(f"{file}: no such secret key; make one: quantgate sign --new-key {file}") from None
        if mode & 0o077:
            raise UsageError(f"{file}: other users may read or change this secret key; run: chmod 600 {file}")
        raw = _decoded(text)
        if len(raw) != 158 or raw[:2] != b"Ed" or raw[2:4] not in (CLEAR, SCRYPT) or raw[4:6] != b"B2":
            raise UsageError(f"{file}: is no secret key of minisign's format; make one: quantgate sign --new-key")
        return raw


def _is_key(text: str) -> bool:
    return len(text.strip()) == 56 and len(_decoded(text)) == 42


def _decoded(text: str) -> bytes:
    """The bytes of a key's text, with its comment line or without; nothing where it is no base64."""
    lines = [line for line in text.strip().splitlines() if not line.startswith("untrusted comment:")]
    try:
        return base64.b64decode(lines[0], validate=True) if len(lines) == 1 else b""
    except ValueError:
        return b""


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(b"Ed" + body, digest_size=32).digest()


def _xor(data: bytes, stream: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(data, stream, strict=True))


def _stream(password: str, salt: bytes, opslimit: int, memlimit: int) -> bytes:
    """104 bytes of scrypt at the cost that the file names."""
    power, lanes = scrypt_cost(opslimit, memlimit)
    needed = 128 * 8 * (2**power + lanes + 2)
    try:
        return hashlib.scrypt(password.encode(), salt=salt, n=2**power, r=8, p=lanes, maxmem=needed + 2**20, dklen=104)
    except (MemoryError, ValueError):
        raise UsageError(
            f"opening the key takes {needed / 2**20:.0f} MiB of memory, which is not there; free some"
        ) from None


def scrypt_cost(opslimit: int, memlimit: int) -> tuple[int, int]:
    """log2 of N, and p (r is 8), by libsodium's crypto_pwhash_scryptsalsa208sha256.

    >>> scrypt_cost(33_554_432, 1_073_741_824), scrypt_cost(524_288, 16_777_216)
    ((20, 1), (14, 1))
    """
    opslimit = max(opslimit, 32768)
    small = opslimit < memlimit // 32
    most = opslimit // 32 if small else memlimit // 1024
    power = next((one for one in range(1, 63) if 2**one > most // 2), 63)
    lanes = 1 if small else max(1, min((opslimit // 4) // 2**power, 0x3FFFFFFF) // 8)
    return power, lanes
