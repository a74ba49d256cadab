"""The commands sign, verify and card, as a shell runs them: what they print, what they leave, how they exit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import Command
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


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of one's own, where keys and what was verified are remembered."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("QUANTGATE_KEY_PASSWORD", raising=False)


def test_artifact_is_signed_and_verified_and_a_changed_one_is_rejected(
    tmp_path: Path, home: None, command: Command
) -> None:
    pytest.importorskip("cryptography")
    folder, key = tmp_path / "W4A16", tmp_path / "release.key"
    digest = artifact(folder)
    made = command("sign", "--new-key", key, "--no-password")
    assert made[0] == 0, made[2]
    assert (tmp_path / "release.pub").read_text().splitlines()[1] in made[1]
    assert key.read_text().splitlines()[1] not in made[1] + made[2]
    signed = command("sign", folder, "--key", key)
    assert signed[0] == 0 and (folder / "manifest.json.minisig").is_file(), signed[2]
    good = command("verify", folder, "--pubkey", tmp_path / "release.pub", "--digest", digest)
    assert good[0] == 0 and f"as {digest} says" in good[1] and "signed by" in good[1], good[2]
    flip(folder / "model.safetensors")
    bad = command("verify", folder, "-p", tmp_path / "release.pub")
    assert bad[0] == 1 and "model.safetensors: holds other bytes" in bad[2]
    again = command("sign", folder, "--key", key)
    assert again[0] == 1 and "holds other bytes" in again[2]


def test_what_cannot_be_looked_at_exits_otherwise_than_what_is_wrong(
    tmp_path: Path, home: None, command: Command
) -> None:
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
        done = command("verify", folder, *words)
        assert done[0] == code, (words, done[2])
        assert "Traceback" not in done[2]
    gone = command("verify", tmp_path / "gone")
    assert gone[0] == 4 and "is not there" in gone[2]


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


def test_card_is_written_beside_the_manifest(report: RunReport, tmp_path: Path, home: None, command: Command) -> None:  # noqa: F811
    run, _ = kept(report, tmp_path)
    done = command("card", run, "W8A8")
    assert done[0] == 0 and str(run / "artifacts" / "W8A8" / "README.md") in done[1], done[2]
    assert command("verify", run / "artifacts" / "W8A8")[0] == 0
    assert command("card", run, "W9")[0] == 2
