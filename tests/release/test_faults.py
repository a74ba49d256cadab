"""Killed, full, gone: what was acknowledged is there, and a pointer is the old one or the new one, never half."""

from __future__ import annotations

import os
import random
import resource
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.postgres import Postgres
from tests.release import mover
from tests.release.given import BASE, register, variant_of

from quantgate.errors import DiskFull, NoCapacity, ReleaseError
from quantgate.release.capacity import answers_at
from quantgate.release.checking import problems
from quantgate.release.lifecycle import hold, promote, rollback
from quantgate.release.store import Registry

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
KILLS = 20  # on each database
FOREVER = 1_000_000


def whole(url: str, acknowledged: int) -> Registry:
    """The registry after a fault: everything acknowledged is there, at most one move more, and all of it is sound."""
    registry = Registry.open(url, "ada")
    live = registry.live("fleet")
    assert acknowledged <= live.revision <= acknowledged + 1
    assert [one.revision for one in registry.history("fleet")] == list(range(live.revision, 0, -1))
    assert problems(registry).problems == ()
    return registry


def test_killed_at_any_moment_a_move_is_whole_or_was_not(url: str) -> None:
    """A child of this process moves as fast as it can, and is killed after a random while, again and again."""
    register(Registry.open(url, "ada", create=True), A="pass")
    draw, before = random.Random(7), 1
    for _ in range(KILLS):
        ours, its = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ours)
            try:
                mover.move(url, FOREVER, its)
            finally:
                os._exit(1)
        os.close(its)
        try:
            assert select.select([ours], [], [], 60)[0], "the mover does not move"
            select.select([], [], [], draw.uniform(0, 0.02))  # any moment of a move or between two
            os.kill(child, signal.SIGKILL)
            assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
            told = b""
            while piece := os.read(ours, 1 << 16):
                told += piece
        finally:
            os.close(ours)
        acknowledged, registry = int(told.split()[-1]), Registry.open(url, "ada")
        live, (latest,) = registry.live("fleet"), registry.history("fleet", limit=1)
        assert before < acknowledged <= live.revision <= acknowledged + 1
        assert latest.live == live
        before = live.revision
    assert promote(whole(url, before), "fleet", "A").stable.name == "A"


def test_killed_at_every_write_and_every_flush_a_move_is_whole_or_was_not(tmp_path: Path) -> None:
    """strace kills the program at its first write to the disk, at its second ..., until a move gets through."""
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True).returncode:
        pytest.skip("needs strace, and the right to trace: apt-get install strace")
    first = tmp_path / "first.db"
    register(Registry.open(str(first), "ada", create=True), A="pass")
    kept, lost = 0, 0
    for at in range(1, 100):
        url = str(tmp_path / f"{at}.db")
        shutil.copy(first, url)
        calls = "pwrite64,fdatasync,fsync,ftruncate"
        inject = f"inject={calls}:signal=SIGKILL:when={at}"
        files = [word for name in (url, f"{url}-wal") for word in ("-P", name)]  # not the index, which is made anew
        words = [strace, "-f", "-qq", "-o", os.devnull, *files, "-e", f"trace={calls}", "-e", inject]
        done = subprocess.run(
            [*words, sys.executable, "-m", "tests.release.mover", url, "1"], cwd=ROOT, env=ENVIRONMENT,
            capture_output=True, text=True,
        )  # fmt: skip
        found = whole(url, int(done.stdout or 1)).live("fleet").revision
        kept, lost = kept + (found == 2), lost + (found == 1)
        if done.returncode == 0:
            break
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
    assert done.returncode == 0 and done.stdout == "2\n"
    assert lost >= 2 and kept >= 2  # it was killed on both sides of the flush that makes a move durable


