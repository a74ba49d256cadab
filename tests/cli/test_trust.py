"""The commands sign, verify and card, as a shell runs them: what they print, what they leave, how they exit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.release.made import artifact
from tests.release.test_verify import flip
from tests.report.conftest import report  # noqa: F401 - a fixture
from tests.report.test_card import kept

from quantgate.report import RunReport

SOURCE = Path(__file__).resolve().parents[2] / "src"


def quantgate(*words: str | Path, home: Path, password: str | None = None) -> subprocess.CompletedProcess[str]:
    told = {**os.environ, "PYTHONPATH": str(SOURCE), "HOME": str(home), "COLUMNS": "200"}
    told.pop("QUANTGATE_KEY_PASSWORD", None)
    if password is not None:
        told["QUANTGATE_KEY_PASSWORD"] = password
    return subprocess.run(
        [sys.executable, "-m", "quantgate", *map(str, words)], env=told, capture_output=True, text=True, timeout=120,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_artifact_is_signed_and_verified_and_a_changed_one_is_rejected(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    folder, key = tmp_path / "W4A16", tmp_path / "release.key"
    digest = artifact(folder)
    made = quantgate("sign", "--new-key", key, "--no-password", home=tmp_path)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "release.pub").read_text().splitlines()[1] in made.stdout
    assert key.read_text().splitlines()[1] not in made.stdout + made.stderr
    signed = quantgate("sign", folder, "--key", key, home=tmp_path)
    assert signed.returncode == 0 and (folder / "manifest.json.minisig").is_file(), signed.stderr
    good = quantgate("verify", folder, "--pubkey", tmp_path / "release.pub", "--digest", digest, home=tmp_path)
    assert good.returncode == 0 and f"as {digest} says" in good.stdout and "signed by" in good.stdout, good.stderr
    flip(folder / "model.safetensors")
    bad = quantgate("verify", folder, "-p", tmp_path / "release.pub", home=tmp_path)
    assert bad.returncode == 1 and "model.safetensors: holds other bytes" in bad.stderr
    again = quantgate("sign", folder, "--key", key, home=tmp_path)
    assert again.returncode == 1 and "holds other bytes" in again.stderr


def test_what_cannot_be_looked_at_exits_otherwise_than_what_is_wrong(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    folder = tmp_path / "W4A16"
    artifact(folder)
    key = "RWSQa01AxfqOflofnV07av2jopGksHkcys3JRwXoHOaNK8vrzgICylnm"
    codes = {
        (): 0,
        ("--pubkey", key): 1,  # there is no signature
        ("--digest", "sha256:" + "0" * 64): 1,
        ("--pubkey", "nowhere.pub"): 2,
    }
    for words, code in codes.items():
        done = quantgate("verify", folder, *words, home=tmp_path)
        assert done.returncode == code, (words, done.stderr)
        assert "Traceback" not in done.stderr
    gone = quantgate("verify", tmp_path / "gone", home=tmp_path)
    assert gone.returncode == 4 and "is not there" in gone.stderr


def test_password_is_taken_from_the_environment_and_never_shown(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    from quantgate.release.signing import new_key

    artifact(tmp_path / "W4A16")
    key = tmp_path / "release.key"
    new_key(key, tmp_path / "release.pub", password="open sesame", opslimit=65_536)
    asked = quantgate("sign", tmp_path / "W4A16", "--key", key, home=tmp_path)
    assert asked.returncode == 2 and "set QUANTGATE_KEY_PASSWORD" in asked.stderr
    wrong = quantgate("sign", tmp_path / "W4A16", "--key", key, home=tmp_path, password="guess")
    assert wrong.returncode == 1 and "guess" not in wrong.stderr
    right = quantgate("sign", tmp_path / "W4A16", "--key", key, home=tmp_path, password="open sesame")
    assert right.returncode == 0 and "sesame" not in right.stdout + right.stderr


def test_card_is_written_beside_the_manifest(report: RunReport, tmp_path: Path) -> None:  # noqa: F811
    run, _ = kept(report, tmp_path)
    done = quantgate("card", run, "W8A8", home=tmp_path)
    assert done.returncode == 0 and str(run / "artifacts" / "W8A8" / "README.md") in done.stdout, done.stderr
    assert quantgate("verify", run / "artifacts" / "W8A8", home=tmp_path).returncode == 0
    assert quantgate("card", run, "W9", home=tmp_path).returncode == 2
