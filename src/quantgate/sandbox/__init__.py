"""The sandbox: runs code that a model wrote against tests, without Docker or root, and says how it was shut in.

    box = sandbox.ready()
    box.run(Job(code="def f(x): return 2 * x", tests="assert f(2) == 4")).verdict   # "passed"

Two processes a run, each shut in by the kernel. The *solver* holds the code; the *tester* holds the tests and a random
nonce that it gives back when all of them have passed, and has the solver make their calls. Values cross as plain data.
So the code can end, break or rewrite its own process as it likes: it can only say what a call returned.

Tiers, of which the best that the machine allows is taken, after a self-test by attacks (``probes``):

    1  namespaces (process tree, files, network, IPC), Landlock, seccomp, resource limits
    2  Landlock, seccomp, resource limits, and a keeper that kills what is left
    -  otherwise ``SandboxError``: resource limits alone hold nothing, so they are never fallen back to

What the kernel is asked for stands in ``inside``; ``docs/sandbox.md`` says what holds, and what remains possible.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from quantgate.records import Record

Tier = Literal[1, 2]
TIERS: dict[Tier, str] = {
    1: "tier 1: namespaces, Landlock, seccomp, resource limits",
    2: "tier 2: Landlock, seccomp, resource limits",
}


class Limits(Record):
    """Of one run. Processor time, memory and file size hold for each of its two processes."""

    wall_s: float = Field(default=20.0, gt=0)  # generous: a busy machine must not decide; cpu_s does
    cpu_s: int = Field(default=5, ge=1)  # whole seconds, as the kernel counts
    memory_bytes: int = Field(default=1 << 30, ge=64 << 20)  # address space
    file_bytes: int = Field(default=16 << 20, ge=0)  # one file
    scratch_bytes: int = Field(default=64 << 20, ge=4096)  # all files of the working folder together


class Job(Record):
    """Code, and the tests that judge it."""

    code: str  # Python source, the setup included where it needs it
    tests: str  # Python source that calls what the code defines, and raises where it is wrong
    setup: str = ""  # run before the tests in their process: its names are theirs, whatever the code calls so
    entry: str | None = None  # the function under test; the one name that the code may define over setup or built-ins
    limits: Limits = Limits()


class Outcome(Record):
    """What became of a run. ``passed`` means that the nonce came back; nothing else can."""

    verdict: Literal["passed", "failed", "broken"]  # broken: the tests are at fault, not the code
    because: str = ""  # for a person, where it did not pass
    head: str = ""  # the first bytes printed
    tail: str = ""  # the last ones
    printed: int = 0  # bytes in all, kept or not
    cpu_s: float = 0.0
    wall_s: float = 0.0
    memory_bytes: int = 0  # the larger of the two processes, resident

    @property
    def output(self) -> str:
        """What was printed; where the middle was cut out, it says how much."""
        cut = self.printed - len(self.head.encode()) - len(self.tail.encode())
        return self.head + (f"\n[... {cut} bytes ...]\n" if cut > 0 else "") + self.tail