def test_on_a_full_disk_nothing_moves_and_nothing_is_lost(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk; SQLite's own limit on pages for the message."""
    url = str(tmp_path / "quantgate.db")
    registry = Registry.open(url, "ada", create=True)
    register(registry, A="pass")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        with pytest.raises(ReleaseError, match=r"what it held before stands|disk is full"):
            promote(registry, "fleet", "A")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert whole(url, 1).live("fleet").stable == BASE
    assert promote(registry, "fleet", "A").revision == 2


def test_on_a_full_file_system_nothing_moves_and_nothing_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        url = str(folder / "quantgate.db")
        registry = Registry.open(url, "ada", create=True)
        register(registry, A="pass")
        filler = folder / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
        with pytest.raises((DiskFull, ReleaseError)) as full:
            promote(registry, "fleet", "A")
        assert len(str(full.value).splitlines()) == 1
        filler.unlink()
        assert whole(url, 1).live("fleet").stable == BASE
        assert promote(registry, "fleet", "A").revision == 2
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_database_says_so(tmp_path: Path) -> None:
    from quantgate.release.database import spoken

    registry = Registry.open(str(tmp_path / "quantgate.db"), "ada", create=True)
    raw = sqlite3.connect(tmp_path / "quantgate.db")
    raw.execute(f"PRAGMA max_page_count = {raw.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(DiskFull, match="the disk is full; nothing was changed"), spoken(registry.url):
        raw.execute("CREATE TABLE more (text TEXT)")
        raw.executemany("INSERT INTO more VALUES (?)", [("x" * 9000,)] * 9)
    raw.close()


def test_postgresql_killed_and_started_again_keeps_what_was_acknowledged(postgres: Postgres) -> None:
    url = postgres.url()
    registry = Registry.open(url, "ada", create=True)
    register(registry, A="pass")
    acknowledged, enough, told = [1], threading.Event(), list[str]()

    def busy() -> None:
        try:
            while True:
                acknowledged.append(promote(registry, "fleet", "A").revision)
                enough.set()
                if done := rollback(registry, "fleet", why="to and fro"):
                    acknowledged.append(done.revision)
        except ReleaseError as lost:
            told.append(str(lost))

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        assert enough.wait(60)
        postgres.kill()
        thread.join(60)
        assert not thread.is_alive() and len(told) == 1 and len(told[0].splitlines()) == 1
        with pytest.raises(ReleaseError, match="does not answer"):
            registry.live("fleet")
    finally:
        postgres.start()
    live = registry.live("fleet")  # the same object finds its way back
    assert acknowledged[-1] <= live.revision <= acknowledged[-1] + 1
    assert problems(registry).problems == ()
    hold(registry, "fleet")
    assert registry.live("fleet").frozen


def test_a_database_that_is_gone_is_one_sentence_and_never_a_new_empty_one(tmp_path: Path) -> None:
    file = tmp_path / "quantgate.db"
    registry = Registry.open(str(file), "ada", create=True)
    register(registry, A="pass")
    file.rename(tmp_path / "elsewhere.db")
    for act in (lambda: promote(registry, "fleet", "A"), lambda: registry.live("fleet")):
        with pytest.raises(ReleaseError, match="cannot be opened; it was moved or deleted"):
            act()
    assert not file.exists()
    (tmp_path / "elsewhere.db").rename(file)
    assert promote(registry, "fleet", "A").stable == variant_of("A")


def test_a_probe_asks_a_real_server(tmp_path: Path) -> None:
    import http.server

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        where = f"http://127.0.0.1:{server.server_port}"
        try:
            assert answers_at(f"{where}/health")(BASE) == ""
            assert answers_at(f"{where}/v1/models")(BASE) == f"{where}/v1/models answers 503"
        finally:
            server.shutdown()
            thread.join()
    registry = Registry.open(str(tmp_path / "quantgate.db"), "ada", create=True)
    register(registry, A="pass")
    promote(registry, "fleet", "A")
    with pytest.raises(NoCapacity, match="does not answer"):
        rollback(registry, "fleet", why="slow", capacity=answers_at(f"{where}/health"))
