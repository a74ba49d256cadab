"""A sandbox as quantgate holds it: one server process, and runs through it, one by one or side by side."""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from quantgate.errors import SandboxError
from quantgate.sandbox import TIERS, Job, Limits, Outcome, Tier

Ends = tuple[socket.socket, socket.socket, socket.socket]  # to the keeper, the solver, the tester
START = "import sys; sys.path.insert(0, sys.argv[1]); import socket; from inside.server import serve; serve({})"
STARTING_S, GRACE_S = 20.0, 10.0
SIGNALS = {
    -9: "killed",
    -11: "crashed (segmentation fault)",
    -24: "out of processor time",
    -25: "wrote too large a file",
}
REFUSED = 97  # keeper.REFUSED


class Box:
    """A server at one tier. Raises SandboxError where the machine does not allow that tier. Threads may share it."""

    def __init__(self, tier: Tier) -> None:
        self.tier, self.lock, self.instead_of = tier, threading.Lock(), ""
        self.spare: tuple[Limits, Ends] | None = None
        if not sys.platform.startswith("linux"):
            raise Refused(f"it takes Linux to contain it, and this is {sys.platform}")
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self.process = _start(theirs)
            except OSError as problem:
                self.control.close()
                raise Refused(f"its server cannot be started ({problem})") from None
        self.control.settimeout(STARTING_S)
        try:
            self.facts = self._hear()
            _check(self.facts)
            self.control.send(json.dumps({"tier": tier}).encode())
            self.ground = self._hear()
            if "refused" in self.ground:
                raise Refused(f"this machine does not allow tier {tier} ({self.ground['refused']})")
        except BaseException:
            self.close()
            raise

    def _hear(self) -> dict[str, Any]:
        try:
            data = self.control.recv(1 << 16)
        except TimeoutError:
            data = b""
        if not data:
            raise Refused(f"its server did not start ({self._complaint() or 'no word from it'})")
        return json.loads(data)  # type: ignore[no-any-return]

    def _complaint(self) -> str:
        """The last line of what the server wrote before it ended."""
        self.process.kill()
        written = self.process.stderr.read() if self.process.stderr else b""
        lines = written.decode("utf-8", "replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "")

    @property
    def sentence(self) -> str:
        """The tier, what of it this kernel has, and whom the code acts as."""
        if self.ground["drops_user"]:
            who = "as a user of its own"
        else:
            who = "as root without capabilities" if self.ground["user"] == 0 else "as the same user"
        return f"{TIERS[self.tier]}; Landlock {self.facts['landlock']}, {who}{self.instead_of}"

    def run(self, job: Job) -> Outcome:
        """Run one job. Raises SandboxError where the sandbox itself failed, never for what the code did.

        The processes of the next run, if its limits are the same, are made ready meanwhile: they know nothing yet.
        """
        ends = self._taken(job.limits) or self._prepare(job.limits)
        with contextlib.ExitStack() as stack:
            for one in ends:
                stack.enter_context(one).settimeout(job.limits.wall_s + GRACE_S)
            with self.lock:
                self.spare = self.spare or (job.limits, self._prepare(job.limits))
            return self._exchange(job, *ends)

    def _taken(self, limits: Limits) -> Ends | None:
        """The run that was made ready, if it has these limits; one with others is given up."""
        with self.lock:
            (ready, ends), self.spare = self.spare or (None, None), None
        if ends and ready != limits:
            for one in ends:
                one.close()
        return ends if ready == limits else None

    def rest(self) -> None:
        """Give up the run that was made ready: nothing but the server is left."""
        for one in (self.spare or (None, ()))[1]:
            one.close()
        self.spare = None

    def _prepare(self, limits: Limits) -> Ends:
        """Have the server start a keeper with its two processes: our ends of its three sockets."""
        report, code, tests = (socket.socketpair() for _ in range(3))
        try:
            wanted = json.dumps(limits.model_dump()).encode()
            socket.send_fds(self.control, [wanted], [report[1].fileno(), code[1].fileno(), tests[1].fileno()])
        except OSError:
            for pair in (report, code, tests):
                pair[0].close()
            raise Refused("its server has ended; run the same command again") from None
        finally:
            for pair in (report, code, tests):
                pair[1].close()
        return report[0], code[0], tests[0]

    def _exchange(self, job: Job, report: socket.socket, code: socket.socket, tests: socket.socket) -> Outcome:
        nonce = secrets.token_hex(16)
        with contextlib.suppress(OSError):
            report.send(b"!")  # the clock starts
        asked = {"tests": job.tests, "setup": job.setup, "entry": job.entry, "nonce": nonce}
        for end, message in ((tests, asked), (code, job.code)):
            with contextlib.suppress(OSError):  # a process that has ended does not read; the report says why
                data = json.dumps(message).encode("ascii")
                end.sendall(struct.pack("!Q", len(data)) + data)
        try:
            told = json.loads(_all(report) or b"{}")
        except TimeoutError:
            told = {}
        if not told:
            raise Refused("a run was lost: its keeper gave no report; run the same command again")
        if "refused" in told or told["tester"] == REFUSED:
            raise Refused(f"a process could not be shut in ({told.get('refused') or told['head']})")
        return outcome(told, _verdict(tests), nonce, job)

    def run_many(
        self, jobs: Sequence[Job], *, side_by_side: int | None = None, tell: Callable[[int], None] | None = None
    ) -> list[Outcome]:
        """Outcomes in the order of ``jobs``; as many at once as there are cores. ``tell`` hears how many are there."""
        cores = len(os.sched_getaffinity(0))
        found: list[Outcome] = []
        with ThreadPoolExecutor(side_by_side or cores) as pool:
            for one in pool.map(self.run, jobs):
                found.append(one)
                if tell:
                    tell(len(found))
        return found

    def close(self) -> None:
        """End the server and everything behind it."""
        self.rest()
        self.control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_S)  # it tidies up
        self.process.kill()
        self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()


