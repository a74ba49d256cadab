"""A real PostgreSQL server in a folder of its own, for tests: started once, killed and started again where asked.

    def test_it(postgres: Postgres) -> None: ...   # the fixture of tests/conftest.py: one server for the session

Servers refuse to run as root, so there they run as the user that Debian's package makes.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

USER = "postgres"
STARTS_S = 60.0  # at most


def programs() -> Path | None:
    """The folder of PostgreSQL's own programs, the newest there is."""
    known = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if known:
        return known[-1].parent
    on_path = shutil.which("postgres")
    return Path(on_path).resolve().parent if on_path else None


class Postgres:
    """A server on 127.0.0.1. ``url()`` makes a place for tables and says where it is."""

    def __init__(self, bin_folder: Path) -> None:
        self.bin = bin_folder
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.as_user: list[str] = []
        if os.geteuid() == 0:
            owner = pwd.getpwnam(USER)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            owner_words = [f"--reuid={USER}", f"--regid={USER}", "--init-groups"]
            self.as_user = ["setpriv", *owner_words, "--pdeathsig=QUIT"]  # it ends with tests that are killed
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.numbers = itertools.count()
        self._run("initdb", "-D", self._data, "-U", USER, "-A", "trust", "-N", "-E", "UTF8", "--locale=C")

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [*self.as_user, str(self.bin / program), *words], cwd=self.folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}"]
        settings.append("fsync=off")  # programs are killed here, not machines: what was written is there
        words = [word for one in settings for word in ("-c", one)]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [*self.as_user, str(self.bin / "postgres"), "-D", self._data, *words],
            cwd=self.folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        until = time.monotonic() + STARTS_S
        ready = [str(self.bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER]
        while subprocess.run(ready).returncode:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.05)

    def kill(self) -> None:
        """Signal 9 to the server and to all that serve a connection, as when a machine is lost."""
        assert self.process
        pids = [int(pid) for pid in self._children()]
        for pid in (self.process.pid, *pids):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
        until = time.monotonic() + STARTS_S
        while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
            time.sleep(0.01)
        (Path(self._data) / "postmaster.pid").unlink(missing_ok=True)
        self.process = None

    def _children(self) -> list[str]:
        assert self.process
        return Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)  # at once: the folder goes with it
            self.process.wait()
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self) -> str:
        """Of a new, empty place: a schema of its own, which takes no time to make and to drop."""
        import psycopg

        name = f"test_{next(self.numbers)}"
        with psycopg.connect(self._address, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{self._address}?options=-csearch_path%3D{name}"

    @property
    def _address(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The server; skips where PostgreSQL or psycopg is not installed."""
    pytest.importorskip("psycopg", reason="needs the extra 'postgres'")
    folder = programs()
    if folder is None:
        pytest.skip("needs PostgreSQL's server: apt-get install postgresql")
    server = Postgres(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
