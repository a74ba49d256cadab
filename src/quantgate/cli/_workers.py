"""Several processes on one port: the socket is bound once, and each worker takes connections from it.

Each worker also listens on a port of its own for ``/metrics``. When one ends by itself all end, in order: whoever keeps
the gateway running starts it again. When the parent dies, whatever way, its workers see their input close, and end.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from quantgate.errors import QuantgateError

LOOK_S = 0.2


def run(listening: socket.socket, count: int, words: Sequence[str]) -> None:
    """Until a signal, or until one worker ends. ``words``: of the command that each is. Raises QuantgateError."""
    listening.set_inheritable(True)
    asked: list[int] = []
    before = {number: signal.signal(number, lambda got, _frame: asked.append(got)) for number in _ENDS}
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for at in range(count):
            given = [sys.executable, "-m", "quantgate", *words, "--worker", f"{at}:{listening.fileno()}"]
            # a session of its own: Ctrl-C in a terminal is told once, by us
            workers.append(
                subprocess.Popen(given, stdin=subprocess.PIPE, pass_fds=[listening.fileno()], start_new_session=True)
            )
        while not asked and all(one.poll() is None for one in workers):
            time.sleep(LOOK_S)
        ended = [(at, one.returncode) for at, one in enumerate(workers) if one.returncode is not None]
    finally:
        for one in workers:
            if one.poll() is None:
                one.terminate()
        for one in workers:
            one.wait()
            if one.stdin is not None:
                one.stdin.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    if ended and not asked:
        at, code = ended[0]
        raise QuantgateError(f"worker {at} ended with exit code {code}; the others were ended, start the gateway again")


_ENDS = (signal.SIGINT, signal.SIGTERM)


def taken(told: str) -> tuple[str, socket.socket, socket.socket]:
    """Of a worker: its number, the shared socket, and one of its own; it ends when its parent is gone."""
    number, _, handle = told.partition(":")
    shared = socket.socket(fileno=int(handle))
    threading.Thread(target=_outlive_nobody, name="parent", daemon=True).start()
    return number, shared, socket.create_server(("127.0.0.1", 0))


def _outlive_nobody() -> None:
    while os.read(0, 1):  # not by sys.stdin, whose lock the interpreter wants when it ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)