def _start(control: socket.socket) -> subprocess.Popen[bytes]:
    """A bare interpreter: none of our environment, files or folder, and one order of sets for all runs."""
    number = control.fileno()
    end = f"socket.socket(fileno={number})"
    interpreter = os.path.realpath(sys.executable)
    return subprocess.Popen(
        [interpreter, "-P", "-s", "-S", "-B", "-c", START.format(end), str(Path(__file__).parent)],
        env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
        cwd="/",
        pass_fds=[number],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _check(facts: dict[str, Any]) -> None:
    if not facts["landlock"]:
        raise Refused(
            f"the kernel ({facts['kernel']}, {facts['machine']}) offers no Landlock; it needs x86_64 or aarch64 and "
            "Linux 5.13 or newer with 'landlock' among the modules of its lsm= boot option"
        )
    if not facts["seccomp"]:
        raise Refused(f"the kernel ({facts['kernel']}) offers no seccomp filters; it needs CONFIG_SECCOMP_FILTER")


class Refused(SandboxError):
    """Why code is not run, in a sentence; ``why`` is its middle."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"generated code is not run here: {why}; "
            "run this evaluation on another machine, or leave out the suites of code"
        )
        self.why = why


def _all(end: socket.socket) -> bytes:
    parts = []
    while part := end.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def _verdict(tests: socket.socket) -> dict[str, Any]:
    """What the tester said before it ended; nothing where it was stopped."""
    tests.settimeout(1.0)
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(_all(tests)[8:])
        return found if isinstance(found, dict) else {}
    return {}


def outcome(told: dict[str, Any], verdict: dict[str, Any], nonce: str, job: Job) -> Outcome:
    """A keeper's report and a tester's verdict as one record; only the very nonce makes a pass."""
    kept = ("head", "tail", "printed", "cpu_s", "wall_s", "memory_bytes")
    seen = {name: told[name] for name in kept}
    if hmac.compare_digest(str(verdict.get("passed", "")), nonce) and not told["stopped"]:
        return Outcome(verdict="passed", **seen)
    if "broken" in verdict:
        return Outcome(verdict="broken", because=_shown(str(verdict["broken"])), **seen)
    return Outcome(verdict="failed", because=_shown(_because(told, verdict, job)), **seen)


def _shown(text: str) -> str:
    """Without what could speak to a terminal: parts of it were written by the code."""
    return "".join(one if one.isprintable() else "?" for one in text)


def _because(told: dict[str, Any], verdict: dict[str, Any], job: Job) -> str:
    limits = job.limits
    match told["stopped"]:
        case "wall":
            return f"took longer than {limits.wall_s:g} s"
        case "output":
            return "printed too much"
        case "scratch":
            return f"wrote more than {limits.scratch_bytes >> 20} MiB of files"
    ended = told["solver"]
    if ended == -24 or (verdict.get("gone") and ended == -9 and told["cpu_s"] >= limits.cpu_s):
        return f"used more than {limits.cpu_s} s of processor time"
    said = str(verdict.get("failed") or "the tests were not finished")
    if ended is not None and ended < 0 and ended != -9:
        said += f" [{SIGNALS.get(ended, f'ended by signal {-ended}')}]"
    return said
