"""Processes of the gateway's benchmark: each kept to a core, waited for, its time and memory read from the kernel."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS_CORE, TESTED_CORE = 0, 1  # the client and the mock share one core, the proxy under test has the other
READY_S = 180.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
BUSY_AT_MOST = 0.1  # of the machine's cores, before anything is started


class Unfit(Exception):
    """This machine cannot measure now; the sentence tells why."""


def pin() -> None:
    """Keeps this process to the client's core."""
    os.sched_setaffinity(0, {OURS_CORE})


def busy(seconds: float = 2.0) -> float:
    """The share of all cores that somebody uses, or that the host keeps for others."""
    before = _spent()
    time.sleep(seconds)
    used, total = (now - then for now, then in zip(_spent(), before, strict=True))
    return used / max(total, 1.0)


def _spent() -> tuple[float, float]:
    fields = [float(one) for one in Path("/proc/stat").read_text("utf-8").splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return sum(fields) - idle, sum(fields)


def demand_quiet() -> float:
    """The busy share. Raises Unfit on a machine that is at work, or that has one core."""
    if (os.cpu_count() or 1) < 2:
        raise Unfit("one core: the client and the proxy would share it; measure on a machine with two")
    share = busy()
    if share > BUSY_AT_MOST:
        raise Unfit(
            f"the machine is at work ({100 * share:.0f} % of its cores, at most {100 * BUSY_AT_MOST:.0f} % wanted), so "
            "its times would be somebody else's; end what runs, or say --anyway for figures that prove nothing"
        )
    return share


@dataclass(frozen=True)
class Running:
    """A process that answers on loopback."""

    process: subprocess.Popen[bytes]
    port: int

    def cpu_s(self) -> float:
        """Processor time of it and of its children, user and system, in steps of 10 ms."""
        return sum(_cpu_s(one) for one in _family(self.process.pid))

    def rss_bytes(self) -> int:
        return sum(_rss(one) for one in _family(self.process.pid))


def _family(pid: int) -> list[int]:
    """A process and what it started."""
    try:
        told = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [pid, *(one for child in told for one in _family(int(child)))]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def mock() -> Iterator[Running]:
    """The upstream, on the client's core."""
    command = ["taskset", "-c", str(OURS_CORE), sys.executable, "-m", "benchmarks._gateway_mock"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            yield Running(process, int(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.wait(30)


@contextlib.contextmanager
def proxy(
    command: Sequence[str], port: int, log: Path, environment: Mapping[str, str], *, ready: str = "/health"
) -> Iterator[Running]:
    """A proxy on its own core, from the moment that it answers at ``ready``. Raises Unfit where it does not start."""
    with (
        log.open("wb") as told,
        subprocess.Popen(
            ["taskset", "-c", str(TESTED_CORE), *command],
            stdin=subprocess.DEVNULL, stdout=told, stderr=subprocess.STDOUT, env={**os.environ, **environment},
        ) as process,
    ):  # fmt: skip
        try:
            _wait(process, port, ready, log)
            yield Running(process, port)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(process: subprocess.Popen[bytes], port: int, path: str, log: Path) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until and process.poll() is None:
        if b" 200 " in _first_line(port, path):
            return
        time.sleep(0.1)
    last = (log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1]
    raise Unfit(f"a proxy did not start; its log's last line: {last[:200]}")


def _first_line(port: int, path: str) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
            line.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return line.recv(4096).split(b"\r\n")[0]
    except OSError:
        return b""
