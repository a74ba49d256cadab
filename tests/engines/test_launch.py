"""Servers that are started here: they are waited for, their log is shown, and nothing of them is left behind."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from quantgate.engines import Completion, Prompt
from quantgate.engines._launch import Launched, command_of, free_port
from quantgate.engines.openai import OpenAIEngine
from quantgate.errors import EngineError, UsageError

SERVER = """
    import os, signal, subprocess, sys, time
    from pathlib import Path
    port, folder, mode = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    if mode == "fails":
        print("loading weights\\nCUDA out of memory", flush=True)
        sys.exit(3)
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    stray = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    (folder / "pids").write_text(f"{os.getpid()} {worker.pid} {stray.pid}")
    if mode == "never":
        time.sleep(600)
    from quantgate.engines._scripted_server import ScriptedServer
    server = ScriptedServer(lambda body: "yes")
    server.port = port
    with server:
        time.sleep(600)
"""


@pytest.fixture
def command(tmp_path: Path) -> Any:
    """The launch command of a scripted server that has a child, and a child in a session of its own."""
    (tmp_path / "server.py").write_text(textwrap.dedent(SERVER))

    def make(mode: str = "good") -> str:
        words = [sys.executable, str(tmp_path / "server.py"), "{port}", str(tmp_path), mode]
        return " ".join(word if word == "{port}" else shlex.quote(word) for word in words)

    return make


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))


def pids(folder: Path) -> list[int]:
    return [int(one) for one in (folder / "pids").read_text().split()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone_within(seconds: float, folder: Path) -> bool:
    end = time.monotonic() + seconds
    while any(alive(pid) for pid in pids(folder)):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_a_server_is_waited_for_asked_and_ended_with_all_its_children(command: Any, tmp_path: Path) -> None:
    told: list[str] = []
    log = tmp_path / "log"
    with Launched(command(), {}, log=log, progress=lambda seconds, what: told.append(what)) as server:
        server.wait()
        assert told and told[0].startswith("waiting for python")
        (answer,) = OpenAIEngine(server.url, dead=server.dead).generate([Prompt(turns=(("user", "?"),))])
        assert isinstance(answer, Completion) and answer.text == "yes"
        assert all(map(alive, pids(tmp_path)))
    assert gone_within(20, tmp_path)
    assert log.read_text().startswith("--- ") and server.process.poll() == 0


def test_a_server_that_ends_by_itself_is_told_with_the_end_of_its_log(command: Any, tmp_path: Path) -> None:
    with (
        Launched(command("fails"), {}, log=tmp_path / "log") as server,
        pytest.raises(EngineError, match=r"python.*: ended by itself with exit code 3\. The end of its log, .*/log:\n.*"
                      r"loading weights\n    CUDA out of memory$"),
    ):  # fmt: skip
        server.wait()


def test_a_server_that_never_answers_is_given_up_and_ended(command: Any, tmp_path: Path) -> None:
    with (
        pytest.raises(EngineError, match=r"has not answered within 3 s; give it more under 'startup'"),
        Launched(command("never"), {}, log=tmp_path / "log", startup_s=3) as server,
    ):
        server.wait()
    assert gone_within(20, tmp_path)


def test_a_command_that_is_none_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(EngineError, match=r"cannot be started: No such file or directory: no-such-program"),
        Launched("no-such-program --port {port}", {}, log=tmp_path / "log") as server,
    ):
        server.wait()


def test_a_server_that_dies_while_it_is_asked_is_told_with_its_log(command: Any, tmp_path: Path) -> None:
    with Launched(command(), {}, log=tmp_path / "log") as server:
        server.wait()
        engine = OpenAIEngine(server.url, dead=server.dead)
        os.kill(pids(tmp_path)[0], signal.SIGKILL)  # a process of this test's own making
        with pytest.raises(EngineError, match="ended by itself with exit code 137"):
            engine.generate([Prompt(turns=(("user", "?"),))])
    assert gone_within(20, tmp_path)


def test_a_server_that_ignores_sigterm_is_killed(command: Any, tmp_path: Path) -> None:
    with Launched(command("stubborn"), {}, log=tmp_path / "log", grace_s=0.5) as server:
        server.wait()
    assert gone_within(20, tmp_path)


OURS = """
    import sys
    from pathlib import Path
    from quantgate.engines._launch import Launched
    with Launched(sys.argv[1], {}, log=Path(sys.argv[2]) / "log") as server:
        server.wait()
        print("up", flush=True)
        sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="strays are found in /proc, which is Linux's")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_we_are_killed(command: Any, tmp_path: Path, number: int) -> None:
    ours = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OURS), command(), str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert ours.stdin and ours.stdout
    with ours:
        assert ours.stdout.readline() == b"up\n"
        assert all(map(alive, pids(tmp_path)))
        ours.send_signal(number)
        ours.wait(20)
        assert gone_within(12, tmp_path)


def test_a_process_that_was_not_started_here_is_left_alone(command: Any, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        with Launched(command(), {}, log=tmp_path / "log") as server:
            server.wait()
        assert other.poll() is None
        other.kill()


def test_placeholders_are_filled_in_word_by_word() -> None:
    values = {"artifact": "my model; rm -rf x", "port": "81", "draft": "d"}
    made = command_of("serve {artifact} -p {port} --draft={draft} --json '{\"a\": 1}'", values)
    assert made == ["serve", "my model; rm -rf x", "-p", "81", "--draft=d", "--json", '{"a": 1}']


@pytest.mark.parametrize(
    ("launch", "sentence"),
    [
        ("serve {artefact} --port {port}", r"nothing to put in place of \{artefact\}; did you mean 'artifact'"),
        ("serve 'open --port {port}", "is no command .*; close the quotes"),
        (" ", "is empty; write a command such as"),
    ],
)
def test_a_command_that_cannot_be_filled_in_is_refused(launch: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        command_of(launch, {"artifact": "a", "port": "1"})


def test_a_command_without_a_port_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no \{port\}"):
        Launched("serve", {}, log=tmp_path / "log")
    assert 1024 <= free_port() < 65536
