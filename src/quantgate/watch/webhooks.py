"""Alarms to others: a POST of the alarm as JSON, tried again for ten minutes, in a thread that nothing waits for.

    content-type: application/json          x-quantgate-event: rollback, promote or hold
    x-quantgate-delivery: the same for every try, so that what comes twice is known
    x-quantgate-timestamp: seconds since 1970
    x-quantgate-signature: sha256=<hex of HMAC-SHA256 over "timestamp.body" under the key of secret_env>

2xx is delivered; anything else is tried again. A redirect is never followed, and of an answer nothing but its status is
read. What is not delivered lies in the store, so that it survives a restart; an address may be a secret, so neither
database nor log has more of it than its host.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urlsplit

from quantgate.errors import QuantgateError, UsageError
from quantgate.watch import Alarm
from quantgate.watch.store import Delivery
from quantgate.watch_config import WebhookConfig

log = logging.getLogger("quantgate.watch")
FOR_S = 600.0  # that a delivery is tried
FIRST_S, MOST_S = 1.0, 60.0  # between tries: twice as long each time
AWAY_S = 2.0  # until the store is asked again when it does not answer


class Box(Protocol):
    """What a postman needs of the store."""

    def due(self, target: str) -> Sequence[Delivery]: ...

    def alarm(self, id: str) -> Alarm | None: ...


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook. ``key`` signs; empty: nothing is signed."""

    config: WebhookConfig
    key: bytes = b""

    @property
    def id(self) -> str:
        return hashlib.sha256(self.config.url.encode()).hexdigest()[:16]

    @property
    def host(self) -> str:
        return urlsplit(self.config.url).hostname or ""


def hooks_of(configs: Sequence[WebhookConfig], environment: Mapping[str, str]) -> tuple[Hook, ...]:
    """Raises UsageError for an address that is none, and for a key that the environment does not have."""
    found = list[Hook]()
    for at, one in enumerate(configs):
        try:
            parts = urlsplit(one.url)
            good = bool(parts.hostname) and parts.port != 0 and one.url.isascii()
            str(parts.hostname).encode("idna")  # UnicodeError is a ValueError
        except ValueError:
            good = False
        if not good:
            raise UsageError(f"watch.webhooks[{at}].url: not an address; expected something like https://host/path")
        key = environment.get(one.secret_env, "") if one.secret_env else ""
        if one.secret_env and not key:
            where = f"watch.webhooks[{at}].secret_env"
            raise UsageError(f"{where}: the environment has no '{one.secret_env}'; set it, or leave the key out")
        found.append(Hook(one, key.encode()))
    return tuple(found)


def deliveries(hooks: Sequence[Hook], alarm: Alarm, now: float) -> list[Delivery]:
    """One for each webhook that wants to be told of ``alarm`` as it stands now."""
    wanted = [one for one in hooks if alarm.verdict.action in one.config.alarms]
    return [Delivery(f"{alarm.id}-{alarm.done}-{one.id}", alarm.id, one.id, one.host, next_at=now) for one in wanted]


