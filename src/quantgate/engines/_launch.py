"""Servers that quantgate starts itself: from a command with placeholders to a process that answers, and to its end.

    with Launched("vllm serve {artifact} --port {port}", {"artifact": folder}, log=folder / "server.log") as server:
        server.wait()
        open_engine(server.url)

No shell reads the command. The process hangs on a keeper (``_launch_keeper``), which ends it and all its children when
this process ends, in whatever way. Only processes that were started here are ever signalled.
"""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from quantgate.engines import _launch_keeper
from quantgate.errors import EngineError, UsageError, hint

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
HOST = "127.0.0.1"
TAIL = 12  # lines of the log that an error shows
STARTUP_S, GRACE_S = 600.0, 10.0
Progress = Callable[[int, str], None]  # seconds waited, and for what


def command_of(launch: str, values: Mapping[str, str]) -> list[str]:
    """The command's words, each ``{placeholder}`` in them replaced. Raises UsageError for one that has no value.

    >>> command_of("serve {artifact} --port {port} --spec '{\\"k\\": 2}'", {"artifact": "a b", "port": "1"})
    ['serve', 'a b', '--port', '1', '--spec', '{"k": 2}']
    """
    try:
        words = shlex.split(launch)
    except ValueError as broken:
        raise UsageError(f"launch: '{launch}' is no command ({broken}); close the quotes") from None
    if not words:
        raise UsageError("launch: is empty; write a command such as: vllm serve {artifact} --port {port}")
    for name in PLACEHOLDER.findall(launch):
        if name not in values:
            raise UsageError(f"launch: there is nothing to put in place of {{{name}}}; {hint(name, sorted(values))}")
    return [PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in words]


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        return int(held.getsockname()[1])


class Launched:
    """One server under a keeper; leaving the block ends it."""

    def __init__(
        self,
        launch: str,
        values: Mapping[str, str],
        *,
        log: Path,
        startup_s: float = STARTUP_S,
        grace_s: float = GRACE_S,
        progress: Progress = lambda _seconds, _what: None,
    ) -> None:
        """Starts the command; ``values`` are the placeholders besides ``{port}`` and ``{host}``. Raises UsageError.

        ``startup_s`` is how long it may take until it answers, ``grace_s`` until it has ended after SIGTERM.
        """
        if "{port}" not in launch:
            raise UsageError(
                "launch: has no {port}, so nobody would know where the server listens; write --port {port}"
            )
        self.port, self.log, self.startup_s, self.progress = free_port(), log, startup_s, progress
        self.grace_s = grace_s
        command = command_of(launch, {**values, "port": str(self.port), "host": HOST})
        self.program = Path(command[0]).name
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            file.write(f"--- {shlex.join(command)}\n".encode())
            file.flush()
            self.began = file.tell()
            keeper = [sys.executable, "-I", _launch_keeper.__file__, str(grace_s), *command]
            self.process = subprocess.Popen(
                keeper, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    def wait(self, headers: Mapping[str, str] = {}) -> None:
        """Until it answers GET /models with anything of its own. Raises EngineError with the log's last lines."""
        began, pause = time.monotonic(), 0.1
        while not self._answers(headers):
            waited = time.monotonic() - began
            if dead := self.dead():
                raise EngineError(dead)
            if waited > self.startup_s:
                raise EngineError(
                    f"{self.program}: has not answered within {self.startup_s:g} s; give it more under 'startup'."
                    + self._tail()
                )
            self.progress(int(waited), f"waiting for {self.program}")
            time.sleep(pause)
            pause = min(1.0, pause * 1.5)

    def _answers(self, headers: Mapping[str, str]) -> bool:
        request = urllib.request.Request(f"{self.url}/models", headers=dict(headers))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=5):
                return self.process.poll() is None
        except urllib.error.HTTPError as refused:
            refused.close()
            return refused.code not in (502, 503, 504) and self.process.poll() is None  # 503: still loading
        except (OSError, ValueError):
            return False

    def dead(self) -> str:
        """Why it no longer runs, with the log's last lines; nothing while it does."""
        code = self.process.poll()
        return "" if code is None else f"{self.program}: ended by itself with exit code {code}." + self._tail()

    def _tail(self) -> str:
        data = b""
        if self.log.exists():
            with self.log.open("rb") as file:
                file.seek(max(self.began, self.log.stat().st_size - 65536))
                data = file.read()
        lines = data.decode(errors="replace").rstrip().splitlines()[-TAIL:]
        shown = "".join(f"\n    {line}" for line in lines) if lines else " nothing."
        return f" The end of its log, {self.log}:{shown}"

    def close(self) -> None:
        """SIGTERM to the server and its children, SIGKILL to what is left after some seconds."""
        if self.process.stdin is not None:
            self.process.stdin.close()  # this is what the keeper waits for
        try:
            self.process.wait(self.grace_s + 5)
        except subprocess.TimeoutExpired:
            self.process.kill()  # the server dies with its keeper
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()
