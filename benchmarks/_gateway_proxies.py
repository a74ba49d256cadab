"""The proxies that are measured: our floor, the whole gateway, and LiteLLM in an environment of its own."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks._gateway_client import Door
from benchmarks._gateway_processes import ROOT, Running, free_port, proxy
from benchmarks.peers import CACHE
from benchmarks.peers.environments import python_of, requirements

PATHS = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
MASTER = "sk-benchmark"  # of LiteLLM, which asks for one where keys are to be checked


@dataclass(frozen=True)
class Standing:
    """A proxy that runs, and the way to it."""

    door: Door
    running: Running


@contextlib.contextmanager
def bare(upstream: int, folder: Path) -> Iterator[Standing]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks._gateway_bare", str(port), str(upstream)]
    with proxy(command, port, folder / "bare.log", PATHS) as running:
        yield Standing(Door("bare", port), running)


@contextlib.contextmanager
def litellm(upstream: int, folder: Path) -> Iterator[Standing]:
    """LiteLLM's proxy: one worker, a key to check, no database, no calls home."""
    python = python_of("litellm", CACHE)
    config = {
        "model_list": [
            {
                "model_name": "mock",
                "litellm_params": {
                    "model": "openai/mock", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "none",
                },
            }
        ],
        "general_settings": {"master_key": MASTER},
        "litellm_settings": {"telemetry": False},
    }  # fmt: skip
    (folder / "litellm.yaml").write_text(yaml.safe_dump(config), "utf-8")
    port = free_port()
    command = [str(python.parent / "litellm"), "--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1",
               "--port", str(port), "--num_workers", "1"]  # fmt: skip
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_PROXY": "*"}
    with proxy(command, port, folder / "litellm.log", environment, ready="/health/liveliness") as running:
        yield Standing(Door("LiteLLM", port, key=MASTER), running)


def litellm_version() -> str:
    return next(line.partition("==")[2] for line in requirements("litellm").splitlines() if line.startswith("litellm="))


SERVE = ("-m", "quantgate", "serve", "--config")


@contextlib.contextmanager
def ours(upstream: int, folder: Path) -> Iterator[Standing]:
    """The whole gateway as a person starts it, with everything on: keys, a budget, routes with validators, a stable
    variant beside a baseline's holdback, exchanges on disk, metrics."""
    port, data = free_port(), folder / "data"
    server = {"endpoint": {"url": f"http://127.0.0.1:{upstream}/v1", "model": "mock"}}
    config = {
        "target": "mock",
        "port": port,
        "data": str(data),
        "variants": {
            name: {**server, "weights": f"sha256:{digit * 64}", "price": {"prompt": "0.50/M", "answer": "1.50/M"}}
            for name, digit in (("full", "f"), ("small", "5"))
        },
        "live": {"baseline": "full", "stable": "small", "holdback": 0.05},
        "routes": [
            {"name": "structured", "when": {"structured": True}, "validators": {"length": {"characters": 100_000}}},
            {"name": "rest", "stream": "window"},
        ],
        "limits": {"in_flight": 4096, "per_variant": 4096, "waiting": 4096},
    }
    (folder / "serve.yaml").write_text(yaml.safe_dump(config), "utf-8")
    key = _key(data)
    with proxy([sys.executable, *SERVE, str(folder / "serve.yaml")], port, folder / "quantgate.log", PATHS) as running:
        yield Standing(Door("quantgate", port, key=key), running)


def _key(data: Path) -> str:
    """A caller's secret, with a budget that does not run out here."""
    from quantgate.serve._ledger_sql import connect, create
    from quantgate.serve.folder import DataFolder
    from quantgate.serve.keys import KeyBook
    from quantgate.serve_config import Budget

    folder = DataFolder(data, None, None, None)
    folder.make()
    engine = connect(folder.database)
    try:
        create(engine)
        budget = Budget.model_validate({"tokens": "1000B/day", "requests": "1B/day", "money": "1000000/day"})
        return KeyBook(engine, folder.pepper).new("benchmark", frozenset({"use"}), budget)[1]
    finally:
        engine.dispose()
