"""The tables and the program that the kernel is given: numbers by its own headers, verdicts by a machine of our own."""

from __future__ import annotations

import errno
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.sandbox.inside import keeper, landlock, rooms, seccomp

HEADERS = {
    "x86_64": (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm/unistd_64.h")),
    "aarch64": (Path("/usr/include/asm-generic/unistd.h"),),
}
PID = 4321
DENIED, MISSING = seccomp.ERRNO | errno.EPERM, seccomp.ERRNO | errno.ENOSYS


def table(machine: str) -> dict[str, int]:
    """name -> number of all that the filter knows of a machine."""
    old = seccomp.OLD if machine == "x86_64" else {}
    return seccomp.COMMON[machine] | old | seccomp.ASKED[machine] | seccomp.REFUSED[machine]


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_are_those_of_the_headers(machine: str) -> None:
    header = next((one for one in HEADERS[machine] if one.exists()), None)
    if header is None:
        pytest.skip(f"the kernel's headers for {machine} are not installed")
    text = header.read_text("utf-8")
    numbers = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    numbers |= {new: numbers[old] for old, new in (("fstatat", "newfstatat"),) if old in numbers}
    assert {name: numbers.get(name) for name in table(machine)} == table(machine)


@pytest.mark.parametrize("machine", HEADERS)
def test_no_number_has_two_rules(machine: str) -> None:
    assert len(set(table(machine).values())) == len(table(machine))
    groups = [set(seccomp.COMMON[machine]), set(seccomp.ASKED[machine]), set(seccomp.REFUSED[machine])]
    groups += [set(seccomp.OLD)] if machine == "x86_64" else []
    assert sum(map(len, groups)) == len(set().union(*groups))


def verdict(machine: str, number: int, *args: int, arch: int | None = None, threads: bool = True) -> int:
    """Run the program as the kernel does: a classic BPF machine with the seven instructions that it uses."""
    words = [*args, *[0] * (6 - len(args))]
    data = struct.pack("=IIQ6Q", number, seccomp.AUDIT[machine] if arch is None else arch, 0, *words)
    program, at, value = seccomp.program(machine, PID, threads=threads), 0, 0
    while True:
        code, yes, no, k = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        match code:
            case seccomp.LOAD:
                (value,) = struct.unpack_from("=I", data, k)
            case seccomp.AND:
                value &= k
            case seccomp.RETURN:
                return int(k)
            case seccomp.SKIP:
                at += k
            case seccomp.EQUAL:
                at += yes if value == k else no
            case seccomp.AT_LEAST:
                at += yes if value >= k else no
            case seccomp.ANY_OF:
                at += yes if value & k else no
            case _:
                raise AssertionError(f"instruction {code:#x}")


@pytest.mark.parametrize("machine", HEADERS)
@given(
    number=st.integers(0, (1 << 32) - 1) | st.integers(0, 500), args=st.lists(st.integers(0, (1 << 64) - 1), max_size=6)
)
def test_every_call_gets_the_verdict_of_its_list(machine: str, number: int, args: list[int]) -> None:
    found, names = verdict(machine, number, *args), {value: name for name, value in table(machine).items()}
    name = names.get(number, "")
    if machine == "x86_64" and number >= seccomp.X32:
        assert found == seccomp.KILL
    elif name in seccomp.ASKED[machine]:
        assert found in (seccomp.ALLOW, DENIED, MISSING, seccomp.ERRNO | errno.EAGAIN, seccomp.ERRNO | errno.ENOTTY)
    elif name in seccomp.REFUSED[machine]:
        assert found == DENIED
    else:
        assert found == (seccomp.ALLOW if name else MISSING)


@pytest.mark.parametrize("machine", HEADERS)
def test_another_architecture_is_killed_whatever_it_calls(machine: str) -> None:
    foreign = 0x40000003  # AUDIT_ARCH_I386
    assert {verdict(machine, number, arch=foreign) for number in range(500)} == {seccomp.KILL}


@pytest.mark.parametrize("machine", HEADERS)
def test_arguments_decide_where_they_must(machine: str) -> None:
    numbers = seccomp.ASKED[machine]
    allowed, again, thread, big = seccomp.ALLOW, seccomp.ERRNO | errno.EAGAIN, 0x10000, 1 << 32

    def of(name: str, *args: int, threads: bool = True) -> int:
        return verdict(machine, numbers[name], *args, threads=threads)

    assert of("kill", PID, 9) == of("tgkill", PID, 1, 6) == allowed
    assert {of("kill", one, 9) for one in (0, 1, (1 << 64) - 1, PID + 1)} | {of("tkill", PID, 9)} == {DENIED}
    assert of("clone", 0x3D0F00) == allowed and of("clone", 17) == of("clone", 0x10000000) == again
    assert of("clone", thread, threads=False) == again and of("clone3", 0, 88) == MISSING
    assert of("prlimit64", 0, 0, 0, 5) == of("prlimit64", PID, 0, 0, 5) == allowed
    assert of("prlimit64", 0, 0, 5) == of("prlimit64", 0, 0, big) == of("prlimit64", 1, 0, 0, 5) == DENIED
    assert of("socketpair", 1, 1) == of("socketpair", 1, 1 | 0o2000000) == allowed
    assert of("socketpair", 1, 2) == of("socketpair", 1, 5) == of("socketpair", 2, 1) == DENIED
    assert of("openat", 3, 5, 0o1001) == of("openat", 3, 5, 0o1002) == of("openat", 3, 5, 0) == allowed
    assert of("openat", 3, 5, 0o1000) == of("openat", 3, 5, 0o1003) == DENIED
    assert of("ioctl", 1, 0x5401) == allowed and of("ioctl", 1, 0x5412) == seccomp.ERRNO | errno.ENOTTY
    assert of("prctl", 15) == allowed and of("prctl", 22) == of("prctl", 4) == DENIED
    assert of("fcntl", 1, 1030) == allowed and of("fcntl", 1, 8) == of("fcntl", 1, 1024) == DENIED
    assert of("setrlimit", 0, 5) == DENIED


def test_jumps_stay_within_a_byte_and_programs_within_the_kernels_limit() -> None:
    for machine in HEADERS:
        assert len(seccomp.program(machine, PID)) // 8 <= 4096


def test_rights_grow_with_the_version_of_landlock() -> None:
    assert landlock.OWN_FOLDER >> landlock.FILE_RIGHTS[3] == 0
    assert list(landlock.FILE_RIGHTS.values()) == sorted(landlock.FILE_RIGHTS.values())


def test_folders_to_read_are_whole_and_none_lies_in_another() -> None:
    found = rooms.libraries()
    assert any(Path(struct.__file__).resolve().is_relative_to(one) for one in found)
    assert not any(one != other and Path(one).is_relative_to(other) for one in found for other in found)


def test_keeper_kills_a_daemon_that_has_left_its_parents() -> None:
    """The reaper alone, where forking is allowed: a child's child, in a session of its own, whose parent has ended."""
    code = (
        "import os, time\nfrom quantgate.sandbox.inside import keeper, kernel\n"
        "kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)\nreceive, send = os.pipe()\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        os.write(send, str(os.getpid()).encode())\n"
        "        time.sleep(60)\n    os._exit(0)\n"
        "daemon = int(os.read(receive, 20))\nos.kill(daemon, 0)\nkeeper.kill_what_is_left()\n"
        "try:\n    os.kill(daemon, 0)\nexcept ProcessLookupError:\n    print('gone')\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(keeper.__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "gone\n", done.stderr


def test_scratch_of_any_shape_is_measured_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "file").write_bytes(bytes(100_000))
    (folder / "link").symlink_to("/")
    assert 100_000 < keeper.size_of(str(folder)) < 150_000
    (folder / "a" / "b").chmod(0)
    keeper.remove(str(folder))
    assert not folder.exists()
