"""Landlock: which files a process may open, whatever its user could. man 7 landlock; numbers from linux/landlock.h."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterable

from . import kernel

CREATE, ADD, RESTRICT = 444, 445, 446  # the same numbers on every architecture
EXECUTE, WRITE, READ, LIST = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_FILE = 1 << 4, 1 << 5, 1 << 7, 1 << 8
REFER, TRUNCATE = 1 << 13, 1 << 14
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}  # how many rights a version of the interface knows
NET_BIND_CONNECT = 0b11  # from version 4
SCOPE_ABSTRACT_SOCKET_AND_SIGNAL = 0b11  # from version 6
READ_ONLY = READ | LIST
OWN_FOLDER = READ | LIST | WRITE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_FILE | TRUNCATE
DEVICE = READ | WRITE


def version() -> int:
    """The version of the interface that this kernel speaks; 0 where it has none."""
    try:
        return kernel.syscall(CREATE, None, 0, 1)
    except OSError as problem:
        if problem.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            return 0
        raise


def restrict(spoken: int, rules: Iterable[tuple[str, int]]) -> None:
    """Hold this process and its children to ``rules``, (path, rights) pairs; what is not named cannot be opened.

    Every right that version ``spoken`` knows is handled. No TCP from version 4, no signals to and no abstract sockets
    of the outside from version 6. Paths that do not exist are skipped. Needs no_new_privs.
    """
    handled = (1 << FILE_RIGHTS[max(known for known in FILE_RIGHTS if known <= spoken)]) - 1
    words = [handled] + [NET_BIND_CONNECT] * (spoken >= 4) + [SCOPE_ABSTRACT_SOCKET_AND_SIGNAL] * (spoken >= 6)
    attributes = (ctypes.c_uint64 * len(words))(*words)
    ruleset = kernel.syscall(CREATE, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    try:
        for path, rights in rules:
            _allow(ruleset, path, rights & handled)
        kernel.syscall(RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


class _Beneath(ctypes.Structure):
    """struct landlock_path_beneath_attr"""

    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what cannot be found or reached needs no rule
    try:
        if not stat.S_ISDIR(os.fstat(parent).st_mode):
            rights &= EXECUTE | WRITE | READ | TRUNCATE  # the others mean nothing for a file, and are refused
        kernel.syscall(ADD, ruleset, 1, ctypes.byref(_Beneath(rights, parent)), 0)
    finally:
        os.close(parent)
