"""Settings of all tests: no deadline (the machine may be busy), in CI the same examples every time, Ctrl-C heard."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings
from tests.postgres import postgres

__all__ = ["postgres"]  # one server for all tests: a fixture that each file imports would start one for each

os.environ.setdefault("QUANTGATE_REUSE", "0")  # no test takes over, or leaves, work of this machine's user

settings.register_profile("quantgate", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("quantgate")

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker is told the width of pytest's own terminal
    os.environ.pop("COLUMNS", None)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it for jobs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Files that take a minute or more, the longest first: where several processes share the files, none ends long after the
# others with one of these. By `pytest --durations=50` on two cores with AVX2.
LONG = (
    "docs/test_tutorial.py",
    "pipeline/test_measuring.py",
    "train/test_reference_training.py",
    "serve/test_whole_loop.py",
    "cli/test_train.py",
    "pipeline/test_training.py",
    "train/test_qat.py",
    "train/test_loop.py",
    "evaluate/test_degenerate.py",
    "evaluate/test_error_rates.py",
    "pipeline/test_endpoints.py",
    "quantize/test_resume.py",
    "loadtest/test_batching.py",
    "pipeline/test_walk.py",
    "stats/test_error_rates.py",
    "serve/clients/test_description.py",
    "benchmarks/test_harness.py",
    "evaluate/scorers/test_python_tests.py",
    "release/test_tracking.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first; within a file, and among the others, the order stays."""
    tests = Path(__file__).parent
    rank = {tests / name: at for at, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))
