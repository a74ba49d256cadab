"""Everything that one process gives up before it runs a line that quantgate did not write, in the order that works."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
from dataclasses import dataclass

from . import kernel, landlock, rooms, seccomp

DYNAMIC_USERS = (61184, 4336)  # the range that systemd hands to short-lived services: nobody owns a file in it
THREADS = 256  # beside those that the user runs already, where these count


@dataclass(frozen=True)
class Limits:
    """Of one process of a run. ``cpu_s`` in whole seconds, as the kernel counts."""

    cpu_s: int
    memory_bytes: int  # of address space
    file_bytes: int  # of one file


@dataclass(frozen=True)
class Ground:
    """What the server found out once: the tier, the version of Landlock, whom runs act as, what is being read."""

    tier: int
    landlock: int
    drops_user: bool  # root, and the interpreter can be read by others
    threads: int  # processes and threads of this user when the server started
    readable: tuple[str, ...]
    machine: str
    scratch: (
        str  # the folder that holds the scratch folders of all runs; at tier 1 each run has its own file system there
    )

    def user(self, run: int) -> tuple[int, int]:
        """User and group that the processes of a run act as."""
        if not self.drops_user:
            return os.getuid(), os.getgid()
        first, count = DYNAMIC_USERS
        return (first + run % count,) * 2


def enter(ground: Ground, limits: Limits, run: int, scratch: str | None, keep: tuple[int, ...]) -> None:
    """Give up everything but the file descriptors 0, 1, 2 and ``keep``.

    ``keep`` are moved to 3, 4 ... in their order. ``scratch`` is the one folder that may be written, and becomes the
    working folder; without one nothing can be written. OSError where any step fails: the process must then end.
    """
    os.setsid()
    _only(keep)
    os.chdir(scratch or "/")
    _lower(ground, limits)
    uid, gid = ground.user(run)
    if ground.drops_user:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user clears it, so it comes after
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    rules = [(path, landlock.READ_ONLY) for path in ground.readable]
    rules += [(path, landlock.DEVICE if path == "/dev/null" else landlock.READ) for path in rooms.DEVICES]
    landlock.restrict(ground.landlock, rules + ([(scratch, landlock.OWN_FOLDER)] if scratch else []))
    seccomp.install(ground.machine, threads=uid != 0)  # the kernel does not count those of root
    for number in (signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    random.seed(0)  # the same answer is the same run, whatever came before


def _only(keep: tuple[int, ...]) -> None:
    """Close every other descriptor. Copies first go above the target range, so none is overwritten by another."""
    high = [os.dup2(one, 100 + at, inheritable=False) for at, one in enumerate(keep)]
    for at, one in enumerate(high):
        os.dup2(one, 3 + at, inheritable=False)
    os.closerange(3 + len(keep), _highest())


def _highest() -> int:
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1 << 20)


def _lower(ground: Ground, limits: Limits) -> None:
    """Resource limits, soft and hard, so that they cannot be raised again."""
    wanted = {
        resource.RLIMIT_AS: limits.memory_bytes,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NPROC: THREADS if ground.drops_user else ground.threads + THREADS,
        resource.RLIMIT_STACK: 64 << 20,
    }
    for name, value in wanted.items():
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))
    with contextlib.suppress(ValueError):  # a lower limit is already set: it holds
        resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 1))
