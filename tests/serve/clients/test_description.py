"""schemathesis tries the gateway by its own description: nothing fails, nothing undescribed comes back."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.serve.clients.conftest import KEY, OneKey, call, serving, settings_of

from quantgate.serve import openapi
from quantgate.serve.scripted import Script, ScriptedUpstream

ROOT = Path(__file__).parents[3]
EXAMPLES = 25


def obliging(body: Mapping[str, Any]) -> Script:
    """What every schema of the description allows: an empty object, of a tool that has to be called its arguments."""
    choice, tools = body.get("tool_choice"), body.get("tools") or []
    if choice == "required" or isinstance(choice, dict):
        return call(tools[0]["function"]["name"], {})
    return Script(text="{}" if body.get("response_format") else "Hello to you there.")


@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="the extra clients")
def test_schemathesis_finds_nothing(tmp_path):
    command = [
        str(Path(sys.executable).parent / "schemathesis"), "run", "--seed", "7", "--max-examples", str(EXAMPLES),
        "--header", f"Authorization: Bearer {KEY}", "--no-color", "--workers", "1", "--generation-database", "none",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.serve.clients.hooks"}
    with ScriptedUpstream(always=obliging) as upstream, serving(settings_of(upstream, keys=OneKey())) as served:
        address = f"http://127.0.0.1:{served.port}/openapi.json"
        done = subprocess.run([*command, address], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " 0 generated" not in done.stdout
    assert len(upstream.asked) > EXAMPLES  # requests came as far as the upstream


def test_the_description_is_json_and_every_reference_is_there():
    made = openapi.document(["fleet"], closed=True)
    assert orjson.loads(openapi.encoded())["openapi"] == "3.1.0"
    assert made["components"]["schemas"]["ModelName"]["enum"] == ["fleet"]
    for reference in _references(made):
        found: Any = made
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [one for part in value.values() for one in _references(part)]
    return [one for part in value for one in _references(part)] if isinstance(value, list) else []
