"""What the registry keeps, and what it refuses to forget."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from tests.decide.conftest import comparison_of, gate_of
from tests.postgres import Postgres
from tests.release.given import BASE, decision_of, register, variant_of, verdict_of
from tests.report.targeted import evidence_of

from quantgate.decide import Decision, VariantVerdict
from quantgate.errors import RecordError, ReleaseError, UnknownName, UsageError
from quantgate.records import digest_of
from quantgate.release import Live, Variant
from quantgate.release.checking import problems
from quantgate.release.database import address, settled, shown
from quantgate.release.lifecycle import hold, promote, rollback
from quantgate.release.store import Registry


def test_what_was_registered_is_read_back_as_it_was(registry: Registry) -> None:
    a, b = variant_of("A", location="artifacts/A"), variant_of("B")
    proof = evidence_of("A", 3)
    decided = decision_of("fleet", verdict_of(a), verdict_of(b, "fail"))
    done = registry.register([a, b], [proof], {"fleet": decided}, baseline=BASE)
    assert (done.added, done.opened, done.other_baseline) == (5, ("fleet",), ())
    assert registry.variants("fleet") == (b, a)
    assert registry.variants() == (BASE, b, a)
    assert registry.evidence(proof.artifact, proof.engine) == (proof,)
    assert registry.decisions("fleet") == (decided,)
    found = registry.decided("fleet", a.artifact, a.engine)
    assert found and (found.passed, found.chosen, found.sentence, found.who, found.decision) == (
        True, True, "keeps all 3 rules", "ada", decided.digest,
    )  # fmt: skip


def test_registering_again_adds_nothing(registry: Registry) -> None:
    register(registry, A="pass")
    again = registry.register([variant_of("A")], decided={}, baseline=BASE)
    assert again.added == 0
    register(registry, A="pass")
    assert len(registry.decisions("fleet")) == len(registry.history("fleet")) == 1


def test_a_decision_without_targets_counts_for_the_target_it_is_given_to(registry: Registry) -> None:
    a = variant_of("A")
    judged = VariantVerdict(
        variant="A", artifact=a.artifact, engine=a.engine, verdict="pass", eligible=True, sentence="passed",
        capabilities=(),
    )  # fmt: skip
    plain = Decision(
        order="e-bonferroni", alpha=0.05, baseline=BASE.artifact, chosen="A", sentence="A", verdicts=(judged,)
    )
    registry.register([a], decided={"default": plain, "other": plain}, baseline=BASE)
    assert registry.targets() == ("default", "other")
    assert promote(registry, "default", "A").stable == a
    assert registry.live("other").stable == BASE
    assert registry.decisions("default") == (plain,)


def test_a_gateway_hears_of_a_move_and_of_nothing_else(registry: Registry) -> None:
    register(registry, A="pass")
    assert registry.changed("fleet", 1) is None
    assert registry.changed("nobody's", 0) is None
    live = promote(registry, "fleet", "A", canary=0.05)
    assert registry.changed("fleet", 1) == live
    assert registry.changed("fleet", 2) is None
    assert (registry.revision("fleet"), registry.revision("nobody's")) == (2, 0)


def test_no_move_is_missed_however_soon_it_is_asked_for(url: str) -> None:
    """One who moves as fast as he can, another who asks after every move and in between."""
    mover, asker = Registry.open(url, "ada", create=True), Registry.open(url)
    register(mover, A="pass")
    known = asker.live("fleet")
    for at in range(60):
        assert asker.changed("fleet", known.revision) is None
        moved = hold(mover, "fleet", off=at % 2 == 1)
        assert asker.changed("fleet", known.revision) == moved
        known = moved


def test_a_file_that_nobody_writes_to_is_not_opened_again(tmp_path: Path) -> None:
    file = tmp_path / "quantgate.db"
    register(Registry.open(str(file), "ada", create=True), A="pass")
    os.utime(file, (1_000_000_000, 1_000_000_000))  # long ago
    registry, opened = Registry.open(str(file)), list[object]()
    sa.event.listen(registry.engine, "begin", opened.append)
    for _ in range(5):
        assert registry.changed("fleet", 1) is None
    assert len(opened) == 1
    live = promote(Registry.open(str(file), "ada"), "fleet", "A")
    assert registry.changed("fleet", 1) == live
    assert registry.changed("fleet", 0) == live and registry.changed("fleet", 2) is None
    file.unlink()
    with pytest.raises(ReleaseError, match="cannot be opened"):
        registry.changed("fleet", 2)


def test_a_move_is_heard_while_another_program_keeps_the_log_open(tmp_path: Path) -> None:
    file = tmp_path / "quantgate.db"
    mover = Registry.open(str(file), "ada", create=True)
    register(mover, A="pass")
    keeps = sqlite3.connect(file)
    assert keeps.execute("SELECT count(*) FROM moves").fetchone() == (1,)
    asker = Registry.open(str(file))
    until = time.monotonic() + 30
    while settled(mover.url) is None and time.monotonic() < until:  # until a look at the file is trusted
        assert asker.changed("fleet", 1) is None
    assert asker.changed("fleet", 1) is None
    live = promote(mover, "fleet", "A")
    assert asker.changed("fleet", 1) == live
    keeps.close()


def test_the_history_tells_who_when_why_from_where_to_where(url: str) -> None:
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    with_clock = Registry.open(url, "ada", create=True, now=lambda: noon)
    (a,) = register(with_clock, A="pass")
    promote(with_clock, "fleet", "A", canary=0.05, why="fair week is over")
    latest, first = Registry.open(url, "bob").history("fleet")
    assert (latest.at, latest.who, latest.what, latest.why) == (noon.isoformat(), "ada", "canary", "fair week is over")
    assert latest.before == first.live and latest.live.canary == a and latest.previous == first.digest
    assert (first.what, first.before, first.previous, first.revision) == ("open", None, "", 1)
    assert latest.decision == with_clock.decisions("fleet")[0].digest
    assert with_clock.history("fleet", limit=1) == (latest,)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE moves SET who = 'eve'",
        "DELETE FROM moves",
        "UPDATE decisions SET baseline = 'x'",
        "DELETE FROM verdicts",
        "UPDATE verdicts SET eligible = true",
        "DELETE FROM variants",
        "UPDATE evidence SET record = '{}'",
        "DELETE FROM pointers",
        "UPDATE pointers SET revision = revision - 1",
        "UPDATE pointers SET record = '{}'",
    ],
)
def test_the_database_itself_keeps_what_was_registered(registry: Registry, statement: str) -> None:
    register(registry, A="pass")
    registry.register(proofs=[evidence_of("A", 0)])
    with pytest.raises(DBAPIError, match=r"only added|moves up by one"), registry.engine.begin() as connection:
        connection.execute(sa.text(statement))
    assert problems(registry).problems == ()


def test_postgresql_refuses_to_empty_a_table(postgres: Postgres) -> None:
    registry = Registry.open(postgres.url(), "ada", create=True)
    register(registry, A="pass")
    with pytest.raises(DBAPIError, match="only added"), registry.engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE moves"))


Edit = Callable[[sqlite3.Connection], object]


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (
            "UPDATE moves SET record = replace(record, '\"ada\"', '\"eve\"') WHERE revision = 2",
            "does not match its digest",
        ),
        ("UPDATE moves SET record = '{' WHERE revision = 2", "not a record of quantgate"),
        ("UPDATE moves SET record = '{' WHERE revision = 3", "its last move: not a record of quantgate"),
        ("DELETE FROM moves WHERE revision = 2", "does not follow the move before it"),
        ("UPDATE pointers SET record = (SELECT record FROM pointers WHERE target = 'laptop')", "is not where its last"),
        ("UPDATE verdicts SET verdict = 'pass', eligible = 1", "its columns and verdicts are not those of its record"),
        ("UPDATE variants SET artifact = 'sha256:other' WHERE name = 'A'", "its columns are not those of its record"),
        ("UPDATE evidence SET engine = 'other'", "its columns are not those of its record"),
        ("UPDATE decisions SET record = replace(record, 'breaks', 'keeps')", "does not match its digest"),
    ],
)
def test_an_edited_database_is_found_out(tmp_path: Path, edit: str, told: str) -> None:
    registry = Registry.open(str(tmp_path / "quantgate.db"), "ada", create=True)
    register(registry, A="pass", B="fail")
    register(registry, "laptop", A="pass", B="fail")
    registry.register(proofs=[evidence_of("A", 0)])
    promote(registry, "fleet", "A", canary=0.05)
    hold(registry, "fleet")
    assert problems(registry).problems == ()
    _edit(tmp_path / "quantgate.db", edit)
    assert any(told in one for one in problems(registry).problems)


def _edit(file: Path, statement: str) -> None:
    """As somebody who takes the triggers away first."""
    raw = sqlite3.connect(file)
    for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        raw.execute(f"DROP TRIGGER {name}")
    assert raw.execute(statement).rowcount
    raw.commit()
    raw.close()


def test_nothing_is_served_or_promoted_out_of_an_edited_row(tmp_path: Path) -> None:
    registry = Registry.open(str(tmp_path / "quantgate.db"), "ada", create=True)
    register(registry, A="fail")
    _edit(tmp_path / "quantgate.db", "UPDATE verdicts SET verdict = 'pass', eligible = 1")
    with pytest.raises(Exception, match="failed: breaks json_tools"):
        promote(registry, "fleet", "A")
    _edit(tmp_path / "quantgate.db", "UPDATE decisions SET record = replace(record, '\"fail\"', '\"pass\"')")
    with pytest.raises(RecordError, match="does not match its digest"):
        promote(registry, "fleet", "A")
    _edit(tmp_path / "quantgate.db", "UPDATE pointers SET record = replace(record, 'BF16', 'XX16')")
    with pytest.raises(RecordError, match="live fleet: its content does not match its digest"):
        registry.live("fleet")


def test_unknown_targets_are_told(registry: Registry) -> None:
    register(registry, A="pass")
    with pytest.raises(UnknownName, match="unknown target 'fleett'; did you mean 'fleet'"):
        registry.live("fleett")
    with pytest.raises(UnknownName, match="unknown target 'fleett'"):
        rollback(registry, "fleett", why="test")


def test_what_does_not_belong_together_is_not_registered(registry: Registry) -> None:
    a = variant_of("A")
    with pytest.raises(UsageError, match="a decision of 'laptop' is given for 'fleet'"):
        registry.register([a], decided={"fleet": decision_of("laptop", verdict_of(a))}, baseline=BASE)
    with pytest.raises(UsageError, match="'A' is to be the baseline and is not marked as one"):
        registry.register([], decided={}, baseline=a)
    assert registry.variants() == ()


def test_another_baseline_is_told_and_replaces_nothing(registry: Registry) -> None:
    register(registry, A="pass")
    newer = Variant(name="BF16", artifact=digest_of("v2"), engine="none", is_baseline=True)
    decided = decision_of("fleet", verdict_of(variant_of("B")), baseline=newer.artifact)
    assert registry.register([variant_of("B")], decided={"fleet": decided}, baseline=newer).other_baseline == ("fleet",)
    assert registry.live("fleet").baseline == BASE


def test_a_registry_that_is_not_there_is_not_made_by_looking(tmp_path: Path, url: str) -> None:
    with pytest.raises(ReleaseError, match="nothing was registered there yet; run: quantgate register"):
        Registry.open(url)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://db/q", "'mysql' is not known"),
        ("sqlite://", "keeps nothing"),
        ("sqlite:///:memory:", "keeps nothing"),
        ("://", "not the URL of a database"),
    ],
)
def test_other_databases_are_refused(url: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Registry.open(url)


def test_a_password_is_shown_nowhere(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    url = "postgresql://ada:geheim@127.0.0.1:1/q"
    assert "geheim" not in shown(address(url))
    with pytest.raises(ReleaseError) as gone:
        Registry.open(url)
    assert "geheim" not in str(gone.value) and "does not answer" in str(gone.value)
    assert len(str(gone.value).splitlines()) == 1


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    file = tmp_path / "quantgate.db"
    file.write_bytes(b"this is a text file, and rather long for one of those" * 10)
    with pytest.raises(ReleaseError, match="is not a SQLite database"):
        Registry.open(str(file))
    assert file.read_bytes().startswith(b"this is a text")


def test_live_is_canonical_whatever_the_database(url: str) -> None:
    registry = Registry.open(url, "ada", create=True)
    register(registry, A="pass")
    live = promote(registry, "fleet", "A", canary=1 / 3)
    assert registry.live("fleet").digest == live.digest == Live.model_validate(live.body()).digest


def test_evidence_of_every_number_survives_the_database(registry: Registry) -> None:
    gate = gate_of("math", margin=0.1 + 0.2)
    proof = evidence_of("A", 7).model_copy(update={"comparisons": (comparison_of(gate, 311, 7, 2),)})
    registry.register(proofs=[proof])
    (found,) = registry.evidence(proof.artifact, proof.engine)
    assert found == proof and found.digest == proof.digest
