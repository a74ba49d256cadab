"""``quantgate serve`` and ``quantgate keys`` as a person runs them: real processes, a real port, Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantgate.serve.scripted import ScriptedUpstream

SOURCE = Path(__file__).resolve().parents[2] / "src"


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QUANTGATE_", "OTEL_"))}
    return {**kept, "PYTHONPATH": str(SOURCE), "COLUMNS": "200", **more}


def quantgate(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quantgate", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(**more), timeout=120)


@contextlib.contextmanager
def serving(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The process, its URL, and what it said."""
    command = [sys.executable, "-m", "quantgate", "serve", "--port", "0", *words]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True, env=environment()
        )
    assert process.stdout is not None
    said = ""
    try:
        for line in process.stdout:
            said += line
            if line.strip().startswith("-d "):
                break
        found = re.search(r"http://\S+/v1", said)
        assert found, said + (folder / "log").read_text()
        yield process, found[0], said
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def chat(url: str, *, key: str = "", model: str = "local") -> tuple[int, dict[str, str], dict[str, object]]:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "What is 2 + 3?"}]}).encode()
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(f"{url}/chat/completions", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers), json.loads(answer.read())
    except urllib.error.HTTPError as told:
        with told:
            return told.code, dict(told.headers), json.loads(told.read())


def test_without_any_option_the_built_in_model_answers_and_ctrl_c_ends_it_in_order(tmp_path):
    with serving(tmp_path) as (process, url, said):
        status, headers, answer = chat(url)
        assert status == 200
        assert answer["choices"][0]["message"]["content"] == "5"  # type: ignore[index]
        assert answer["usage"]["completion_tokens"] > 0  # type: ignore[index]
        assert headers["x-quantgate-variant"] in said
        assert "keys      none: whoever reaches this port may ask" in said
        assert f"curl {url}/chat/completions" in said
        assert chat(url, model="quantgate/reference")[0] == 200
        line = said[said.index("curl ") :]
        tried = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
        assert json.loads(tried.stdout)["choices"][0]["message"]["content"] == "5", tried.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    log = (tmp_path / "log").read_text()
    assert "opening quantgate/reference in this process" in log
    assert "ended; 3 exchanges were written" in log
    assert "Traceback" not in log


def over(upstream: ScriptedUpstream, folder: Path, **more: object) -> str:
    """A configuration with one variant, which is the upstream's."""
    config = {
        "data": ".quantgate",
        "live": {"baseline": "BF16"},
        "variants": {"BF16": {"endpoint": {"url": upstream.url, "model": "scripted"}}},
        **more,
    }
    (folder / "serve.yaml").write_text(json.dumps(config))
    return "serve.yaml"


def test_a_key_is_made_used_charged_through_a_kill_replaced_and_revoked(tmp_path):
    made = quantgate(tmp_path, "keys", "new", "--name", "team-a", "--tokens", "1M/day", "--requests", "60/day")
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert re.fullmatch(r"qg_k[0-9a-f]{10}_[\w-]{43}", secret)
    id = secret.split("_")[1]
    with ScriptedUpstream() as upstream:
        config = ["--config", over(upstream, tmp_path)]
        with serving(tmp_path, *config) as (process, url, said):
            assert "keys      1" in said
            assert chat(url)[0] == 401
            assert [chat(url, key=secret)[0] for _ in range(3)] == [200, 200, 200]
            process.kill()
            process.wait()
        with serving(tmp_path, *config) as (process, url, _):
            assert chat(url, key=secret)[0] == 200
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    listed = json.loads(quantgate(tmp_path, "keys", "list", "--json").stdout)
    assert secret not in json.dumps(listed)
    (row,) = listed
    assert (row["id"], row["name"], row["budget"]["tokens"]) == (id, "team-a", "1000000/day")
    charged = {one["unit"]: (one["charged"], one["held"]) for one in row["spent"]}
    assert charged["requests"] == (4, 0)
    table = quantgate(tmp_path, "keys", "list").stdout
    assert id in table
    assert "good" in table
    rotated = quantgate(tmp_path, "keys", "rotate", id)
    assert rotated.returncode == 0
    assert rotated.stdout.startswith("qg_k")
    assert f"{id} ends now" in rotated.stdout
    again = quantgate(tmp_path, "keys", "revoke", "k000")
    assert (again.returncode, again.stdout) == (2, "")
    assert "no key has the id 'k000'" in again.stderr


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["serve", "--config", "no.yaml"], 2, "no.yaml: no such file"),
        (["keys", "new", "--name", "a", "--tokens", "many"], 2, "expected such as 1M/day"),
        (["keys", "new", "--name", "a", "--scope", "root"], 2, "'root' is no scope"),
        (["keys", "rotate", "k1", "--keep", "soon"], 2, "--keep: expected a time"),
        (["keys", "list", "--database", "mysql://x/y"], 2, "--database: 'mysql' is not known"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_an_exit_code(tmp_path, monkeypatch, command, words, code, sentence):
    monkeypatch.chdir(tmp_path)
    found, out, err = command(*words)
    assert (found, out) == (code, ""), err
    assert sentence in err


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--host", "0.0.0.0", "--port", "0"], 2, "others can reach it, and there is no key yet"),
        (["--target", "fleet"], 4, "registry"),
        (["--model", "no/where", "--port", "0"], 4, "no/where"),
    ],
)
def test_a_gateway_that_cannot_start_is_one_sentence_and_an_exit_code(tmp_path, words, code, sentence):
    done = quantgate(tmp_path, "serve", *words, HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_told_before_anything_slow(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = quantgate(tmp_path, "serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "cannot be listened on (Address already in use)" in done.stderr
    assert "opening" not in done.stderr


def test_several_workers_share_a_port_a_budget_and_an_end(tmp_path):
    secret = quantgate(tmp_path, "keys", "new", "--name", "a", "--requests", "30/day").stdout.strip()
    with (
        ScriptedUpstream() as upstream,
        serving(tmp_path, "--config", over(upstream, tmp_path, workers=2)) as (process, url, _),
    ):
        statuses = [chat(url, key=secret)[0] for _ in range(40)]
        assert statuses.count(200) <= 30
        assert set(statuses) <= {200, 429}
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    log = (tmp_path / "log").read_text()
    assert log.count("metrics on http://127.0.0.1:") == 2
    assert log.count("quantgate: ended") == 2
    (row,) = json.loads(quantgate(tmp_path, "keys", "list", "--json").stdout)
    assert row["spent"][0]["charged"] == statuses.count(200)
