"""One run: a keeper outside the sandbox, and inside it the tester (first of its process tree) and the solver.

The keeper is forked from the server with three sockets. It hands one to each of the two processes, reads neither, and
keeps the third, over which it reports what it saw. It holds the wall clock, counts and cuts the output, watches the
scratch folder, and at the end kills and reaps whatever is left of its children and theirs.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from . import enter, kernel, rooms, solver, tester, wire

OUTPUT_KEPT = 8192  # bytes at the start, and as many at the end
OUTPUT_MOST = 64 << 20  # bytes; who prints more is stopped
WATCH_S = 0.02  # between two looks at a scratch folder that the kernel does not limit
REFUSED = 97  # how a process ends that could not shut itself in


def keep(ground: enter.Ground, wanted: dict[str, Any], sockets: tuple[int, int, int]) -> None:
    """Do one run and report it as JSON on the first socket; the second goes to the solver, the third to the tester."""
    report_to, code_from, tests_from = sockets
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    limits = enter.Limits(wanted["cpu_s"], wanted["memory_bytes"], wanted["file_bytes"])
    run = os.getpid()
    scratch = _scratch(ground, run, wanted["scratch_bytes"])
    children: list[int] = []
    try:
        calls, replies, output = os.pipe(), os.pipe(), os.pipe()
        children.append(_fork(lambda: _tester(ground, limits, run, (tests_from, replies[0], calls[1]))))
        children.append(
            _fork(lambda: _solver(ground, limits, run, scratch, (code_from, calls[0], replies[1]), output[1]))
        )
        for one in (*calls, *replies, output[1], code_from, tests_from):
            os.close(one)
        watch = Watch(children[0], children[1], output[0], report_to, wanted["wall_s"])
        if ground.tier > 1:
            watch.folder, watch.folder_bytes = scratch, wanted["scratch_bytes"]
        report = watch.until_the_end()
        children = [one for one in children if one not in watch.reaped()]
    finally:
        kill_what_is_left(children)
        if ground.tier > 1:
            remove(scratch)
    with contextlib.suppress(OSError):  # nobody waits any more
        os.write(report_to, json.dumps(report).encode())


def _scratch(ground: enter.Ground, run: int, size: int) -> str:
    uid, gid = ground.user(run)
    if ground.tier == 1:
        rooms.own_room(uid, gid, size)
        return ground.scratch
    folder = tempfile.mkdtemp(dir=ground.scratch)
    if ground.drops_user:
        os.chown(folder, uid, gid)
    return folder


def _fork(work: Callable[[], None]) -> int:
    """A child that does ``work`` and ends, without a way back into this program."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:
        os._exit(1)
    raise AssertionError("unreachable")


def _shut_in(*given: Any) -> None:
    try:
        enter.enter(*given)
    except BaseException as problem:
        os.write(2, f"{type(problem).__name__}: {problem}".encode())
        os._exit(REFUSED)


def _tester(ground: enter.Ground, limits: enter.Limits, run: int, ends: tuple[int, int, int]) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    _shut_in(ground, limits, run, None, ends)
    control = wire.Channel(3, 3)
    job, channel = control.get(), wire.Channel(4, 5)
    try:
        channel.get()  # the solver says that it is shut in
    except wire.Broken:
        os._exit(REFUSED)
    try:
        verdict = tester.test(channel, job)
    except MemoryError:
        verdict = {"failed": "what the code returned does not fit into memory"}
    control.put(verdict)


def _solver(
    ground: enter.Ground, limits: enter.Limits, run: int, scratch: str, ends: tuple[int, int, int], output: int
) -> None:
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    _shut_in(ground, limits, run, scratch, ends)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what was printed before a kill is seen
    source = wire.Channel(3, 3).get()
    os.close(3)
    channel = wire.Channel(4, 5)
    channel.put({"inside": True})
    solver.solve(channel, source)


