"""Stands between quantgate and a server that it started, so that the server never outlives it. Standard library only.

    python _launch_keeper.py GRACE COMMAND ...

Runs the command in a process group of its own and ends with its exit code. When standard input closes (quantgate
ended, was stopped, or was killed without a word), or on SIGTERM, it sends the group SIGTERM, and after GRACE seconds
SIGKILL. On Linux it also takes in orphans of the server's (they become its children), and the server dies with it.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
TICK = 0.1  # seconds between two looks


def _prctl(what: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(what, value, 0, 0, 0)


def _signal_all(group: int, number: int) -> None:
    """The server's group, and processes of its that left the group and lost their parent."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
    for child in _children(os.getpid()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(child, number)


def _children(of: int) -> list[int]:
    """The processes whose parent is ``of``, as Linux lists them; none elsewhere."""
    found = []
    for name in os.listdir("/proc") if sys.platform == "linux" else []:
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                if int(file.read().rpartition(b")")[2].split()[1]) == of:
                    found.append(int(name))
    return found


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main(grace: float, command: list[str]) -> int:
    _prctl(SET_CHILD_SUBREAPER, 1)
    asked = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda caught, _frame: asked.append(caught))
    try:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: _prctl(SET_PDEATHSIG, signal.SIGKILL),
        )
    except OSError as problem:
        print(f"cannot be started: {problem.strerror}: {command[0]}", flush=True)
        return 127
    while server.poll() is None and not asked:
        ready, _, _ = select.select([0], [], [], TICK)
        if ready and not os.read(0, 1):
            asked.append(signal.SIGTERM)
    code = server.returncode
    end = time.monotonic() + (grace if code is None else 0.0)
    _signal_all(server.pid, signal.SIGTERM)
    while time.monotonic() < end and (server.poll() is None or _group_lives(server.pid)):
        time.sleep(TICK / 2)
        if server.poll() is not None:
            _reap()
    for _ in range(20):
        _signal_all(server.pid, signal.SIGKILL)
        server.poll()
        _reap()
        if not _group_lives(server.pid) and not _children(os.getpid()):
            break
        time.sleep(TICK / 2)
    if code is None:
        return 0
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