def post(hook: Hook, delivery: str, event: str, body: bytes, now: float) -> int:
    """The status that it answers. Raises OSError, ValueError, http.client.HTTPException."""
    where = urlsplit(hook.config.url)
    secure = where.scheme == "https"
    limit = hook.config.timeout
    link: http.client.HTTPConnection
    if secure:
        link = http.client.HTTPSConnection(
            str(where.hostname), where.port, timeout=limit, context=ssl.create_default_context()
        )
    else:
        link = http.client.HTTPConnection(str(where.hostname), where.port, timeout=limit)
    stamp = str(int(now))
    headers = {
        "content-type": "application/json",
        "user-agent": "quantgate",
        "x-quantgate-event": event,
        "x-quantgate-delivery": delivery,
        "x-quantgate-timestamp": stamp,
    }
    if hook.key:
        signed = hmac.new(hook.key, f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        headers["x-quantgate-signature"] = f"sha256={signed}"
    path = (where.path or "/") + (f"?{where.query}" if where.query else "")
    end = threading.Timer(limit, _cut, (link,))  # each piece of an answer may take ``limit``: all of it must not
    end.daemon = True
    try:
        end.start()
        link.connect()
        link.request("POST", path, body, headers)
        return link.getresponse().status
    finally:
        end.cancel()
        link.close()


def _cut(link: http.client.HTTPConnection) -> None:
    if link.sock is not None:
        try:
            link.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


class Postman:
    """``start``; ``wake`` when something new is to be told; ``close`` leaves the rest in the store.

    ``saved`` writes down what became of a delivery, and may raise QuantgateError: it is then sent again.
    """

    def __init__(
        self,
        target: str,
        hooks: Sequence[Hook],
        box: Box,
        saved: Callable[[Delivery], None],
        *,
        clock: Callable[[], float] = time.time,
        first_s: float = FIRST_S,
        for_s: float = FOR_S,
    ) -> None:
        self._target, self._box, self._saved, self._clock = target, box, saved, clock
        self._first_s, self._for_s = first_s, for_s
        self._hooks = {one.id: one for one in hooks}
        self._end, self._some = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self.trouble: str | None = None

    def start(self) -> None:
        if self._hooks:
            self._thread.start()

    def wake(self) -> None:
        self._some.set()

    def stop(self) -> None:
        """Without waiting for an answer that is under way."""
        self._end.set()
        self._some.set()

    def close(self) -> None:
        self.stop()
        if self._thread.ident is not None:
            self._thread.join(AWAY_S + max((one.config.timeout for one in self._hooks.values()), default=0.0))

    def _run(self) -> None:
        wait_s = 0.0
        while not self._end.is_set():
            self._some.wait(wait_s)
            self._some.clear()
            try:
                wait_s = self._round()
            except QuantgateError as problem:
                self.trouble = f"webhooks cannot be told: {problem}"
                wait_s = AWAY_S
            except Exception:  # whatever an alarm or a server does, the next round comes
                log.exception("a webhook could not be told")
                wait_s = AWAY_S

    def _round(self) -> float:
        """Send what is due; the seconds until more is."""
        wait_s = MOST_S
        for one in self._box.due(self._target):
            if self._end.is_set():
                return 0.0
            left = one.next_at - self._clock()
            if 0 < left <= MOST_S:  # a clock that was set back must not hold it up
                wait_s = min(wait_s, left)
                continue
            told = self._send(one)
            self._saved(told)
            if not told.done:
                wait_s = min(wait_s, max(0.0, told.next_at - self._clock()))
        return wait_s

    def _wait(self, tries: int) -> float:
        return min(MOST_S, self._first_s * 2.0 ** min(tries, 30))

    def _send(self, one: Delivery) -> Delivery:
        hook, alarm = self._hooks.get(one.hook), self._box.alarm(one.alarm)
        if hook is None or alarm is None:
            return replace(one, done=True, told="given up: it is not in the configuration any more")
        now = self._clock()
        body = json.dumps(_body(alarm), allow_nan=False).encode()
        try:
            status = post(hook, one.id, alarm.verdict.action, body, now)
        except (OSError, ValueError, http.client.HTTPException) as problem:
            told, good = f"no answer ({_plain(problem)})", False
        else:
            told, good = f"answered {status}", 200 <= status < 300
            if 300 <= status < 400:
                told += ", redirects are not followed"
        self.trouble = None if good else f"webhook at {one.host}: {told}"
        tries = one.tries + 1
        if good:
            return replace(one, done=True, tries=tries, told=f"{told}, try {tries}")
        later, waited = self._wait(one.tries), sum(map(self._wait, range(tries)))
        if waited > self._for_s:  # of waiting, whatever the clock says
            log.warning("webhook at %s: %s after %d tries; given up", one.host, told, tries)
            return replace(one, done=True, tries=tries, told=f"given up after {tries} tries: {told}")
        return replace(one, tries=tries, next_at=now + later, told=f"{told}, try {tries}")


def _body(alarm: Alarm) -> dict[str, object]:
    """What others read: the alarm, without what other webhooks answered."""
    said = alarm.body()
    said.pop("webhooks")
    verdict = alarm.verdict
    return {"event": verdict.action, "target": verdict.trial.target, "because": verdict.because, **said}


def _plain(problem: Exception) -> str:
    """Which kind of failure: what a server sent is not repeated."""
    if isinstance(problem, TimeoutError):
        return "too late"
    if isinstance(problem, http.client.HTTPException):
        return "not HTTP, or cut off"
    if isinstance(problem, OSError) and problem.strerror and not isinstance(problem, ssl.SSLError):
        return problem.strerror.lower()
    return type(problem).__name__
