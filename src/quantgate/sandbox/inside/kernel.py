"""System calls that Python does not offer, by ctypes. Errors are OSError with the kernel's number."""

from __future__ import annotations

import ctypes
import os
import platform

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18,
)  # fmt: skip
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
SECCOMP_MODE_FILTER = 2
NUMBERS = {
    "x86_64": {"pivot_root": 155, "capset": 126},
    "aarch64": {"pivot_root": 41, "capset": 91},
}  # numbers of the calls below that glibc gives no function for; Landlock's are the same everywhere

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def syscall(number: int, *args: object) -> int:
    """The raw call. Integers are passed as machine words."""
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in args]
    return _checked(_libc.syscall(ctypes.c_long(number), *words), f"system call {number}")


def named(name: str, *args: object) -> int:
    return syscall(NUMBERS[platform.machine()][name], *args)


def prctl(option: int, *args: object) -> int:
    words = [ctypes.c_ulong(one) if isinstance(one, int) else one for one in args]
    words += [ctypes.c_ulong(0)] * (4 - len(words))
    return _checked(_libc.prctl(ctypes.c_int(option), *words), f"prctl {option}")


def unshare(flags: int) -> None:
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    given = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode() or None)
    _checked(_libc.mount(*given), f"mount {target}")


def unmount(target: str) -> None:
    _checked(_libc.umount2(target.encode(), ctypes.c_int(MNT_DETACH)), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    named("pivot_root", ctypes.c_char_p(new.encode()), ctypes.c_char_p(old.encode()))


def drop_capabilities() -> None:
    """No capability in any set of this process, and none to be had again. man 2 capset, version 3."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    named("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))


def machine() -> str:
    return platform.machine()


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
