"""The whole loop as a person types it, with real processes: run, promote, serve, ramp, roll back; sign; approve."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, OpenAI
from tests.cli.test_serve import quantgate, serving
from tests.serve.gateways import until

from quantgate.serve import Body
from quantgate.serve.scripted import Script, ScriptedUpstream

RELEASE = {
    "model": "quantgate/reference",
    "capabilities": {"math": {"margin": "50%", "cases": 24}},
    "variants": ["W8A16", {"scheme": "W2A16", "method": "rtn"}],
    "calibration": {"samples": 8, "max_tokens": 32},
    "judge": {"noise": False},
    "drift_cases": 0,
}
QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
TRANSFER = {
    "type": "function",
    "function": {
        "name": "transfer",
        "parameters": {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]},
    },
}
CALL = {"id": "c", "type": "function", "function": {"name": "transfer", "arguments": '{"amount": 500}'}}
ASKED: Any = [{"role": "user", "content": "What is 2 + 3?"}]


def done(folder: Path, *words: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    found = quantgate(folder, *words, **more)
    assert found.returncode == code, f"{words}\n{found.stdout}\n{found.stderr}"
    assert "Traceback" not in found.stderr
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a run was made and registered: W8A16 is proven, W2A16-rtn is refuted."""
    folder = tmp_path_factory.mktemp("loop")
    (folder / "release.yaml").write_text(json.dumps(RELEASE))
    said = done(folder, "run", "--quiet", "--register", "sqlite:///runs/quantgate.db", code=0, **QUIET)
    assert "default, new, serves the baseline: may be promoted: W8A16" in said.stdout
    assert "next: quantgate promote default W8A16 --canary 5%" in said.stderr
    return folder


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of a small model wait more than they work, the more so beside other tests."""
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def registered(finished: Path, tmp_path: Path) -> Path:
    """The same in a registry of one's own."""
    shutil.copytree(finished / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("answers", "*.html"))
    return tmp_path


def client_of(url: str, key: str = "none") -> OpenAI:
    return OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60)


def answered(client: OpenAI, session: str = "s") -> tuple[str, str, int]:
    """Who answered, why, and by which release."""
    raw = client.chat.completions.with_raw_response.create(
        model="default", messages=ASKED, extra_headers={"x-session-id": session}
    )
    assert raw.parse().choices[0].message.content == "5"
    told = raw.headers
    return told["x-quantgate-variant-name"], told["x-quantgate-cohort"], int(told["x-quantgate-revision"])


def answers_are(client: OpenAI, expected: tuple[str, str, int]) -> bool:
    return answered(client) == expected


def test_a_release_goes_out_and_back_while_it_is_served(registered: Path) -> None:
    refused = done(registered, "promote", "default", "W2A16-rtn", code=1)
    assert "failed: damages math" in refused.stderr
    said = done(registered, "promote", "default", "W8A16", "--canary", "50%")
    assert said.stderr.strip() == "next: quantgate serve --target default"
    with serving(registered, "--target", "default") as (process, url, _), client_of(url) as client:
        drawn = {answered(client, f"session {at}")[:2] for at in range(16)}
        assert drawn == {("BF16", "stable"), ("W8A16", "canary")}
        steps = [
            (("ramp", "default", "100%"), ("W8A16", "canary", 3)),
            (("promote", "default", "W8A16"), ("W8A16", "stable", 4)),
            (("rollback", "default", "--reason", "a trial"), ("BF16", "stable", 5)),
        ]
        for words, expected in steps:
            done(registered, *words)
            assert until(partial(answers_are, client, expected)), words
        with pytest.raises(APIStatusError, match="'gpt-4o' is not served here; ask for 'default'"):
            client.chat.completions.create(model="gpt-4o", messages=ASKED)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    history = done(registered, "releases", "default").stdout
    assert "a trial" in history
    assert "0 not as they were written" in done(registered, "registry", "check").stdout


def test_what_is_released_bears_a_card_and_a_signature(registered: Path) -> None:
    artifact = "runs/release/artifacts/W8A16"
    assert "README.md" in done(registered, "card", "runs/release", "W8A16").stdout
    done(registered, "sign", "--new-key", "release.key", "--no-password")
    done(registered, "sign", artifact, "--key", "release.key")
    assert "signed by" in done(registered, "verify", artifact, "--pubkey", "release.pub").stdout
    weights = registered / artifact / "model.safetensors"
    broken = bytearray(weights.read_bytes())
    broken[-1] ^= 1
    weights.write_bytes(broken)
    assert "model.safetensors: holds other bytes" in done(registered, "verify", artifact, code=1).stderr


def test_servers_keys_budgets_and_a_call_that_a_person_approves(registered: Path) -> None:
    done(registered, "promote", "default", "W8A16", "--canary", "50%")
    user = done(registered, "keys", "new", "--name", "team-a", "--requests", "3/day").stdout.strip()
    admin = done(registered, "keys", "new", "--name", "ops", "--scope", "admin").stdout.strip()
    with ScriptedUpstream(lambda _body: "5", always=calls) as upstream:
        server = {"endpoint": {"url": upstream.url}}
        config = {
            "target": "default",
            "registry": "sqlite:///runs/quantgate.db",
            "variants": {"BF16": server, "W8A16": server},
            "routes": [
                {"name": "pay", "when": {"tool": "transfer"}, "confirm": {"rules": [{"tool": "transfer"}]}},
                {"name": "json", "when": {"structured": True}, "stream": "buffer"},
            ],
        }
        (registered / "serve.yaml").write_text(json.dumps(config))
        with (
            serving(registered, "--config", "serve.yaml") as (_, url, _said),
            client_of(url, user) as client,
            client_of(url.removesuffix("/v1") + "/admin", admin) as operator,
        ):
            call = approved(client, operator)
            assert json.loads(call.function.arguments) == {"amount": 500}
            assert operator.post("/rollback", body={"why": "a trial"}, cast_to=object)
            assert answered(client)[::2] == ("BF16", 3)
            with pytest.raises(APIStatusError, match="has spent its requests: 3 requests a day"):
                answered(client)
    listed = done(registered, "keys", "list").stdout
    assert "team-a" in listed
    assert "requests 3" in listed


def calls(body: Body) -> Script | None:
    """Who is offered tools calls one."""
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    return Script(message=message, finish="tool_calls") if body.get("tools") else None


def approved(client: OpenAI, operator: OpenAI) -> Any:
    """Ask for a call of ``transfer``, have it approved, fetch it."""
    tools: Any = [TRANSFER]
    waits = client.chat.completions.create(model="default", messages=ASKED, tools=tools).choices[0]
    assert waits.message.tool_calls is None
    assert "A person must approve it" in (waits.message.content or "")
    found: Any = operator.get("/approvals", cast_to=object)
    (proposal,) = found["approvals"]
    operator.post(
        f"/approvals/{proposal['id']}", body={"decision": "approve", "hash": proposal["hash"]}, cast_to=object
    )
    fetched = client.chat.completions.create(
        model="default", messages=ASKED, tools=tools, extra_headers={"x-quantgate-approval": proposal["id"]}
    )
    (call,) = fetched.choices[0].message.tool_calls or []
    return call
