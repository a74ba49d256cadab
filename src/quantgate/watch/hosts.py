"""Whom a gateway without keys answers: names of this machine, and nobody else's page."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from quantgate.serve.refusals import Refused

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def check_host(headers: Mapping[str, str], what: str = "the dashboard") -> None:
    """An open gateway answers to names of this machine alone: another name that leads here is somebody's trick.

    Raises Refused 403. See DNS rebinding: a page whose name is turned to 127.0.0.1 would read what is open there.
    """
    try:
        host = urlsplit("//" + headers.get("host", "")).hostname or ""
    except ValueError:
        host = ""
    if host not in LOOPBACK:
        raise Refused(403, "other_host", f"without keys {what} answers on this machine's own names only: localhost")
