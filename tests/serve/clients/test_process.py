"""``quantgate serve`` as a person runs it: a process, a key, official clients, Ctrl-C, and kill -9 in mid-stream."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantgate.serve.exchanges import Reader
from quantgate.serve.scripted import Script, ScriptedUpstream

openai = pytest.importorskip("openai", reason="the extra clients")

ROOT = Path(__file__).parents[3]
BUDGET = 200_000  # tokens a day
HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
ENDLESS: list[Any] = [{"role": "user", "content": "Go on."}]
ADDRESS = re.compile(r"(http://127\.0\.0\.1:\d+/v1)\b")


def said(body: dict[str, Any]) -> Script:
    if "Go on" in body["messages"][-1]["content"]:
        return Script("endless")
    return Script(text="Hello to you there.")


def quantgate(*words: str) -> list[str]:
    return [sys.executable, "-m", "quantgate", *words]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def told(*words: str, cwd: Path) -> str:
    done = subprocess.run(quantgate(*words), env=environment(), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def process(cwd: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A gateway and its address. Whoever leaves it running, it ends here."""
    with (cwd / "errors.log").open("a") as errors:
        started = subprocess.Popen(
            quantgate("serve", *words), env=environment(), cwd=cwd, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        assert started.stdout is not None
        lines: list[str] = []
        for line in started.stdout:
            lines.append(line)
            if line.lstrip().startswith("-d '"):
                break
        found = ADDRESS.search("".join(lines))
        assert found, "".join(lines) + (cwd / "errors.log").read_text()
        yield started, found[1]
    finally:
        if started.poll() is None:
            started.kill()
        started.wait()
        if started.stdout is not None:
            started.stdout.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Path, ScriptedUpstream]]:
    """A folder with a serve.yaml over a scripted upstream."""
    with ScriptedUpstream(always=said) as upstream:
        served = {"endpoint": {"url": upstream.url, "model": "scripted"}, "weights": "sha256:" + "5" * 64}
        config = {
            "target": "fleet",
            "port": 0,
            "data": "data",
            "variants": {"full": served},
            "live": {"baseline": "full"},
        }
        (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
        yield tmp_path, upstream


def new_key(folder: Path, name: str = "team-a", *budget: str) -> str:
    budget = budget or ("--tokens", f"{BUDGET}/day")
    printed = told("keys", "new", "--name", name, *budget, "--data", "data", cwd=folder)
    return printed.strip().splitlines()[-1]


def charged(folder: Path) -> int:
    row = next(
        one
        for one in json.loads(told("keys", "list", "--json", "--data", "data", cwd=folder))
        if one["name"] == "team-a"
    )
    return sum(one["charged"] for one in row["spent"] if one["unit"] == "tokens")


def test_a_gateway_is_started_asked_and_ended(place):
    folder, _ = place
    key, poor = new_key(folder), new_key(folder, "team-b", "--requests", "1/day")
    with process(folder, "--config", "serve.yaml") as (started, url):
        with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
            answer = client.chat.completions.create(model="fleet", messages=HELLO)
            pieces = list(client.chat.completions.create(model="fleet", messages=HELLO, stream=True))
            with pytest.raises(openai.AuthenticationError):
                client.with_options(api_key="qg_nobody").chat.completions.create(model="fleet", messages=HELLO)
            spent = client.with_options(api_key=poor, max_retries=2)
            spent.chat.completions.create(model="fleet", messages=HELLO)
            with pytest.raises(openai.RateLimitError) as refused:
                spent.chat.completions.create(model="fleet", messages=HELLO)
            assert refused.value.code == "budget_exceeded"
            assert refusals(url) == 1  # the client did not ask again
        started.send_signal(signal.SIGINT)
        assert started.wait(60) == 0
    assert answer.choices[0].message.content == "Hello to you there." and len(pieces) > 2
    log = (folder / "errors.log").read_text()
    assert "Traceback" not in log and key not in log
    assert "3 exchanges were written" in log
    assert charged(folder) == 2 * answer.usage.total_tokens  # leases were given back at the end


def test_kill_9_in_mid_stream_is_a_cut_and_no_end_and_loses_nothing(place):
    folder, upstream = place
    key = new_key(folder)
    exchanges = folder / "data" / "exchanges.db"
    used = 0
    with process(folder, "--config", "serve.yaml") as (started, url):
        with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
            for _ in range(5):
                used += client.chat.completions.create(model="fleet", messages=HELLO).usage.total_tokens
            wait_for(lambda: rows(exchanges) >= 5)
            stream = client.chat.completions.create(model="fleet", messages=ENDLESS, stream=True)
            read = [next(stream) for _ in range(3)]
            started.kill()
            with pytest.raises((openai.APIConnectionError, *cut())):
                read.extend(stream)
        assert not any(chunk.choices and chunk.choices[0].finish_reason for chunk in read)
        assert upstream.wait(lambda server: server.at_once == 0)  # nobody generates for a client that is not there
    with process(folder, "--config", "serve.yaml") as (started, url):
        with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
            used += client.chat.completions.create(model="fleet", messages=HELLO).usage.total_tokens
        started.send_signal(signal.SIGINT)
        assert started.wait(60) == 0
    assert rows(exchanges) == 6  # each is whole, or is not there
    assert used <= charged(folder) <= BUDGET


def cut() -> tuple[type[Exception], ...]:
    """What the SDK lets through from its HTTP client, when a connection breaks in the middle of a stream."""
    import httpx2

    return (httpx2.RemoteProtocolError, httpx2.ReadError)


def rows(database: Path) -> int:
    """Exchanges that can be read, each as a record."""
    from quantgate.serve._ledger_sql import connect

    if not database.is_file():
        return 0
    reader = Reader(connect(f"sqlite:///{database}"))
    try:
        return sum(one.status == 200 for _, one in reader.since())
    finally:
        reader.close()


def refusals(url: str) -> float:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url.removesuffix("/v1") + "/metrics", timeout=30) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("quantgate_budget_refusals_total{"))


def wait_for(true: Any, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never became so"
        time.sleep(0.02)
