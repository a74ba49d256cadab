"""Keys: a secret is kept as a keyed hash alone, works within a moment, and ends within a moment."""

from __future__ import annotations

import os
import stat
import time

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from tests.serve.databases import url

from quantgate.errors import QuantgateError, UsageError
from quantgate.serve import OverBudget
from quantgate.serve._ledger_sql import KEYS, connect, create
from quantgate.serve.folder import DataFolder
from quantgate.serve.keys import WRONG_A_SECOND, KeyBook, KeyRing, hashed
from quantgate.serve_config import Budget

__all__ = ["url"]
PEPPER = b"p" * 32
DAILY = Budget.model_validate({"tokens": "1M/day"})


@pytest.fixture
def book(url):
    engine = connect(url)
    create(engine)
    yield KeyBook(engine, PEPPER)
    engine.dispose()


@pytest.fixture
def ring(book):
    made = KeyRing(book, poll_s=0.01)
    made.start()
    yield made
    made.close()


def until(true, *, limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.005)


def test_a_new_key_is_known_soon_and_a_revoked_one_is_not(book, ring):
    row, secret = book.new("team-a", frozenset({"use"}), DAILY)
    until(lambda: ring.find(secret) is not None)
    caller = ring.find(secret)
    assert (caller.key, caller.scopes, caller.budget) == (row.id, frozenset({"use"}), row.account)
    assert ring.budget(row.account) == DAILY
    book.revoke(row.id)
    until(lambda: ring.find(secret) is None)


def test_a_key_without_limits_has_no_account_to_charge(book, ring):
    _, secret = book.new("free")
    until(lambda: ring.find(secret) is not None)
    assert ring.find(secret).budget == ""


def test_the_secret_stands_nowhere_in_the_database(book, tmp_path):
    row, secret = book.new("team-a")
    with book.engine.begin() as link:
        kept = str(link.execute(sa.select(KEYS)).all())
    assert secret not in kept
    assert secret.split("_", 2)[2] not in kept
    assert hashed(secret, PEPPER) in kept
    assert hashed(secret, b"q" * 32) not in kept
    assert secret not in repr(row)


def test_rotation_keeps_account_and_budget_and_ends_the_old_secret(book, ring):
    row, old = book.new("team-a", frozenset({"use", "admin"}), DAILY)
    made, new = book.rotate(row.id)
    assert (made.account, made.budget, made.scopes) == (row.account, row.budget, row.scopes)
    until(lambda: ring.find(new) is not None)
    until(lambda: ring.find(old) is None)
    with pytest.raises(UsageError, match="is revoked; make a new one"):
        book.rotate(row.id)


def test_an_old_secret_may_be_kept_for_a_while(book, ring):
    row, old = book.new("team-a")
    _, new = book.rotate(row.id, keep_s=3600)
    until(lambda: ring.find(new) is not None)
    assert ring.find(old) is not None
    book.revoke(row.id)
    until(lambda: ring.find(old) is None)


def test_a_key_of_another_pepper_is_nobodys(book):
    _, secret = book.new("team-a")
    other = KeyRing(KeyBook(book.engine, b"q" * 32))
    other.start()
    assert other.find(secret) is None
    other.close()


@given(st.text())
def test_no_text_is_a_key_by_chance(text):
    engine = connect("sqlite://")
    create(engine)
    ring = KeyRing(KeyBook(engine, PEPPER))
    assert ring.find(text) is None
    assert ring.find("qg_" + text) is None
    engine.dispose()


def test_a_changed_letter_is_another_key(book, ring):
    _, secret = book.new("team-a")
    until(lambda: ring.find(secret) is not None)
    for at in range(len(secret)):
        changed = secret[:at] + ("A" if secret[at] != "A" else "B") + secret[at + 1 :]
        assert ring.find(changed) is None


def test_wrong_keys_are_slowed_down_and_right_ones_are_not(book, ring):
    _, secret = book.new("team-a")
    until(lambda: ring.find(secret) is not None)
    with pytest.raises(OverBudget, match="too many requests with wrong keys"):
        for _ in range(10 * WRONG_A_SECOND):
            ring.find("qg_k0000000000_wrong")
    assert ring.find(secret) is not None


