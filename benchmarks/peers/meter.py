"""Run one command and say what it cost: ``python meter.py OUT.json LOG -- COMMAND ...``.

A process of its own between the driver and the tool, because Linux counts the memory of whoever starts a program into
that program's peak: what starts the tool must be small. Standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

EVERY_S = 0.02


def main(arguments: list[str]) -> int:
    """Writes ``{"rc", "wall_s", "cpu_s", "peak_bytes", "private_bytes"}`` and exits with the command's own status.

    ``peak_bytes`` is the largest resident memory of any one process of the command, mapped files included;
    ``private_bytes`` the largest seen of its first process without mapped files, looked at every 20 ms.
    """
    out, log, command = Path(arguments[0]), Path(arguments[1]), arguments[3:]
    private = 0
    began = time.perf_counter()
    with log.open("wb") as told:
        process = subprocess.Popen(command, stdout=told, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    while True:
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
        if done:
            break
        private = max(private, _private(process.pid))
        time.sleep(EVERY_S)
    seconds = time.perf_counter() - began
    rc = os.waitstatus_to_exitcode(status)
    cost = {
        "rc": rc,
        "wall_s": seconds,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
        "private_bytes": private,
    }
    out.write_text(json.dumps(cost) + "\n", encoding="utf-8")
    return rc if rc >= 0 else 128 - rc


def _private(process: int) -> int:
    """Anonymous resident memory in bytes; 0 for a process that just ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
