"""seccomp: which system calls a process may make, as a classic BPF program over (number, architecture, arguments).

An allow list. A call that is not on it does not exist (ENOSYS, so that a C library falls back to an older one) or,
where a program should be told that it is refused, is not permitted (EPERM). Numbers are those of Linux's tables; the
tests hold them against the headers of the machine. A process of another architecture, or of the x32 interface, is
killed: its numbers mean other calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from . import kernel

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32 = 0x40000000
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, SKIP, EQUAL, AT_LEAST, ANY_OF, RETURN, AND = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06, 0x54
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

COMMON = {
    "x86_64": {
        "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12,
        "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "pwrite64": 18, "readv": 19,
        "writev": 20, "sched_yield": 24, "mremap": 25, "mincore": 27, "madvise": 28, "dup": 32, "nanosleep": 35,
        "getitimer": 36, "setitimer": 38, "getpid": 39, "sendfile": 40, "sendto": 44, "recvfrom": 45,
        "shutdown": 48, "exit": 60, "uname": 63, "fsync": 74, "fdatasync": 75, "ftruncate": 77, "getcwd": 79,
        "chdir": 80, "fchdir": 81, "umask": 95, "gettimeofday": 96, "getrlimit": 97, "getrusage": 98, "sysinfo": 99,
        "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110,
        "rt_sigpending": 127, "sigaltstack": 131, "gettid": 186, "futex": 202, "sched_getaffinity": 204,
        "getdents64": 217, "set_tid_address": 218, "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229,
        "clock_nanosleep": 230, "exit_group": 231, "epoll_ctl": 233, "epoll_pwait": 281,
        "mkdirat": 258, "newfstatat": 262, "unlinkat": 263, "renameat2": 316, "readlinkat": 267, "faccessat": 269,
        "faccessat2": 439, "pselect6": 270, "ppoll": 271, "set_robust_list": 273, "eventfd2": 290, "epoll_create1": 291,
        "dup3": 292, "pipe2": 293, "getrandom": 318, "statx": 332, "rseq": 334, "flock": 73, "membarrier": 324,
    },
    "aarch64": {
        "read": 63, "write": 64, "close": 57, "fstat": 80, "lseek": 62, "mmap": 222, "mprotect": 226, "munmap": 215,
        "brk": 214, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "pread64": 67, "pwrite64": 68,
        "readv": 65, "writev": 66, "sched_yield": 124, "mremap": 216, "mincore": 232, "madvise": 233, "dup": 23,
        "nanosleep": 101, "getitimer": 102, "setitimer": 103, "getpid": 172, "sendfile": 71, "sendto": 206,
        "recvfrom": 207, "shutdown": 210, "exit": 93, "uname": 160, "fsync": 82, "fdatasync": 83, "ftruncate": 46,
        "getcwd": 17, "chdir": 49, "fchdir": 50, "umask": 166, "gettimeofday": 169, "getrlimit": 163, "getrusage": 165,
        "sysinfo": 179, "times": 153, "getuid": 174, "getgid": 176, "geteuid": 175, "getegid": 177, "getppid": 173,
        "rt_sigpending": 136, "sigaltstack": 132, "gettid": 178, "futex": 98, "sched_getaffinity": 123,
        "getdents64": 61,
        "set_tid_address": 96, "restart_syscall": 128, "clock_gettime": 113, "clock_getres": 114,
        "clock_nanosleep": 115, "exit_group": 94, "epoll_ctl": 21, "epoll_pwait": 22, "mkdirat": 34,
        "newfstatat": 79, "unlinkat": 35, "renameat2": 276, "readlinkat": 78, "faccessat": 48, "faccessat2": 439,
        "pselect6": 72, "ppoll": 73, "set_robust_list": 99, "eventfd2": 19, "epoll_create1": 20, "dup3": 24,
        "pipe2": 59, "getrandom": 278, "statx": 291, "rseq": 293, "flock": 32, "membarrier": 283, "renameat": 38,
    },
}  # fmt: skip
OLD = {
    "stat": 4, "lstat": 6, "poll": 7, "access": 21, "pipe": 22, "select": 23, "dup2": 33, "alarm": 37, "rename": 82,
    "mkdir": 83, "rmdir": 84, "unlink": 87, "readlink": 89, "getpgrp": 111, "arch_prctl": 158, "time": 201,
    "epoll_create": 213, "epoll_wait": 232, "eventfd": 284, "renameat": 264,
}  # fmt: skip
ASKED = {  # calls that depend on their arguments
    "x86_64": {
        "open": 2, "ioctl": 16, "socketpair": 53, "clone": 56, "kill": 62, "fcntl": 72, "setrlimit": 160, "prctl": 157,
        "tkill": 200, "tgkill": 234, "openat": 257, "prlimit64": 302, "clone3": 435,
    },
    "aarch64": {
        "ioctl": 29, "socketpair": 199, "clone": 220, "kill": 129, "fcntl": 25, "setrlimit": 164, "prctl": 167,
        "tkill": 130, "tgkill": 131, "openat": 56, "prlimit64": 261, "clone3": 435,
    },
}  # fmt: skip
REFUSED = {  # EPERM rather than ENOSYS: what programs try, and people look for in a log
    "x86_64": {
        "socket": 41, "connect": 42, "bind": 49, "listen": 50, "sendmsg": 46, "fork": 57, "vfork": 58, "execve": 59,
        "ptrace": 101, "mount": 165, "umount2": 166, "unshare": 272, "setns": 308, "bpf": 321, "keyctl": 250,
        "perf_event_open": 298, "process_vm_readv": 310, "process_vm_writev": 311, "execveat": 322, "chmod": 90,
        "fchmod": 91, "fchmodat": 268, "chown": 92, "link": 86, "symlink": 88, "mknod": 133, "truncate": 76,
        "memfd_create": 319, "userfaultfd": 323, "io_uring_setup": 425, "open_by_handle_at": 304, "init_module": 175,
        "kexec_load": 246, "pidfd_send_signal": 424, "pidfd_open": 434, "setuid": 105, "chroot": 161, "utimensat": 280,
    },
    "aarch64": {
        "socket": 198, "connect": 203, "bind": 200, "listen": 201, "sendmsg": 211, "execve": 221, "ptrace": 117,
        "mount": 40, "umount2": 39, "unshare": 97, "setns": 268, "bpf": 280, "keyctl": 219, "perf_event_open": 241,
        "process_vm_readv": 270, "process_vm_writev": 271, "execveat": 281, "fchmod": 52, "fchmodat": 53,
        "fchownat": 54, "linkat": 37, "symlinkat": 36, "mknodat": 33, "truncate": 45, "memfd_create": 279,
        "userfaultfd": 282, "io_uring_setup": 425, "open_by_handle_at": 265, "init_module": 105, "kexec_load": 104,
        "pidfd_send_signal": 424, "pidfd_open": 434, "setuid": 146, "chroot": 51, "utimensat": 88,
    },
}  # fmt: skip

THREAD = 0x00010000  # CLONE_THREAD
IOCTLS = (0x5401, 0x5411, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCOUTQ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)  # descriptors, flags, locks; no signals to owners, no leases
PRCTLS = (2, 3, 15, 16, 21, 39)  # reading one's own settings, the name of a thread
ACCESS, TRUNC = 3, 0o1000


def instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """struct sock_filter: what to do, with which number, how many to skip where it holds and where it does not."""
    return struct.pack("=HBBI", code, yes, no, value & 0xFFFFFFFF)


def refuse(number: int) -> bytes:
    return instruction(RETURN, ERRNO | number)


def program(machine: str, pid: int, *, threads: bool = True) -> bytes:
    """The filter of the process ``pid`` (as it knows itself), which may signal itself and nobody else."""
    parts = [
        instruction(LOAD, ARCHITECTURE),
        instruction(EQUAL, AUDIT[machine], 1, 0),
        instruction(RETURN, KILL),
        instruction(LOAD, NUMBER),
    ]
    if machine == "x86_64":
        parts += [instruction(AT_LEAST, X32, 0, 1), instruction(RETURN, KILL)]
    rules = dict.fromkeys(COMMON[machine].values(), instruction(RETURN, ALLOW))
    rules |= dict.fromkeys(OLD.values() if machine == "x86_64" else (), instruction(RETURN, ALLOW))
    rules |= dict.fromkeys(REFUSED[machine].values(), refuse(errno.EPERM))
    for name, number in ASKED[machine].items():
        rules[number] = b"".join(_asked(name, pid, THREAD if threads else 0))
    return b"".join(parts) + _tree(sorted(rules.items()))


def _tree(rules: list[tuple[int, bytes]]) -> bytes:
    """The rules of these calls, found by halving: the kernel walks the program once per number when it is installed."""
    if len(rules) > 4:
        low, high = _tree(rules[: len(rules) // 2]), _tree(rules[len(rules) // 2 :])
        pivot = instruction(AT_LEAST, rules[len(rules) // 2][0], 0, 1)
        return pivot + instruction(SKIP, len(low) // 8) + low + high
    tests = [instruction(EQUAL, number, 0, len(body) // 8) + body for number, body in rules]
    return b"".join([*tests, refuse(errno.ENOSYS)])


def _asked(name: str, pid: int, thread: int) -> list[bytes]:
    """What is allowed of one call, ending in a verdict."""
    denied = refuse(errno.EPERM)
    match name:
        case "open" | "openat":
            return _open(1 if name == "open" else 2)
        case "ioctl":
            return _among(1, IOCTLS, refuse(errno.ENOTTY))
        case "fcntl":
            return _among(1, FCNTLS, denied)
        case "prctl":
            return _among(0, PRCTLS, denied)
        case "kill" | "tgkill":
            return _among(0, (pid,), denied)
        case "setrlimit":
            return [denied]
        case "prlimit64":  # to read: no new limit, of this process
            return [*_unless(2, 0, denied), *_unless(2, 0, denied, high=True), *_among(0, (0, pid), denied)]
        case "socketpair":  # a connected pair of its own, as event loops want
            return [
                *_unless(0, 1, denied),
                instruction(LOAD, _word(1)),
                instruction(AND, 0xF),
                instruction(EQUAL, 1, 0, 1),
                instruction(RETURN, ALLOW),
                denied,
            ]
        case "clone":  # threads, no processes
            load = instruction(LOAD, _word(0))
            return [load, instruction(ANY_OF, thread, 0, 1), instruction(RETURN, ALLOW), refuse(errno.EAGAIN)]
        case "clone3":  # its flags lie in memory, where a filter cannot look: C libraries then take clone
            return [refuse(errno.ENOSYS)]
    return [denied]


def _open(at: int) -> list[bytes]:
    """Any flags but truncating what is not opened for writing, which Landlock lets pass before version 3."""
    return [
        instruction(LOAD, _word(at)),
        instruction(AND, ACCESS | TRUNC),
        instruction(EQUAL, TRUNC, 1, 0),
        instruction(EQUAL, TRUNC | ACCESS, 0, 1),
        refuse(errno.EPERM),
        instruction(RETURN, ALLOW),
    ]


def _among(at: int, values: tuple[int, ...], otherwise: bytes) -> list[bytes]:
    tests = [part for one in values for part in (instruction(EQUAL, one, 0, 1), instruction(RETURN, ALLOW))]
    return [instruction(LOAD, _word(at)), *tests, otherwise]


def _unless(at: int, value: int, otherwise: bytes, *, high: bool = False) -> list[bytes]:
    return [instruction(LOAD, _word(at, high=high)), instruction(EQUAL, value, 1, 0), otherwise]


def _word(at: int, *, high: bool = False) -> int:
    """Where the low or high half of argument ``at`` lies; both machines are little-endian."""
    return ARGUMENTS + 8 * at + 4 * high


def install(machine: str, *, threads: bool) -> None:
    """From here on this process is held to the list, for good. Needs no_new_privs."""
    code = program(machine, os.getpid(), threads=threads)
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    given = Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    kernel.prctl(kernel.PR_SET_SECCOMP, kernel.SECCOMP_MODE_FILTER, ctypes.byref(given))


def available() -> bool:
    """Whether filters can be installed: a null program is EFAULT where they can, EINVAL where they cannot."""
    try:
        kernel.prctl(kernel.PR_SET_SECCOMP, kernel.SECCOMP_MODE_FILTER, None)
    except OSError as problem:
        return problem.errno == errno.EFAULT
    return False
