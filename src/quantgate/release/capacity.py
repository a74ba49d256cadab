"""Is what a release would go back to up? A rollback onto something that is not there would be the second outage."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable

from quantgate.errors import UsageError
from quantgate.release import Variant

Capacity = Callable[[Variant], str]
"""Why a variant is not up; empty where it is."""
PROBE_S = 5.0


def answers_at(url: str, *, timeout_s: float = PROBE_S) -> Capacity:
    """Up is what answers a GET of ``url`` with 2xx: the ``/health`` or ``/v1/models`` of what serves it.

    Raises UsageError for what is no address of HTTP.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"capacity: '{url}' is no address; expected something like http://127.0.0.1:8001/health")

    def probe(variant: Variant) -> str:
        try:
            with urllib.request.urlopen(url, timeout=timeout_s) as answer:
                answer.read(1)
            return ""
        except urllib.error.HTTPError as told:
            told.close()
            return f"{url} answers {told.code}"
        except (OSError, ValueError) as problem:
            reason = getattr(problem, "reason", problem)
            return f"{url} does not answer ({reason})"

    return probe
