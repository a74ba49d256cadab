"""Machines that offer less: a filter takes a system call from a process and all it starts, as an older kernel would."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quantgate.sandbox.inside import landlock, seccomp

SOURCE = Path(__file__).resolve().parents[2] / "src"
UNSHARE = {"x86_64": 272, "aarch64": 97}
WITHOUT = """
import ctypes, sys
from quantgate.sandbox.inside import kernel
from quantgate.sandbox.inside.seccomp import ALLOW, EQUAL, ERRNO, LOAD, NUMBER, RETURN, instruction

def take_away(number, error):
    code = instruction(LOAD, NUMBER) + instruction(EQUAL, number, 0, 1) + instruction(RETURN, ERRNO | error)
    code += instruction(RETURN, ALLOW)
    buffer = ctypes.create_string_buffer(code, len(code))
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    given = Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    kernel.prctl(kernel.PR_SET_SECCOMP, kernel.SECCOMP_MODE_FILTER, ctypes.byref(given))

take_away(int(sys.argv[1]), int(sys.argv[2]))
"""
READY = """
from quantgate.errors import SandboxError
from quantgate.sandbox.choose import ready
try:
    print(ready().sentence)
except SandboxError as reason:
    print(reason)
"""
COMPARE = """
from quantgate.errors import SandboxError
from quantgate.pipeline import compare_models
try:
    compare_models("no/such/model", "no/such/variant", [sys.argv[3]], margin="10%", cases=60)
except SandboxError as reason:
    print(reason)
"""


def on_a_machine_without(number: int, error: int, script: str, *more: str) -> str:
    command = [sys.executable, "-c", WITHOUT + script, str(number), str(error), *more]
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def filters() -> None:
    if not sys.platform.startswith("linux") or os.uname().machine not in UNSHARE or not seccomp.available():
        pytest.skip("this machine has no seccomp, with which a system call is taken away")


def test_without_landlock_code_is_not_run_and_the_sentence_says_what_is_missing() -> None:
    told = on_a_machine_without(landlock.CREATE, errno.ENOSYS, READY)
    assert told.startswith("generated code is not run here: not tier 1: the kernel (")
    assert "offers no Landlock; it needs x86_64 or aarch64 and Linux 5.13 or newer" in told
    assert told.endswith("run this evaluation on another machine, or leave out the suites of code")


def test_without_namespaces_the_second_tier_is_taken_and_the_reason_kept() -> None:
    told = on_a_machine_without(UNSHARE[os.uname().machine], errno.EPERM, READY)
    if told.startswith("generated code is not run here"):
        pytest.skip(told)
    assert told.startswith("tier 2: Landlock, seccomp, resource limits; ")
    assert told.endswith(
        "; not tier 1: this machine does not allow tier 1 ([Errno 1] unshare: Operation not permitted)"
    )


def test_an_evaluation_of_code_is_refused_before_a_model_is_opened(tmp_path: Path) -> None:
    row = '{"id": "%d", "prompt": "double x %d", "scorer": "python_tests", "reference": {"tests": "f()"}}\n'
    (tmp_path / "code.jsonl").write_text("".join(row % (at, at) for at in range(60)), "utf-8")
    told = on_a_machine_without(landlock.CREATE, errno.ENOSYS, COMPARE, str(tmp_path / "code.jsonl"))
    assert told.startswith("generated code is not run here")
