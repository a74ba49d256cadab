"""The server: a warm interpreter that forks a keeper per run, and does nothing else.

It is started with one socket, on which it first tells what this machine can do (``facts``), then takes the tier to work
at, then for each run three sockets and the limits. It holds no answer, no test and no nonce, and neither do its forks
until they have been shut in. When the other end closes, it ends, and everything behind it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import platform
import signal
import socket
import sys
import tempfile
from typing import Any

from . import enter, keeper, landlock, rooms, seccomp

WARM = (  # what answers import most is loaded once
    "abc", "array", "ast", "bisect", "calendar", "cmath", "collections", "collections.abc", "contextlib", "copy",
    "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "hashlib", "heapq", "inspect", "io",
    "itertools", "json", "math", "numbers", "operator", "random", "re", "statistics", "string", "struct", "textwrap",
    "threading", "time", "typing", "unicodedata",
)  # fmt: skip
LONGEST = 65536


def serve(control: socket.socket) -> None:
    """Until the other end closes: not until its parent dies, which for the kernel is the thread that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started us ends us
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers report over their sockets
    _first_to_be_killed()
    _say(control, _facts())
    try:
        tier = json.loads(control.recv(LONGEST))["tier"]
        ground = _ground(tier)
    except OSError as problem:
        _say(control, {"refused": str(problem)})
        return
    _say(control, {"user": os.getuid(), "drops_user": ground.drops_user})
    for module in WARM:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # no fork copies a page because its collector looked at it
    sys.path[:] = [one for one in sys.path if not one.endswith(os.path.join("quantgate", "sandbox"))]
    while True:
        data, sockets, _, _ = socket.recv_fds(control, LONGEST, 3)
        if not data:
            break
        if os.fork() == 0:
            control.close()
            try:
                keeper.keep(ground, json.loads(data), (sockets[0], sockets[1], sockets[2]))
            except BaseException as problem:
                os.write(sockets[0], json.dumps({"refused": f"{type(problem).__name__}: {problem}"}).encode())
            finally:
                os._exit(0)
        for one in sockets:
            os.close(one)
    if tier > 1:
        keeper.kill_what_is_left()
        keeper.remove(ground.scratch)


def _facts() -> dict[str, Any]:
    known = platform.machine() in seccomp.AUDIT and sys.byteorder == "little" and sys.maxsize > 1 << 32
    return {
        "machine": platform.machine(),
        "kernel": platform.release(),
        "landlock": landlock.version() if known else 0,
        "seccomp": known and seccomp.available(),
    }


def _ground(tier: int) -> enter.Ground:
    readable = rooms.libraries()
    root = os.getuid() == 0
    if tier == 1:
        rooms.move_in(os.getuid(), os.getgid())
    drops = root and (tier == 1 or rooms.readable_by_anybody(readable))
    threads = 0 if drops or tier == 1 else _threads_of(os.getuid())
    scratch = rooms.SCRATCH if tier == 1 else tempfile.mkdtemp(prefix=f"quantgate-sandbox-{os.getpid()}-")
    if tier > 1:
        os.chmod(scratch, 0o711)  # runs that act as another user must pass
    return enter.Ground(tier, landlock.version(), drops, threads, tuple(readable), platform.machine(), scratch)


def _threads_of(uid: int) -> int:
    """Threads of all processes of a user, which count towards its limit."""
    total = 0
    for one in os.listdir("/proc"):
        try:
            if one.isdigit() and os.stat(f"/proc/{one}").st_uid == uid:
                total += len(os.listdir(f"/proc/{one}/task"))
        except OSError:
            continue
    return total


def _first_to_be_killed() -> None:
    """When memory runs out, runs go before anything else on the machine. They inherit it."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
    except OSError:
        return


def _say(control: socket.socket, message: dict[str, Any]) -> None:
    control.send(json.dumps(message).encode())
