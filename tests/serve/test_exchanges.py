"""What became of each request is on the disk soon, costs requests nothing, and is lost only when it is counted."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time

import pytest
import sqlalchemy as sa
from tests.serve.databases import url

from quantgate.errors import QuantgateError
from quantgate.serve import Exchange
from quantgate.serve._exchange_rows import ABOUT, ROWS
from quantgate.serve._ledger_sql import connect
from quantgate.serve.exchanges import COLUMNS, Journal, Reader

__all__ = ["url"]


def exchange(number: int = 0, **changed) -> Exchange:
    given = {
        "id": f"req_{number}", "at": time.time(), "target": "laptop", "variant": "W4A16", "artifact": "sha256:c",
        "answered_by": "W4A16", "cohort": "canary", "share": 0.05, "revision": 3, "route": "chat", "key": "k_ann",
        "session": "5e55", "told_session": True, "stream": False, "structured": True, "status": 200,
        "faults": ("schema",), "stages": {"decode": 0.5}, "prompt_hash": 2**63 - 1,
    }  # fmt: skip
    return Exchange.model_validate(given | changed)


def until(true, *, limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


def test_what_is_put_is_read_back_in_its_order(url):
    journal = Journal(connect(url))
    journal.start()
    put = [exchange(number) for number in range(1200)]
    for one in put:
        journal.put(one)
    journal.close()
    reader = Reader(connect(url))
    found = list(reader.since(most=100))
    assert [one for _, one in found] == put
    assert [one for _, one in reader.since(found[999][0])] == put[1000:]
    assert reader.last() == found[-1][0]
    assert list(reader.since(target="fleet")) == []
    assert (journal.written, journal.dropped) == (1200, 0)
    reader.close()


def test_a_row_can_be_read_while_the_gateway_runs(url):
    journal, reader = Journal(connect(url)), Reader(connect(url))
    journal.start()
    journal.put(exchange())
    until(lambda: reader.last() > 0)
    journal.put(exchange(1))
    until(lambda: len(list(reader.since())) == 2)
    journal.close()
    reader.close()


def test_no_text_is_kept_unless_it_is_asked_for(url):
    for keep in (False, True):
        journal = Journal(connect(url), keep_text=keep)
        journal.start()
        journal.put(exchange(int(keep), text={"prompt": "a secret"}))
        journal.close()
    reader = Reader(connect(url))
    assert [one.text for _, one in reader.since()] == [None, {"prompt": "a secret"}]
    reader.close()


def test_an_exchange_that_is_written_twice_is_there_once(url):
    """A batch whose acknowledgement was lost comes again, also from another process; a copy has a row of its own."""
    for again in range(2):
        journal = Journal(connect(url))
        journal.start()
        for number in range(10 * again, 20 + 10 * again):
            journal.put(exchange(number))
        journal.put(exchange(0, shadow=True))
        journal.close()
        assert journal.dropped == 0
    reader = Reader(connect(url))
    found = [(one.id, one.shadow) for _, one in reader.since(most=7)]
    assert found == [*((f"req_{number}", False) for number in range(20)), ("req_0", True)] + [
        (f"req_{number}", False) for number in range(20, 30)
    ]
    assert [(one.id, one.shadow) for one in reader.get(["req_25", "req_0", "nobody"])] == [
        ("req_25", False), ("req_0", False), ("req_0", True),
    ]  # fmt: skip
    reader.close()


def test_batches_of_one_target_go_on_from_the_end_of_the_journal(url):
    journal = Journal(connect(url))
    journal.start()
    for number in range(30):
        journal.put(exchange(number, target="laptop" if number < 20 else "fleet", at=1000.0 + number))
    journal.close()
    reader = Reader(connect(url))
    first = reader.batch(0, target="laptop", most=15)
    assert (len(first.rows), first.whole) == (15, False)
    second = reader.batch(first.number, target="laptop", most=15)
    assert (len(second.rows), second.whole, second.number) == (5, True, second.last)
    assert [one.id for _, one in (*first.rows, *second.rows)] == [f"req_{number}" for number in range(20)]
    nothing = reader.batch(second.number, target="laptop")
    assert (nothing.rows, nothing.whole) == ((), True)
    assert (reader.waits_since(first.number, "laptop"), reader.waits_since(second.number, "laptop")) == (1015.0, None)
    reader.close()


OLD = """
CREATE TABLE exchanges (id {serial}, at FLOAT NOT NULL, target TEXT NOT NULL, variant TEXT NOT NULL,
cohort TEXT NOT NULL, shadow BOOLEAN NOT NULL, revision INTEGER NOT NULL, session TEXT NOT NULL, record TEXT NOT NULL)
"""
SERIAL = {"sqlite": "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", "postgresql": "BIGSERIAL PRIMARY KEY"}


def of_an_older_layout(url: str) -> None:
    """As the release before this one left it: twice the same, and with a field that nobody knows any more."""
    engine = connect(url)
    said = {**exchange(7).body(), "correction": True}
    for name in ("side", "odds", "against", "marks"):
        said.pop(name)
    with engine.begin() as link:
        link.exec_driver_sql(OLD.format(serial=SERIAL[engine.dialect.name]))
        link.exec_driver_sql("CREATE INDEX exchanges_at ON exchanges (at)")
        for _ in range(2):
            row = {name: said[name] for name in COLUMNS} | {"record": json.dumps(said)}
            link.execute(sa.insert(ROWS).values(row))
    engine.dispose()


def test_a_table_of_an_older_layout_is_brought_up_to_date_where_it_stands(url):
    of_an_older_layout(url)
    for _ in range(2):  # once by a gateway, and again by the next
        journal = Journal(connect(url))
        journal.start()
        journal.put(exchange(7))
        journal.put(exchange(8))
        journal.close()
    reader = Reader(connect(url))
    assert [one.id for _, one in reader.since()] == ["req_7", "req_7", "req_7", "req_8"]
    assert [one.id for _, one in reader.since(reader.begins())] == ["req_7", "req_8"]
    assert [one.id for one in reader.get(["req_8"])] == ["req_8"]
    reader.close()


def test_gateways_that_start_at_once_bring_it_up_to_date_once(url):
    of_an_older_layout(url)
    journals = [Journal(connect(url)) for _ in range(4)]
    threads = [threading.Thread(target=one.start) for one in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, one in enumerate(journals):
        one.put(exchange(number))
        one.close()
    reader = Reader(connect(url))
    assert reader.begins() == 2
    assert len(list(reader.since(2))) == 4
    reader.close()


def test_a_table_of_a_later_layout_is_left_alone(url):
    journal = Journal(connect(url))
    journal.start()
    journal.close()
    engine = connect(url)
    with engine.begin() as link:
        link.execute(sa.update(ABOUT).where(ABOUT.c.name == "layout").values(value=3))
    engine.dispose()
    with pytest.raises(QuantgateError, match="layout 3, expected 2; use the other release"):
        Journal(connect(url)).start()


def test_what_does_not_fit_is_dropped_and_counted(url):
    journal = Journal(connect(url), queue=500)
    for number in range(700):
        journal.put(exchange(number))
    journal.start()
    journal.close()
    assert (journal.written, journal.dropped) == (500, 200)


def test_a_reader_misses_nothing_of_several_writers(url):
    """Numbers come in the order in which rows can be seen: a reader asks on from the last all the time."""
    journals = [Journal(connect(url)) for _ in range(4)]
    for journal in journals:
        journal.start()

    def write(journal: Journal, start: int) -> None:
        for number in range(start, start + 400):
            journal.put(exchange(number))
            if number % 50 == 0:
                time.sleep(0.002)

    threads = [threading.Thread(target=write, args=(one, 1000 * at)) for at, one in enumerate(journals)]
    for thread in threads:
        thread.start()
    reader, last, seen = Reader(connect(url)), 0, list[str]()
    end = time.monotonic() + 60
    while len(seen) < 1600:
        assert time.monotonic() < end
        for number, one in reader.since(last):
            last = number
            seen.append(one.id)
    for thread in threads:
        thread.join()
    for journal in journals:
        journal.close()
    assert len(set(seen)) == 1600
    assert list(reader.since(last)) == []
    reader.close()


def test_old_exchanges_are_forgotten(url):
    journal = Journal(connect(url), days=2)
    journal.start()
    journal.put(exchange(1, at=time.time() - 3 * 86400))
    journal.put(exchange(2))
    journal.close()
    again = Journal(connect(url), days=2)
    again.start()
    again.put(exchange(3))
    reader = Reader(connect(url))
    until(lambda: [one.id for _, one in reader.since()] == ["req_2", "req_3"])
    again.close()
    reader.close()


def test_the_gateway_goes_on_while_the_database_is_away(postgres):
    url = postgres.url()
    journal = Journal(connect(url), queue=600)
    journal.start()
    journal.put(exchange(1))
    until(lambda: journal.written == 1)
    postgres.kill()
    try:
        journal.put(exchange(2))
        until(lambda: journal.trouble is not None)
        for number in range(3, 1300):
            journal.put(exchange(number))
        assert journal.dropped > 0
    finally:
        postgres.start()
    until(lambda: journal.trouble is None)
    journal.close()
    assert journal.written + journal.dropped == 1299


FULL = """
import resource, sys, time
from quantgate.serve._ledger_sql import connect
from quantgate.serve.exchanges import Journal
from tests.serve.test_exchanges import exchange, until
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(connect(sys.argv[1]), queue=1000)
journal.start()
journal.put(exchange(0))
until(lambda: journal.written == 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
for number in range(1, 4000):
    journal.put(exchange(number))
until(lambda: journal.trouble is not None)
assert "full" in journal.trouble or "disk" in journal.trouble, journal.trouble
for number in range(4000, 8000):
    journal.put(exchange(number))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
until(lambda: journal.trouble is None)
journal.close()
assert journal.dropped > 0
assert journal.written + journal.dropped == 8000, (journal.written, journal.dropped)
print("written", journal.written)
"""


def test_on_a_full_disk_drops_are_counted_and_nothing_is_half_written(tmp_path):
    assert resource.RLIMIT_FSIZE
    url = f"sqlite:///{tmp_path / 'exchanges.db'}"
    given = {**os.environ, "PYTHONPATH": "src:."}
    done = subprocess.run([sys.executable, "-c", FULL, url], capture_output=True, text=True, env=given, timeout=120)
    assert done.returncode == 0, done.stderr
    reader = Reader(connect(url))
    assert len(list(reader.since())) == int(done.stdout.split()[1])
    reader.close()


def test_a_killed_gateway_leaves_whole_rows(tmp_path):
    url = f"sqlite:///{tmp_path / 'exchanges.db'}"
    code = (
        "import sys, itertools\nfrom quantgate.serve._ledger_sql import connect\n"
        "from quantgate.serve.exchanges import Journal\nfrom tests.serve.test_exchanges import exchange\n"
        "journal = Journal(connect(sys.argv[1])); journal.start()\n"
        "for number in itertools.count():\n    journal.put(exchange(number))\n    print(journal.written, flush=True)\n"
    )
    given = {**os.environ, "PYTHONPATH": "src:."}
    run = subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True, env=given)
    assert run.stdout is not None
    written = 0
    for line in run.stdout:
        written = int(line)
        if written > 1000:
            break
    run.kill()
    run.wait()
    run.stdout.close()
    reader = Reader(connect(url))
    found = [one.id for _, one in reader.since()]
    assert len(found) >= written
    assert len(set(found)) == len(found)
    reader.close()


def test_a_database_that_is_not_there_is_one_sentence():
    with pytest.raises(QuantgateError, match=r"^exchanges: .*; check the address and that the database is up$"):
        Journal(connect("postgresql://nobody@127.0.0.1:1/x")).start()
    with pytest.raises(QuantgateError, match=r"^exchanges: .*refused"):
        Reader(connect("postgresql://nobody@127.0.0.1:1/x")).last()


def test_a_broken_row_is_named(tmp_path):
    url = f"sqlite:///{tmp_path / 'exchanges.db'}"
    journal = Journal(connect(url))
    journal.start()
    journal.put(exchange())
    journal.close()
    engine = connect(url)
    with engine.begin() as link:
        link.execute(sa.update(ROWS).values(record="{"))
    with pytest.raises(QuantgateError, match="exchange 1: not a record"):
        list(Reader(engine).since())
    batch = Reader(engine).batch(0, target="laptop")  # it holds up nobody who can do without
    assert (batch.rows, batch.number, batch.whole) == ((), 1, True)
    assert batch.broken[0].startswith("exchange 1: not a record")
    engine.dispose()
