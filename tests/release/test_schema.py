"""The registry's tables: made once, upgraded when asked, refused where they differ."""

from __future__ import annotations

import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from tests.release.given import BASE, register

from quantgate.errors import ReleaseError
from quantgate.release.checking import problems
from quantgate.release.database import address, connected
from quantgate.release.lifecycle import promote
from quantgate.release.schema import _migrate, installed, known, upgrade, upgrade_sql
from quantgate.release.store import Registry
from quantgate.release.tables import HEAD, VERSION_TABLE, metadata


def old(url: str) -> sa.URL:
    """A registry of the first version, with a row in it."""
    where = address(url)
    if where.drivername == "sqlite":
        Path(str(where.database)).touch()
    with connected(where) as engine:
        _migrate(engine, where, "0001", only_if=None)
        with engine.begin() as connection:
            columns, values = "digest, name, artifact, engine, record, at, who", "'d', 'A', 'a', 'e', '{}', '', ''"
            connection.execute(sa.text(f"INSERT INTO variants ({columns}) VALUES ({values})"))
    return where


def test_the_newest_step_is_the_one_that_the_code_knows() -> None:
    assert known()[-1] == HEAD and list(known()) == sorted(known())


def test_the_steps_make_the_tables_that_the_code_uses(registry: Registry) -> None:
    with registry.engine.connect() as connection:
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    assert found == []


def test_an_older_registry_is_refused_and_upgraded_when_asked(url: str) -> None:
    where = old(url)
    with pytest.raises(ReleaseError, match="its tables are of version 0001 and this quantgate needs 0002; run"):
        Registry.open(url)
    upgrade(where)
    assert installed(where) == HEAD
    with connected(where) as engine, engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT name FROM variants")) == "A"
    register(Registry.open(url, "ada"), B="pass")


def test_a_sqlite_file_is_copied_before_it_is_upgraded(tmp_path: Path) -> None:
    where = old(str(tmp_path / "quantgate.db"))
    copy = upgrade(where, now=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert copy == tmp_path / "quantgate.db.0001.20260102T030405.backup"
    assert installed(address(str(copy))) == "0001"
    kept = sqlite3.connect(copy)
    assert kept.execute("SELECT name FROM variants").fetchall() == [("A",)]
    kept.close()
    assert upgrade(where) is None
    assert sorted(path.name for path in tmp_path.iterdir() if "backup" in path.name) == [copy.name]


def test_a_dry_run_prints_the_sql_and_changes_nothing(url: str) -> None:
    where = old(url)
    told = upgrade_sql(where)
    assert "CREATE TRIGGER" in told and "UPDATE registry_version SET version_num='0002'" in told
    assert installed(where) == "0001"
    upgrade(where)
    assert upgrade_sql(where) == ""


def test_the_sql_of_a_dry_run_does_what_the_upgrade_does(tmp_path: Path) -> None:
    where = old(str(tmp_path / "quantgate.db"))
    raw = sqlite3.connect(tmp_path / "quantgate.db")
    raw.executescript(upgrade_sql(where))
    raw.close()
    register(Registry.open(str(tmp_path / "quantgate.db"), "ada"), A="pass")


def test_a_registry_of_a_newer_quantgate_is_refused(registry: Registry) -> None:
    with registry.engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '0099'"))
    with pytest.raises(ReleaseError, match="version 0099, which this quantgate does not know; install the newer"):
        Registry.open(registry.url.render_as_string(hide_password=False))
    with pytest.raises(ReleaseError, match="install the newer"):
        upgrade(registry.url)


def test_tables_of_somebody_else_are_left_alone(url: str) -> None:
    where = address(url)
    if where.drivername == "sqlite":
        Path(str(where.database)).touch()
    with connected(where) as engine, engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE moves (chess TEXT)"))
    with pytest.raises(ReleaseError, match="a table 'moves' that quantgate did not make"):
        Registry.open(url, create=True)


def test_two_who_make_a_registry_at_once_make_one(url: str) -> None:
    together, failed = threading.Barrier(4), list[Exception]()

    def one() -> None:
        together.wait()
        try:
            register(Registry.open(url, "ada", create=True), A="pass")
        except Exception as problem:
            failed.append(problem)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    registry = Registry.open(url, "ada")
    assert registry.live("fleet").stable == BASE and len(registry.history("fleet")) == 1
    assert promote(registry, "fleet", "A").revision == 2
    assert problems(registry).problems == ()
