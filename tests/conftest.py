"""Settings of all tests: no deadline (the machine may be busy), and in CI the same examples every time."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("quantgate", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("quantgate")
