"""Bytes and signature together, here and at an address."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.release.made import artifact

pytest.importorskip("cryptography", reason="cryptography is not installed: pip install 'quantgate[sign]'")

from quantgate.errors import ArtifactError, SignatureError, UsageError, WrongBytes
from quantgate.models.locate import REFERENCE, REFERENCE_FOLDER
from quantgate.models.tensors import open_tensors
from quantgate.release.artifacts import put
from quantgate.release.keys import SecretKey
from quantgate.release.signing import sign
from quantgate.release.trust import endorse, examine


@pytest.fixture
def secret() -> SecretKey:
    return SecretKey.new()


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, str]:
    return tmp_path / "W4A16", artifact(tmp_path / "W4A16")


@pytest.fixture
def memory() -> Iterator[str]:
    import fsspec

    yield "memory://signed"
    fsspec.filesystem("memory").store.clear()


def test_signed_artifact_at_an_address_is_examined_whole(
    made: tuple[Path, str], secret: SecretKey, memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where fetched folders are kept
    folder, digest = made
    put(folder, memory)
    endorse(folder, secret, comment="released")
    found = examine(put(folder, memory), keys=[secret.public.line], digest=digest, kept=None)
    assert found.bytes and found.signed and found.bytes.digest == digest and found.signed.comment == "released"


def test_signature_of_one_artifact_is_none_of_another(
    made: tuple[Path, str], secret: SecretKey, tmp_path: Path
) -> None:
    folder, _ = made
    endorse(folder, secret)
    other = tmp_path / "other"
    artifact(other, "W2A16")
    shutil.copy(folder / "manifest.json.minisig", other)
    with pytest.raises(SignatureError, match=r"manifest\.json: is not what key"):
        examine(str(other), keys=[secret.public.line], kept=None)


def test_right_signature_does_not_excuse_wrong_bytes(made: tuple[Path, str], secret: SecretKey) -> None:
    folder, _ = made
    endorse(folder, secret)
    (folder / "tokenizer.json").write_text('{"version": "9.9"}')
    with pytest.raises(WrongBytes, match=r"tokenizer\.json"):
        examine(str(folder), keys=[secret.public.line], kept=None)
    with pytest.raises(WrongBytes, match=r"tokenizer\.json"):
        endorse(folder, secret)


def test_older_artifact_with_a_right_signature_is_not_the_one_asked_for(
    made: tuple[Path, str], secret: SecretKey, tmp_path: Path
) -> None:
    old, _ = made
    endorse(old, secret)
    newer = artifact(tmp_path / "newer")
    with pytest.raises(WrongBytes, match="was asked for"):
        examine(str(old), keys=[secret.public.line], digest=newer, kept=None)


def test_file_by_itself_is_what_its_signature_covers(secret: SecretKey, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" * 100)
    with pytest.raises(UsageError, match="name the key that signed it"):
        examine(str(file), kept=None)
    sign(file, secret)
    assert examine(str(file), keys=[secret.public.line], kept=None).signed
    file.write_bytes(b"GGUF" * 99)
    with pytest.raises(SignatureError):
        examine(str(file), keys=[secret.public.line], kept=None)


def test_baseline_is_examined_by_the_digest_of_its_weights() -> None:
    digest = open_tensors(REFERENCE_FOLDER).content_digest()
    found = examine(REFERENCE, digest=digest, kept=None)
    assert found.bytes and found.bytes.digest == digest and found.place == REFERENCE_FOLDER
    with pytest.raises(WrongBytes, match="the baseline of the release is sha256:0"):
        examine(str(REFERENCE_FOLDER), digest="sha256:" + "0" * 64, kept=None)


def test_folder_without_a_manifest_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="name the digest"):
        examine(str(tmp_path), kept=None)
    with pytest.raises(ArtifactError, match="is not there"):
        examine(str(tmp_path / "gone"), kept=None)
