"""Connections of the registry: what is put off while its log is held open, and what is not."""

from __future__ import annotations

from pathlib import Path

from tests.release.given import register

from quantgate.release.database import held
from quantgate.release.lifecycle import promote, rollback
from quantgate.release.store import Registry


def test_while_the_log_is_held_a_move_is_seen_at_once_and_written_back_afterwards(tmp_path: Path) -> None:
    file, log = tmp_path / "registry.db", tmp_path / "registry.db-wal"
    registry = Registry.open(f"sqlite:///{file}", "ada", create=True)
    other = Registry.open(f"sqlite:///{file}", "bob")
    register(registry, A="pass")
    promote(registry, "fleet", "A", canary=0.5)
    assert not log.exists()
    before = file.read_bytes()
    let_go = held(registry.engine)
    move = rollback(registry, "fleet", why="worse")
    assert move is not None and other.live("fleet") == move.live
    assert file.read_bytes() == before and log.stat().st_size > 0  # nobody who closed the file wrote it back
    let_go()
    assert not log.exists() and file.read_bytes() != before
    assert other.live("fleet") == move.live
    registry.close()
    other.close()
