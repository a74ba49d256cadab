"""curl in front of the gateway, as the README shows it."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def curl(gateway, path, body=None, *more):
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", "30", f"{gateway.url}{path}", *more]
    if gateway.key:
        command += ["-H", f"Authorization: Bearer {gateway.key}"]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def asked(gateway, **more):
    return {"model": gateway.model, "messages": [{"role": "user", "content": "Say hello."}], **more}


def test_a_plain_request_gets_one_object(gateway):
    answer = json.loads(curl(gateway, "/chat/completions", asked(gateway)))
    assert answer["choices"][0]["message"]["content"] == "Hello to you there."


def test_a_stream_is_lines_of_data_that_end_with_done(gateway):
    lines = [
        line for line in curl(gateway, "/chat/completions", asked(gateway, stream=True), "-N").splitlines() if line
    ]
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert all(line.startswith(("data: ", ":")) for line in lines) and data[-1] == "[DONE]"
    chunks = [json.loads(line) for line in data[:-1]]
    said = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    assert said == "Hello to you there."
    assert any(line.startswith(": ") and "decode" in line for line in lines)  # the stages, behind the answer


def test_the_head_says_who_answered(gateway):
    told = curl(gateway, "/chat/completions", asked(gateway), "-D", "-", "-o", "/dev/null").lower()
    for name in ("x-request-id", "x-quantgate-variant", "x-quantgate-cohort", "x-quantgate-revision", "server-timing"):
        assert f"\n{name}: " in told


def test_a_refusal_is_an_error_object(gateway):
    error = json.loads(curl(gateway, "/chat/completions", {"model": gateway.model, "messages": []}))["error"]
    assert error["param"] == "messages" and error["type"] == "invalid_request_error"
