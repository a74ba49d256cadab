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


@contextlib.contextmanager
def ours(upstream: int, folder: Path) -> Iterator[Standing]:
    """The whole gateway as a person starts it, with a configuration that switches everything on."""
    port = free_port()
    config = {"port": port, "arms": {"baseline": {"url": f"http://127.0.0.1:{upstream}/v1", "model": "mock"}}}
    (folder / "serve.yaml").write_text(yaml.safe_dump(config), "utf-8")
    command = [sys.executable, "-m", "quantgate", "serve", "--config", str(folder / "serve.yaml")]
    with proxy(command, port, folder / "quantgate.log", PATHS) as running:
        yield Standing(Door("quantgate", port), running)
