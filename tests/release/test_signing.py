"""Signatures that the program minisign reads, and that no change of file, comment or key survives."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.release.made import artifact

pytest.importorskip("cryptography", reason="cryptography is not installed: pip install 'quantgate[sign]'")

from quantgate.errors import SignatureError, UsageError
from quantgate.release.keys import PublicKey, SecretKey
from quantgate.release.signing import Signature, check, new_key, sign, signature_of

CHEAP = 65_536  # opslimit: 2 MiB and a few milliseconds
PROGRAM = shutil.which("minisign")
with_minisign = pytest.mark.skipif(PROGRAM is None, reason="minisign is not installed: apt-get install minisign")

# made by minisign 0.11: minisign -G -W, then minisign -S -t 'a comment' over the four bytes "hi\\n" of a file
PUBLIC = "RWSQa01AxfqOflofnV07av2jopGksHkcys3JRwXoHOaNK8vrzgICylnm"
SIGNATURE = """\
untrusted comment: signature from minisign secret key
RUSQa01AxfqOfhsvIObNkWNz8azYjcqx9TIntKe0/lhF7XpY9/K6ddkwlRDTLSYzl0DECDsDDigVWVp16TQ8jdXrJ7UUJiN7owI=
trusted comment: a comment
RgSe3OTnuN/gd/gpVZzGAX1FZr5Lnqa5+4tKMVinYzIowHtihArzf1iju43mKdAlzumBDaLu5IAGQvQZryhZAA==
"""


def minisign(*words: str | Path, says: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAM), *map(str, words)], input=says, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def made(tmp_path: Path) -> Path:
    artifact(tmp_path / "W4A16")
    return tmp_path / "W4A16"


@pytest.fixture
def secret(tmp_path: Path) -> SecretKey:
    return new_key(tmp_path / "release.key", tmp_path / "release.pub")


def test_known_signature_of_the_program_is_right(tmp_path: Path) -> None:
    file = tmp_path / "m"
    file.write_text("hi\n")
    (tmp_path / "m.minisig").write_text(SIGNATURE)
    found = check(file, [PublicKey.read(PUBLIC)])
    assert (found.comment, found.key) == ("a comment", "7E8EFAC5404D6B90")
    assert PublicKey.read(PUBLIC).line == PUBLIC


def test_artifact_is_signed_by_its_manifest_and_the_comment_names_it(made: Path, secret: SecretKey) -> None:
    at = sign(made, secret, at=1_700_000_000)
    assert at == made / "manifest.json.minisig"
    found = check(made, [secret.public])
    assert found.file == made / "manifest.json" and found.key == secret.public.name
    assert found.comment.startswith("timestamp:1700000000\tfile:manifest.json\thashed\tartifact:sha256:")


def test_any_of_the_trusted_keys_will_do(made: Path, secret: SecretKey) -> None:
    sign(made, secret, comment="mine")
    assert check(made, [SecretKey.new().public, secret.public]).comment == "mine"


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_bit_of_file_or_signature_can_change_unseen(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("signed")
    file, key = folder / "file", SecretKey._of(b"12345678", bytes(range(32)))
    file.write_bytes(b"bytes of a manifest")
    sign(file, key, comment="of whom", at=0)
    signature = signature_of(file).read_bytes()
    start = signature.index(b"\n") + 1  # the first comment is nobody's word
    raw = bytearray(file.read_bytes() + signature[start:])
    raw[at % len(raw)] ^= 1 << bit
    file.write_bytes(raw[:19])
    signature_of(file).write_bytes(signature[:start] + raw[19:])
    same = decoded(signature) == decoded(signature_of(file).read_bytes()) and raw[:19] == b"bytes of a manifest"
    if same:  # base64 leaves bits of its last letters unused
        assert check(file, [key.public]).comment == "of whom"
    else:
        with pytest.raises(SignatureError):
            check(file, [key.public])


def decoded(signature: bytes) -> list[bytes]:
    try:
        lines = signature.decode().rstrip("\n").split("\n")
        return [base64.b64decode(lines[1], validate=True), lines[2].encode(), base64.b64decode(lines[3].strip())]
    except (ValueError, IndexError):
        return [signature]


def test_what_is_wrong_is_told_in_one_sentence(made: Path, secret: SecretKey, tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match=r"manifest\.json\.minisig: there is no signature"):
        check(made, [secret.public])
    at = sign(made, secret)
    other = SecretKey.new().public
    with pytest.raises(SignatureError, match=rf"was made by key {secret.public.name}, and trusted is {other.name}"):
        check(made, [other])
    with pytest.raises(UsageError, match="no public key was given"):
        check(made, [])
    text = at.read_text()
    at.write_text(text.replace("hashed", "hushed"))
    with pytest.raises(SignatureError, match=r"its comment is not what key"):
        check(made, [secret.public])
    at.write_text(text)
    impostor = PublicKey(secret.id, other.raw)
    with pytest.raises(SignatureError, match=r"manifest\.json: is not what key .* signed"):
        check(made, [impostor])
    for broken in ("", "x\n", text.replace("trusted comment", "comment"), text + "more\n"):
        at.write_text(broken)
        with pytest.raises(SignatureError, match=r"no signature of minisign's format"):
            check(made, [secret.public])
    with pytest.raises(UsageError, match="nothing to sign"):
        sign(tmp_path / "nowhere", secret)
    with pytest.raises(UsageError, match="one line"):
        sign(made, secret, comment="two\nlines")
    (made / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match="is no manifest"):
        sign(made, secret)


def test_secret_key_is_for_its_owner_alone_and_never_shown(secret: SecretKey, tmp_path: Path) -> None:
    file = tmp_path / "release.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert secret.seed.hex() not in repr(secret) and str(secret.seed) not in repr(secret)
    assert SecretKey.read(file) == secret and PublicKey.read(tmp_path / "release.pub") == secret.public
    file.chmod(0o640)
    with pytest.raises(UsageError, match=r"other users may read .* chmod 600"):
        SecretKey.read(file)


def test_key_is_never_written_over(secret: SecretKey, tmp_path: Path) -> None:
    before = (tmp_path / "release.key").read_bytes()
    with pytest.raises(UsageError, match=r"release\.key: is there already"):
        new_key(tmp_path / "release.key", tmp_path / "other.pub")
    with pytest.raises(UsageError, match=r"release\.pub: is there already"):
        new_key(tmp_path / "other.key", tmp_path / "release.pub")
    assert (tmp_path / "release.key").read_bytes() == before and not (tmp_path / "other.key").exists()


def test_key_that_could_not_be_made_whole_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder.pub.partial").write_text("")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file"):
        new_key(tmp_path / "a.key", tmp_path / "file" / "a.pub")
    assert not (tmp_path / "a.key").exists()


def test_encrypted_key_opens_with_its_password_alone(tmp_path: Path) -> None:
    made = new_key(tmp_path / "a.key", tmp_path / "a.pub", password="correct horse", opslimit=CHEAP)
    raw = base64.b64decode((tmp_path / "a.key").read_text().splitlines()[1])
    assert made.seed not in raw and SecretKey.is_encrypted(tmp_path / "a.key")
    assert SecretKey.read(tmp_path / "a.key", "correct horse") == made
    with pytest.raises(SignatureError, match="the password is not that of this key"):
        SecretKey.read(tmp_path / "a.key", "wrong horse")
    with pytest.raises(UsageError, match="is encrypted; give its password"):
        SecretKey.read(tmp_path / "a.key")


def test_key_file_that_asks_for_all_memory_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "greedy.key"
    text = SecretKey.new().text("x", opslimit=CHEAP).splitlines()
    raw = bytearray(base64.b64decode(text[1]))
    raw[46:54] = (2**50).to_bytes(8, "little")
    file.write_text(f"{text[0]}\n{base64.b64encode(bytes(raw)).decode()}\n")
    file.chmod(0o600)
    with pytest.raises(UsageError, match="to be opened; make a new key"):
        SecretKey.read(file, "x")


@pytest.mark.parametrize("text", ["", "x", "untrusted comment: y\n", "untrusted comment: y\nRWQ=\n", "\x00"])
def test_file_that_is_no_key_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.key"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(UsageError, match="is no secret key"):
        SecretKey.read(file)
    with pytest.raises(UsageError, match="is no public key"):
        PublicKey.read(file)
    with pytest.raises(UsageError, match="no such public key"):
        PublicKey.read("nowhere.pub")
    with pytest.raises(UsageError, match="no such secret key"):
        SecretKey.read(tmp_path / "nowhere")


def test_halves_of_two_keys_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.key"
    raw = bytearray(base64.b64decode(SecretKey.new().text().splitlines()[1]))
    raw[-33] ^= 1
    file.write_text(f"untrusted comment: x\n{base64.b64encode(bytes(raw)).decode()}\n")
    file.chmod(0o600)
    with pytest.raises(UsageError, match="two halves do not belong together"):
        SecretKey.read(file)


@with_minisign
def test_program_accepts_our_signature_and_refuses_it_over_other_bytes(made: Path, secret: SecretKey) -> None:
    sign(made, secret, comment="of quantgate")
    told = minisign("-V", "-H", "-P", secret.public.line, "-m", made / "manifest.json")
    assert told.returncode == 0 and "of quantgate" in told.stdout, told.stderr
    with (made / "manifest.json").open("a") as file:
        file.write(" ")
    assert minisign("-V", "-P", secret.public.line, "-m", made / "manifest.json").returncode == 1


@with_minisign
@pytest.mark.parametrize("older", [False, True])
def test_we_accept_what_the_program_signs(made: Path, tmp_path: Path, older: bool) -> None:
    assert minisign("-G", "-W", "-p", tmp_path / "m.pub", "-s", tmp_path / "m.key").returncode == 0
    kind = ["-l"] if older else []
    told = minisign("-S", *kind, "-s", tmp_path / "m.key", "-m", made / "manifest.json", "-t", "by the program")
    assert told.returncode == 0, told.stderr
    assert Signature.read(signature_of(made)).prehashed is not older
    assert check(made, [PublicKey.read(tmp_path / "m.pub")]).comment == "by the program"
    assert SecretKey.read(tmp_path / "m.key").public == PublicKey.read(tmp_path / "m.pub")


@with_minisign
def test_program_signs_with_our_key_encrypted_or_not(made: Path, tmp_path: Path) -> None:
    for name, password in (("clear", ""), ("closed", "a password")):
        new_key(tmp_path / f"{name}.key", tmp_path / f"{name}.pub", password=password, opslimit=CHEAP)
        says = f"{password}\n" if password else ""
        told = minisign("-S", "-s", tmp_path / f"{name}.key", "-m", made / "manifest.json", "-t", name, says=says)
        assert told.returncode == 0, told.stdout + told.stderr
        assert check(made, [PublicKey.read(tmp_path / f"{name}.pub")]).comment == name


@with_minisign
def test_encrypted_key_of_the_program_opens_with_its_password(tmp_path: Path) -> None:
    """At the program's own cost, which takes a gigabyte of memory for a few seconds."""
    made = minisign("-G", "-p", tmp_path / "m.pub", "-s", tmp_path / "m.key", says="open\nopen\n")
    assert made.returncode == 0, made.stderr
    assert SecretKey.read(tmp_path / "m.key", "open").public == PublicKey.read(tmp_path / "m.pub")
