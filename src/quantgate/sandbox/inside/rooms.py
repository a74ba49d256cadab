"""Tier 1: namespaces and a small file tree made once per server; a process tree and a scratch folder per run.

The tree holds, under their usual paths, the standard library and the machine's shared libraries to be read, and three
devices. The server never comes back out of it, so nothing behind it can name a file of anybody.
"""

from __future__ import annotations

import os
import stat
import sysconfig

from . import kernel

DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
LIBRARIES = ("/lib", "/lib64", "/lib32", "/usr/lib", "/usr/lib64", "/usr/local/lib")
ZONES = "/usr/share/zoneinfo"
SCRATCH = "/scratch"
PACKAGES = ("site-packages", "dist-packages")  # other people's code: not for the solver


def libraries() -> list[str]:
    """Folders a bare interpreter reads: the standard library, where libpython lies, shared libraries, time zones."""
    own = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), sysconfig.get_config_var("LIBDIR")}
    found = {os.path.realpath(one) for one in (*own, *LIBRARIES, ZONES) if one and os.path.isdir(one)}
    return sorted(one for one in found if not any(one != other and one.startswith(f"{other}/") for other in found))


def move_in(uid: int, gid: int) -> None:
    """Take this process, the server, into namespaces and a tree of its own. OSError where the kernel does not let it.

    Root needs no user namespace and gets none: its runs take another user's identity instead.
    """
    fresh = kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
    if uid == 0:
        kernel.unshare(fresh)
    else:
        kernel.unshare(kernel.CLONE_NEWUSER | fresh)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    _plant(libraries())


def _plant(folders: list[str]) -> None:
    """Build the tree on a fresh file system in memory and make it the root."""
    root = "/tmp" if os.path.isdir("/tmp") else "/mnt"
    kernel.mount("quantgate", root, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=0755")
    for folder in folders:
        os.makedirs(root + folder, exist_ok=True)
        kernel.mount(folder, root + folder, "", kernel.MS_BIND | kernel.MS_REC)
        for package in PACKAGES:
            for hidden in (f"{root}{folder}/{package}", f"{root}{folder}/python3/{package}"):
                if os.path.isdir(hidden):
                    kernel.mount("quantgate", hidden, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=4k,mode=0755")
    for link in LIBRARIES:
        if os.path.islink(link) and not os.path.lexists(root + link):
            os.symlink(os.readlink(link), root + link)
    os.makedirs(f"{root}/dev")
    for device in DEVICES:
        os.close(os.open(root + device, os.O_CREAT | os.O_WRONLY))
        kernel.mount(device, root + device, "", kernel.MS_BIND)
    os.mkdir(root + SCRATCH)
    os.mkdir(f"{root}/old")
    kernel.pivot_root(root, f"{root}/old")
    os.chdir("/")
    kernel.unmount("/old")
    os.rmdir("/old")


def own_room(uid: int, gid: int, scratch_bytes: int) -> None:
    """Per run: a process tree that dies with its first process, and a scratch folder of a fixed size."""
    kernel.unshare(kernel.CLONE_NEWPID | kernel.CLONE_NEWNS)
    data = f"size={scratch_bytes},nr_inodes=1000,mode=0700,uid={uid},gid={gid}"
    kernel.mount("quantgate", SCRATCH, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, data)


def readable_by_anybody(paths: list[str]) -> bool:
    """Whether a user without rights of its own can walk to every folder and read it."""
    for path in paths:
        while path != "/":
            if not os.stat(path).st_mode & stat.S_IXOTH:
                return False
            path = os.path.dirname(path)
    return True


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
