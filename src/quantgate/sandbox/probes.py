"""The self-test: attacks that must come to nothing, and two controls that show the sandbox decides at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantgate.sandbox import Job, Limits, Outcome

BRIEF = Limits(wall_s=20.0, cpu_s=1)
WAITING = Limits(wall_s=1.0, cpu_s=1)
ATTEMPT = """
import os, signal, socket, ctypes
def attempt():
{body}
    return "open"
def attack():
    try:
        return attempt()
    except (OSError, MemoryError, RuntimeError) as problem:
        return "refused: " + type(problem).__name__
"""
REFUSED = "found = attack()\nassert found.startswith('refused'), found"


@dataclass(frozen=True)
class Probe:
    """One attack. It is contained when its job ends with ``verdict`` and, where a word is given, ``because`` has it."""

    name: str
    job: Job
    verdict: str = "passed"
    word: str = ""

    def contained(self, outcome: Outcome) -> bool:
        return outcome.verdict == self.verdict and self.word in outcome.because


def _attempt(name: str, *lines: str) -> Probe:
    body = "\n".join(f"    {line}" for line in lines)
    return Probe(name, Job(code=ATTEMPT.format(body=body), tests=REFUSED, limits=BRIEF))


def _whole(name: str, body: str, verdict: str, word: str, limits: Limits = BRIEF) -> Probe:
    code = f"import os, time, sys\ndef f():\n    {body}\n"
    return Probe(name, Job(code=code, tests="assert f() == 42", limits=limits), verdict, word)


CONTROLS = (
    Probe("a right answer passes", Job(code="def f(x):\n    return x + 1", tests="assert f(1) == 2")),
    Probe(
        "a wrong answer fails", Job(code="def f(x):\n    return x", tests="assert f(1) == 2"), "failed", "f(1) gave 1"
    ),
)
ATTACKS = (
    _attempt("open a socket", "socket.socket()"),
    _attempt("read the list of users", "open('/etc/passwd').read()"),
    _attempt("look into home folders", "os.listdir('/' + 'home')", "os.listdir('/' + 'root')"),
    _attempt("write outside its folder", "open('/tmp/../quantgate-was-here', 'w').close()"),
    _attempt("signal its parent", "os.kill(os.getppid(), signal.SIGCONT)"),
    _attempt("signal everybody", "os.kill(-1, signal.SIGCONT)"),
    _attempt("leave a daemon", "if os.fork() == 0:", "    os._exit(0)"),
    _attempt("take 2 GiB of memory", "bytearray(2 << 30)"),
    _attempt(
        "write a file of 64 MiB",
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)",
        "with open('big', 'wb') as file:",
        "    for _ in range(64):",
        "        file.write(bytes(1 << 20))",
    ),
    _attempt("fork 500 times", "for _ in range(500):", "    if os.fork() == 0:", "        os._exit(0)"),
    _whole("run for ever", "while True: pass", "failed", "processor time"),
    _whole("sleep for a minute", "time.sleep(60)", "failed", "longer than", WAITING),
    _attempt(
        "trace another process",
        "libc = ctypes.CDLL(None, use_errno=True)",
        "if libc.ptrace(16, os.getppid(), 0, 0): raise OSError(ctypes.get_errno(), 'ptrace')",
    ),
    _attempt("write the memory of another process", "open(f'/proc/{os.getppid()}/mem', 'r+b').close()"),
    _attempt("list the processes", "os.listdir('/proc')"),
    _whole("end early with success", "os._exit(0)", "failed", "ended the process"),
    _attempt("start a program", "os.execv('/bin/sh', ['sh', '-c', 'exit 0'])"),
    _attempt("change rights of a file", "open('own', 'w').close()", "os.chmod('own', 0o777)"),
)
PROBES: Sequence[Probe] = (*CONTROLS, *ATTACKS)
