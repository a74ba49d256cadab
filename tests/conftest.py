"""Settings of all tests: no deadline (the machine may be busy), in CI the same examples every time, Ctrl-C heard."""

from __future__ import annotations

import os
import signal

from hypothesis import settings
from tests.postgres import postgres

__all__ = ["postgres"]  # one server for all tests: a fixture that each file imports would start one for each

settings.register_profile("quantgate", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("quantgate")

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker is told the width of pytest's own terminal
    os.environ.pop("COLUMNS", None)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it for jobs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