def test_known_keys_work_for_a_grace_time_without_the_database_and_then_nobodys_does(postgres):
    engine = connect(postgres.url())
    create(engine)
    book = KeyBook(engine, PEPPER)
    _, secret = book.new("team-a")
    patient, strict = KeyRing(book, poll_s=0.01), KeyRing(book, poll_s=0.01, grace_s=0.2)
    patient.start()
    strict.start()
    postgres.kill()
    try:
        until(lambda: patient.trouble is not None)
        until(lambda: strict.find(secret) is None)
        assert patient.find(secret) is not None
        with pytest.raises(QuantgateError, match="keys cannot be written"):
            book.new("team-b")
    finally:
        postgres.start()
    until(lambda: strict.find(secret) is not None)
    until(lambda: patient.trouble is None)
    patient.close()
    strict.close()
    engine.dispose()


def cut_once(engine: sa.Engine, other: sa.Engine) -> list[int]:
    """The server ends the connection of the next statement about keys, after it was found to be alive: its process."""
    ended = list[int]()

    def cut(link, _cursor, statement, *_):
        if "gateway_" in statement and not ended:
            ended.append(link.connection.driver_connection.info.backend_pid)
            with other.begin() as killer:
                assert killer.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": ended[0]}).scalar()

    sa.event.listen(engine, "before_cursor_execute", cut)
    return ended


def test_a_connection_that_ends_in_the_midst_is_a_sentence_and_no_end_of_the_keys(postgres):
    place = postgres.url()
    engine, other = connect(place), connect(place)
    create(engine)
    book = KeyBook(engine, PEPPER)
    for what, ask in (("read", book.changes), ("read", book.rows), ("written", lambda: book.new("team-a"))):
        cut_once(engine, other)
        with pytest.raises(QuantgateError, match=f"keys cannot be {what}: .*; check that the database is up"):
            ask()
        ask()
    ring = KeyRing(book, poll_s=0.01)
    ring.start()
    ended = cut_once(engine, other)
    until(lambda: ended)
    _, secret = book.new("team-b")
    until(lambda: ring.find(secret) is not None)
    ring.close()
    engine.dispose()
    other.dispose()


@pytest.mark.parametrize(
    ("name", "scopes", "sentence"),
    [
        ("", {"use"}, "a name of 1 to 64"),
        ("x" * 65, {"use"}, "a name"),
        ("a", set(), "at least one"),
        ("a", {"usr"}, "no scope; did you mean 'use'"),
    ],
)
def test_keys_that_cannot_be(book, name, scopes, sentence):
    with pytest.raises(UsageError, match=sentence):
        book.new(name, frozenset(scopes))
    assert book.rows() == []


def test_a_key_that_is_not_there_is_told_with_the_nearest(book):
    row, _ = book.new("team-a")
    wrong = row.id[:-1] + ("0" if row.id[-1] != "0" else "1")
    with pytest.raises(UsageError, match=f"no key has the id '{wrong}'; did you mean '{row.id}'"):
        book.revoke(wrong)


def test_the_secret_of_a_data_folder_is_made_once_and_its_owners_alone(tmp_path):
    folder = DataFolder(tmp_path / "data")
    assert folder.secret() == folder.secret()
    file = tmp_path / "data" / "secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert DataFolder(tmp_path / "other").secret() != folder.secret()
    os.chmod(file, 0o644)
    with pytest.raises(UsageError, match="others may read it"):
        folder.secret()


def test_a_secret_that_is_given_is_shared_and_must_be_long(tmp_path):
    one, other = (DataFolder(tmp_path / name, "s" * 32) for name in ("one", "other"))
    assert one.secret() == other.secret()
    assert not (tmp_path / "one").exists()
    with pytest.raises(UsageError, match="has 5 characters, expected 32"):
        DataFolder(tmp_path, "short").secret()


def test_a_data_folder_that_cannot_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(QuantgateError, match="the data folder cannot be made"):
        DataFolder(tmp_path / "file" / "data").make()
