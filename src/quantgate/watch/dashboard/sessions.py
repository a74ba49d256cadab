"""Who looks at the dashboard: a key is shown once, a signed cookie stands for it, and the key's end is the cookie's.

A token holds the key's public id, a nonce and its end, under a MAC of the gateway's secret, so every worker and every
replica of that secret knows it. What the key may do is looked up anew for each request: a key that is revoked, or loses
a scope, does so here at once. Forms bear a second MAC over the nonce, and their Origin must be this server's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from urllib.parse import urlsplit

from quantgate.serve import Caller
from quantgate.serve.refusals import Refused
from quantgate.watch.hosts import check_host

COOKIE = "quantgate_dashboard"
LASTS_S = 8 * 3600.0
WRONG = 10  # keys that one address may show in a minute that are nobody's
MINUTE_S = 60.0
ADDRESSES = 10_000  # that are counted at once
SCOPES = ("admin", "watch")
COOKIES = 4  # of our name that are looked at: another page of this machine may have set one too

__all__ = ["Sessions", "Viewer", "check_host", "check_origin", "cookie_header"]


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks. ``key`` is a public id; empty where the gateway has no keys and anybody on the machine may look."""

    key: str = ""
    scopes: frozenset[str] = frozenset()
    nonce: str = ""
    ends_at: float = 0.0  # seconds since 1970

    @property
    def may_move(self) -> bool:
        return "admin" in self.scopes


class Sessions:
    """``find`` tells whose secret it is, ``of`` whose public id, both as ``serve.keys.KeyRing`` does."""

    def __init__(
        self,
        secret: bytes,
        find: Callable[[str], Caller | None],
        of: Callable[[str], Caller | None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = hashlib.blake2b(secret, person=b"dashboard").digest()
        self._find, self._of, self._clock = find, of, clock
        self._ended: dict[str, float] = {}  # nonces of who logged out here, until they would have ended anyhow
        self._wrong: dict[str, tuple[float, int]] = {}  # by address: since when, how many

    def begin(self, secret: str, address: str) -> tuple[Viewer, str]:
        """The viewer and the cookie's token. Raises Refused: 401 nobody's key, 403 the wrong scope, 429 too often."""
        self._slow(address)
        caller = self._find(secret.strip())
        if caller is None:
            self._count(address)
            raise Refused(401, "invalid_api_key", "this key is not known here; check it, or ask for another")
        if not caller.scopes & set(SCOPES):
            raise Refused(
                403, "scope_missing", "this key may not look at the dashboard; it needs the scope 'watch' or 'admin'"
            )
        viewer = Viewer(caller.key, caller.scopes, secrets.token_hex(16), self._clock() + LASTS_S)
        told = json.dumps([viewer.key, viewer.nonce, viewer.ends_at]).encode()
        body = base64.urlsafe_b64encode(told).decode()
        return viewer, f"{body}.{self._mac('token', body)}"

    def of(self, headers: Mapping[str, str]) -> Viewer | None:
        """Who the cookie stands for now; None without one, and for one that is no longer, or never was, good."""
        return next((found for token in _cookies(headers) if (found := self._of_token(token)) is not None), None)

    def _of_token(self, token: str) -> Viewer | None:
        body, _, mac = token.rpartition(".")
        if not body or not hmac.compare_digest(mac.encode(), self._mac("token", body).encode()):
            return None
        try:
            key, nonce, ends_at = json.loads(base64.urlsafe_b64decode(body))
        except (ValueError, binascii.Error):
            return None
        if ends_at <= self._clock() or nonce in self._ended:
            return None
        caller = self._of(key)
        if caller is None or not caller.scopes & set(SCOPES):
            return None
        return Viewer(key, caller.scopes, nonce, ends_at)

    def end(self, viewer: Viewer) -> None:
        """The token is good for nothing in this process; the browser is told to forget it."""
        now = self._clock()
        self._ended = {nonce: ends for nonce, ends in self._ended.items() if ends > now} | {
            viewer.nonce: viewer.ends_at
        }

    def form_token(self, viewer: Viewer) -> str:
        return self._mac("form", viewer.nonce)

    def check_form(self, viewer: Viewer, token: str) -> None:
        """Raises Refused 403 for a form that this session was not shown."""
        if not hmac.compare_digest(token.encode(), self.form_token(viewer).encode()):
            raise Refused(
                403, "form_stale", "this form is not of your session; go back, load the page again, and repeat"
            )

    def _mac(self, what: str, told: str) -> str:
        return hashlib.blake2b(f"{what}:{told}".encode(), key=self._key, digest_size=32).hexdigest()

    def _slow(self, address: str) -> None:
        since, wrong = self._wrong.get(address, (0.0, 0))
        left = since + MINUTE_S - self._clock()
        if wrong >= WRONG and 0 < left <= MINUTE_S:
            raise Refused(429, "too_many_wrong_keys", f"too many wrong keys; wait {left:.0f} s", after_s=left)

    def _count(self, address: str) -> None:
        now = self._clock()
        since, wrong = self._wrong.get(address, (now, 0))
        if not 0 <= now - since < MINUTE_S:
            since, wrong = now, 0
        self._wrong.pop(address, None)
        while len(self._wrong) >= ADDRESSES:
            self._wrong.pop(next(iter(self._wrong)))  # who was wrong longest ago
        self._wrong[address] = (since, wrong + 1)


def cookie_header(token: str, *, secure: bool) -> tuple[bytes, bytes]:
    """An empty token takes the cookie away."""
    age = int(LASTS_S) if token else 0
    told = f"{COOKIE}={token}; Path=/dashboard; Max-Age={age}; HttpOnly; SameSite=Strict"
    return b"set-cookie", (told + ("; Secure" if secure else "")).encode()


def check_origin(headers: Mapping[str, str]) -> None:
    """Raises Refused 403 for a form that another site's page sends."""
    try:
        origin = urlsplit(headers.get("origin", "")).netloc.lower()
    except ValueError:
        origin = ""
    if not origin or origin != headers.get("host", "").lower():
        raise Refused(
            403, "other_site", "this form was not sent by the dashboard's own page; open /dashboard and repeat"
        )


def _cookies(headers: Mapping[str, str]) -> Iterator[str]:
    """What came under our name, whatever else came with it: the library's parser takes seconds for a long quoted value,
    and gives up at the first cookie of others that it does not like."""
    told = (one.partition("=") for one in headers.get("cookie", "").split(";"))
    return islice((value.strip() for name, _, value in told if name.strip() == COOKIE), COOKIES)
