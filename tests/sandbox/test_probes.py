"""The attacks of the self-test come to nothing at every tier, as root and as an ordinary user; and what they leave."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from quantgate.errors import SandboxError
from quantgate.sandbox import Job, Limits, probes
from quantgate.sandbox.box import Box, Refused
from quantgate.sandbox.choose import best, escapes, ready

SOURCE = Path(__file__).resolve().parents[2] / "src"
BRIEF = Limits(cpu_s=1)
AS_USER = """
import sys
from quantgate.sandbox.box import Box, Refused
from quantgate.sandbox.choose import escapes
from quantgate.sandbox.probes import PROBES
try:
    box = Box(int(sys.argv[1]))
except Refused as reason:
    print("refused:", reason.why)
else:
    print(box.sentence)
    print(escapes(box, PROBES))
"""


@pytest.mark.parametrize("probe", probes.PROBES, ids=lambda probe: probe.name)
def test_probe_is_contained(box: Box, probe: probes.Probe) -> None:
    outcome = box.run(probe.job)
    assert probe.contained(outcome), outcome


def test_at_least_sixteen_attacks_are_probed() -> None:
    assert len({probe.name for probe in probes.ATTACKS}) == len(probes.ATTACKS) >= 16


@pytest.mark.parametrize("tier", [1, 2])
def test_attacks_are_contained_for_an_ordinary_user(tier: int) -> None:
    if os.getuid() != 0:
        pytest.skip("the tests run as an ordinary user already")
    if not shutil.which("unshare"):
        pytest.skip("util-linux's unshare is not installed, which makes an ordinary user of root")
    command = ["unshare", "--user", "--map-user=1000", "--map-group=1000", sys.executable, "-c", AS_USER, str(tier)]
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode or done.stdout.startswith("refused"):
        pytest.skip(f"no ordinary user at tier {tier} on this machine: {done.stdout}{done.stderr}")
    sentence, escaped = done.stdout.splitlines()
    assert sentence.startswith(f"tier {tier}") and "as the same user" in sentence
    assert escaped == "[]"


@pytest.mark.parametrize(
    "body",
    [
        "import socket; socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
        "import socket; socket.create_connection(('127.0.0.1', 22))",
        "import subprocess; subprocess.run(['/bin/true'])",
        "import os; os.kill(1, 0)",
        "import os; os.killpg(0, 9)",
        "import os; os.chmod('.', 0o777)",
        "import os; os.link('/dev/null', 'other')",
        "import os; os.symlink('/etc', 'etc')",
        "import os; os.mkfifo('pipe')",
        "import os; os.truncate(os.__file__, 0)",
        "import os; os.open(os.__file__, os.O_RDONLY | os.O_TRUNC)",
        "import os; os.memfd_create('memory')",
        "import os; os.setuid(0)",
        "import os; os.chroot('.')",
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))",
        "import fcntl; fcntl.ioctl(1, 0x5412, b'x')",
        "import os; os.listdir('/')",
        "import os; os.listdir('/tmp')",
        "import os; open(os.__file__, 'a')",
        "import os; os.unlink(os.__file__)",
        "open('/dev/zero', 'w')",
        "open('/dev/vda')",
        "open('/proc/1/environ')",
        "open('/proc/self/maps')",
        "open('/sys/kernel/notes')",
        "import multiprocessing; multiprocessing.get_context('fork').Process(target=print).start()",
    ],
)
def test_call_is_refused(box: Box, body: str) -> None:
    code = f"def f():\n    try:\n        {body}\n    except (OSError, ValueError):\n        return 'refused'\n"
    outcome = box.run(Job(code=code, tests="assert f() == 'refused'", limits=BRIEF))
    assert outcome.verdict == "passed", outcome


@pytest.mark.parametrize(
    "body",
    [
        "import asyncio; asyncio.run(asyncio.sleep(0.001))",
        "import threading; one = threading.Thread(target=print); one.start(); one.join()",
        "open('own', 'w').write('x'); assert open('own').read() == 'x'",
        "import os; os.mkdir('d'); open('d/e', 'w').close(); os.rename('d/e', 'd/f'); os.unlink('d/f'); os.rmdir('d')",
        "import tempfile; tempfile.TemporaryFile(dir='.').write(b'x')",
        "import zoneinfo, sqlite3, hashlib; sqlite3.connect(':memory:').execute('select 1'); hashlib.sha256(b'x')",
        "import time, random, secrets, uuid; time.sleep(0.001); random.random(); secrets.token_hex(); uuid.uuid4()",
        "import os; os.kill(os.getpid(), 0); os.urandom(4); os.getcwd(); os.cpu_count()",
    ],
)
def test_what_honest_code_does_is_allowed(box: Box, body: str) -> None:
    if "Thread" in body and "root" in box.sentence:
        pytest.skip("root's threads are not counted by the kernel, so they are refused")
    outcome = box.run(Job(code=f"def f():\n    {body}\n    return 42\n", tests="assert f() == 42"))
    assert outcome.verdict == "passed", outcome


def test_nothing_and_nobody_is_left_behind(box: Box) -> None:
    """A run that is stopped leaves no process and no scratch folder; nor does one that was only made ready."""
    fresh = Box(box.tier)
    own = f"quantgate-sandbox-{fresh.process.pid}-*"  # other tests have boxes beside this one
    folder = Path(tempfile.gettempdir())
    assert len(list(folder.glob(own))) == (box.tier > 1)
    busy = "import os, time\ndef f():\n    open('kept', 'w').write('x')\n    os.mkdir('shut', 0)\n    time.sleep(60)\n"
    outcome = fresh.run(Job(code=busy, tests="f()", limits=Limits(wall_s=0.5)))
    assert outcome.because == "took longer than 0.5 s"
    time.sleep(0.6)  # the clock of the next run has not started
    assert fresh.run(Job(code="def f(): pass", tests="f()", limits=Limits(wall_s=0.5))).verdict == "passed"
    fresh.rest()
    for _ in range(100):
        if not descendants(fresh.process.pid):
            break
        time.sleep(0.02)
    assert not descendants(fresh.process.pid)
    assert fresh.run(Job(code="def f(): open('kept', 'w').close()", tests="f()")).verdict == "passed"
    fresh.close()  # with a run made ready
    assert not list(folder.glob(own))


def descendants(pid: int) -> list[int]:
    try:
        direct = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return direct + [below for one in direct for below in descendants(one)]


def test_many_files_do_not_fill_the_disk(box: Box) -> None:
    code = "def f():\n    for at in range(10**6):\n        open(f'file{at}', 'wb').write(bytes(1 << 20))\n"
    outcome = box.run(Job(code=code, tests="f()", limits=Limits(scratch_bytes=4 << 20)))
    assert outcome.verdict == "failed"
    assert "No space left" in outcome.because or "wrote more than 4 MiB" in outcome.because, outcome


def test_threads_are_limited(box: Box) -> None:
    code = (
        "import threading\nthreading.stack_size(65536)\n"
        "def f():\n    made, stop = 0, threading.Event()\n    try:\n        for _ in range(5000):\n"
        "            threading.Thread(target=stop.wait, daemon=True).start()\n            made += 1\n"
        "    except RuntimeError:\n        return made\n"
    )
    outcome = box.run(Job(code=code, tests="assert f() < 2000"))
    assert outcome.verdict == "passed", outcome


def test_output_is_counted_and_its_middle_told_to_be_missing(box: Box) -> None:
    code = "def f():\n    print('first')\n    print('x' * 100_000)\n    print('last')\n    return 42\n"
    outcome = box.run(Job(code=code, tests="assert f() == 42"))
    assert outcome.verdict == "passed" and outcome.printed == 6 + 100_001 + 5
    assert outcome.output.startswith("first\nxxx") and outcome.output.endswith("xxx\nlast\n")
    assert f"[... {100_012 - 2 * 8192} bytes ...]" in outcome.output


def test_a_flood_of_output_is_stopped(box: Box) -> None:
    code = "import os\ndef f():\n    while True:\n        os.write(1, bytes(1 << 20))\n"
    outcome = box.run(Job(code=code, tests="f()"))
    assert outcome.because == "printed too much" and len(outcome.head) + len(outcome.tail) <= 4 * 8192


def test_processor_time_decides_and_not_the_clock(box: Box) -> None:
    outcome = box.run(Job(code="def f():\n    while True: pass", tests="f()", limits=Limits(cpu_s=1)))
    assert outcome.because == "used more than 1 s of processor time" and 0.8 < outcome.cpu_s < 2


def test_native_code_is_held_as_well(box: Box) -> None:
    """Machine code that asks the kernel through the 32-bit door is killed: its numbers mean other calls."""
    if os.uname().machine != "x86_64":
        pytest.skip("the 32-bit door is that of x86_64")
    code = (
        "import ctypes, mmap\ndef f():\n    page = mmap.mmap(-1, 4096, prot=7)\n"
        "    page.write(bytes.fromhex('b814000000cd80c3'))\n"  # mov eax, 20 (getpid); int 0x80; ret
        "    place = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "    return ctypes.CFUNCTYPE(ctypes.c_int)(place)()\n"
    )
    outcome = box.run(Job(code=code, tests="f()"))
    assert outcome.verdict == "failed" and "ended by signal 31" in outcome.because, outcome


def test_every_system_call_of_x32_is_killed(box: Box) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("x32 is an interface of x86_64")
    code = "import ctypes\ndef f():\n    return ctypes.CDLL(None).syscall(0x40000000 + 39)\n"
    outcome = box.run(Job(code=code, tests="f()"))
    assert outcome.verdict == "failed" and "ended by signal 31" in outcome.because, outcome


def test_environment_and_open_files_of_the_caller_are_not_there(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_SECRET", "swordfish")
    code = (
        "import os\ndef open_files():\n    found = []\n    for one in range(300):\n        try:\n"
        "            os.fstat(one)\n"
        "            found.append(one)\n        except OSError:\n            pass\n    return found\n"
        "def environment():\n    return dict(os.environ)\n"
    )
    tests = (
        "assert open_files() == [0, 1, 2, 4, 5], open_files()\n"
        "assert set(environment()) <= {'PYTHONHASHSEED', 'PYTHONUTF8', 'LC_CTYPE'}, environment()\n"
    )
    fresh = Box(box.tier)
    outcome = fresh.run(Job(code=code, tests=tests))
    fresh.close()
    assert outcome.verdict == "passed", outcome


def test_ready_gives_the_best_tier_once_and_says_it() -> None:
    try:
        made = ready()
    except SandboxError as reason:
        pytest.skip(str(reason))
    assert made is ready() and made.sentence.startswith(f"tier {made.tier}: ")


def test_a_tier_that_lets_something_through_is_refused(any_box: Box) -> None:
    leak = probes.Probe("add", Job(code="def attack():\n    return 'open'", tests=probes.REFUSED))
    with pytest.raises(
        SandboxError, match=rf"not tier {any_box.tier}: it let code add .*'open'.*; run this evaluation"
    ):
        best([any_box.tier], (*probes.CONTROLS, leak))


def test_a_server_that_has_ended_is_told_in_a_sentence(any_box: Box) -> None:
    lost = Box(any_box.tier)
    lost.process.kill()
    lost.process.wait()
    with pytest.raises(Refused, match="its server has ended"):
        lost.run(Job(code="", tests=""))
    lost.close()


def test_the_server_ends_with_its_owner(any_box: Box) -> None:
    code = (
        "import os\nfrom quantgate.sandbox.box import Box\n"
        f"print(Box({any_box.tier}).process.pid, flush=True)\nos._exit(1)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    server = int(done.stdout)
    for _ in range(200):
        if not Path(f"/proc/{server}").exists():
            return
        time.sleep(0.02)
    raise AssertionError("the server outlived its owner")


def test_what_was_not_contained_is_named(any_box: Box) -> None:
    harmless = probes.Probe("walk out", Job(code="def f(): return 1", tests="assert f() == 1"), "failed")
    assert escapes(any_box, (*probes.CONTROLS, harmless)) == ["walk out (passed)"]