class Watch:
    """The two processes from outside: how long, how much output, who ended how."""

    def __init__(self, test: int, solve: int, output: int, report_to: int, wall_s: float) -> None:
        self.processes = {"tester": test, "solver": solve}
        self.ends: dict[str, int] = {}
        self.output, self.report_to, self.wall_s = output, report_to, wall_s
        self.began = float("inf")  # the clock starts with the job: a run may have been made ready long before
        self.head, self.tail, self.printed = bytearray(), bytearray(), 0
        self.folder, self.folder_bytes = "", 0
        self.stopped = ""

    def until_the_end(self) -> dict[str, Any]:
        """Wait for the tester, whose end is the end of the run, then for the last of the output."""
        with selectors.DefaultSelector() as ready:
            handles = {name: os.pidfd_open(pid) for name, pid in self.processes.items()}
            for name, handle in handles.items():
                ready.register(handle, selectors.EVENT_READ, name)
            ready.register(self.output, selectors.EVENT_READ, "output")
            ready.register(self.report_to, selectors.EVENT_READ, "caller")
            while "tester" not in self.ends and not self.stopped:
                self._look(ready)
            self._end("solver")
            while self._drain():
                pass
        for handle in handles.values():
            os.close(handle)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "stopped": self.stopped,
            "wall_s": time.monotonic() - self.began,
            "tester": self.ends.get("tester"),
            "solver": self.ends.get("solver"),
            "printed": self.printed,
            "head": self.head.decode("utf-8", "replace"),
            "tail": self.tail.decode("utf-8", "replace"),
            "cpu_s": used.ru_utime + used.ru_stime,
            "memory_bytes": used.ru_maxrss * 1024,
        }

    def reaped(self) -> list[int]:
        return [self.processes[name] for name in self.ends]

    def _look(self, ready: selectors.BaseSelector) -> None:
        left = self.began + self.wall_s - time.monotonic()
        if left <= 0:
            self._stop("wall")
            return
        patience = None if left == float("inf") else left
        for key, _ in ready.select(min(left, WATCH_S) if self.folder and patience else patience):
            if key.data == "caller" and os.read(self.report_to, 1):
                self.began = time.monotonic()
            elif key.data == "caller":
                self._stop("caller")
            elif key.data == "output":
                if not self._drain():
                    ready.unregister(self.output)
            else:
                ready.unregister(key.fileobj)
                self._reap(key.data)
        if self.printed > OUTPUT_MOST:
            self._stop("output")
        if self.folder and size_of(self.folder) > self.folder_bytes:
            self._stop("scratch")

    def _stop(self, why: str) -> None:
        self.stopped = why
        for name in ("solver", "tester"):  # the first process of a tree ends when the others have been reaped
            self._end(name)

    def _end(self, name: str) -> None:
        if name not in self.ends:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.processes[name], signal.SIGKILL)
            self._reap(name)

    def _reap(self, name: str) -> None:
        self.ends[name] = os.waitstatus_to_exitcode(os.waitpid(self.processes[name], 0)[1])

    def _drain(self) -> bool:
        """Take what has been printed: the first and the last bytes are kept, all are counted."""
        part = os.read(self.output, 1 << 16)
        self.printed += len(part)
        room = OUTPUT_KEPT - len(self.head)
        self.head += part[: max(0, room)]
        self.tail = (self.tail + part[max(0, room) :])[-OUTPUT_KEPT:]
        return bool(part)


def size_of(folder: str) -> int:
    """Bytes on the device of all files beneath ``folder``, and 4096 for each: a million empty files are not nothing."""
    total, left = 0, [folder]
    while left:
        with contextlib.suppress(OSError), os.scandir(left.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += 4096 + entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
    return total


def kill_what_is_left(known: Sequence[int] = ()) -> None:
    """Kill and reap every child; those whose parents end become our children (a subreaper), until there are none."""
    while True:
        for child in {*known, *_children()}:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        try:
            gone, _ = os.waitpid(-1, 0)
            known = [one for one in known if one != gone]  # its number may be another's by now
        except ChildProcessError:
            return


def _children() -> list[int]:
    """Empty without /proc: at tier 1, where the kernel kills them all with the first of their tree."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(one) for one in file.read().split()]
    except OSError:
        return []


def remove(folder: str) -> None:
    """Delete the scratch folder, whatever rights were left on what is in it."""

    def retry(function: Callable[[str], Any], path: str, _problem: Any) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(path), 0o700)
            os.chmod(path, 0o700)
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)

    if sys.version_info >= (3, 12):
        shutil.rmtree(folder, onexc=retry)
    else:
        shutil.rmtree(folder, onerror=retry)
