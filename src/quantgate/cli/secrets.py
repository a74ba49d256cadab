"""Keys of servers, out of the environment: the one place that reads it."""

from __future__ import annotations

import os
from collections.abc import Iterable

from quantgate.endpoint_config import EndpointConfig


def secrets_for(endpoints: Iterable[EndpointConfig | None]) -> dict[str, str]:
    """The variables that these endpoints name and the environment has, and no others."""
    names = {one.api_key_env for one in endpoints if one is not None and one.api_key_env}
    return {name: os.environ[name] for name in sorted(names) if name in os.environ}
