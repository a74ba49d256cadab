"""Routes under /watch: other rollout controllers ask for the verdict, scripts for points and alarms.

    /watch/verdict    JSON, always 200: Argo Rollouts' web metric reads it, and so does a script
    /watch/flagger    a sentence: 200 while nothing stands against the trial, 412 where it was found worse; with
                      ``?hook=rollback`` the other way round, as Flagger's hooks of that type are read
    /watch/points     evidence over time          /watch/alarms     what moved, or should have

``?fail_on=hold`` passes a proven variant only. ``?variant=`` asks of one by its name or digest. Where there is no
evidence, or it cannot be read, the answer is "hold": no controller rolls back for want of a database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl

import orjson

from quantgate.errors import QuantgateError
from quantgate.release import Live
from quantgate.serve import Caller, Keys, wire
from quantgate.serve.refusals import Refused, bad, of
from quantgate.watch import Action, Alarm, Standings, Verdict
from quantgate.watch.hosts import check_host

log = logging.getLogger("quantgate.watch")
MOST = 2**16  # bytes of a body
SCORES: Mapping[Action, float] = {"rollback": 0.0, "hold": 0.5, "promote": 1.0}
SCOPES = frozenset({"admin", "watch"})
FIELDS = 32  # of a query
AT_ONCE = 4  # answers that are read from the database at the same time
KEPT_NOWHERE = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
TEXT = (b"content-type", b"text/plain; charset=utf-8")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a controller wants to know."""

    fail_on: Literal["rollback", "hold"] = "rollback"
    hook: Literal["confirm", "rollback"] = "confirm"
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """``verdict``: what it rests on; None where nothing was counted."""

    action: Action
    because: str
    verdict: Verdict | None = None
    behind_s: float | None = None

    def passes(self, asked: Asked) -> bool:
        return self.action == "promote" or (self.action == "hold" and asked.fail_on == "rollback")

    def body(self, asked: Asked) -> Json:
        """``score``: 0 roll back, 0.5 hold, 1 promote; ``evidence``: of "worse", where 1 is what rolls back."""
        found = self.verdict
        told: Json = {
            "action": self.action,
            "pass": self.passes(asked),
            "because": self.because,
            "score": SCORES[self.action],
            "evidence": evidence(found),
            "behind_s": self.behind_s,
            "signals": [],
        }
        if found is not None:
            trial = found.trial
            told |= {"target": trial.target, "variant": trial.variant, "artifact": trial.artifact}
            told |= {"control": trial.control, "control_artifact": trial.control_artifact}
            kept = ("signal", "log_e", "share", "next_share", "at", "number", "revision")
            told |= {name: getattr(found, name) for name in kept}
            told |= {"missing": list(found.missing), "signals": [one.body() for one in found.findings]}
        return told


def evidence(verdict: Verdict | None) -> float:
    """The furthest that any signal is on its way to a rollback, as a part of its threshold; 0 where none is."""
    findings = verdict.findings if verdict is not None else ()
    ways = (one.log_e / one.log_threshold for one in findings if one.log_threshold > 0)
    return min(max([0.0, *ways]), 1e6)


def answer(standings: Standings, target: str, live: Live | None, asked: Asked, *, late_s: float) -> Answer:
    """What is to become of the variant that is asked about, or of the one on trial. Never raises QuantgateError.

    A rollback stands while nothing has moved since, and of a named variant until it is released anew; a promotion only
    while it is of what is live, and no older than ``late_s``. Everything else is a hold.
    """
    try:
        verdict, alarms, behind_s = standings.verdict(target), standings.alarms(target), standings.behind_s(target)
    except QuantgateError as problem:
        return Answer("hold", f"hold, because the evidence cannot be read ({problem})")
    if live is None and verdict is not None:  # who cannot know what is live goes by what was judged last
        alarms = [one for one in alarms if asked.variant or one.verdict.trial == verdict.trial]
    back = next((one for one in alarms if _stands(one, live, asked.variant)), None)
    if back is not None:
        return Answer("rollback", back.verdict.because, back.verdict, behind_s)
    if verdict is None:
        return Answer("hold", f"hold, because nothing was on trial on {target} yet", None, behind_s)
    other = _elsewhere(verdict, live, asked.variant)
    if other:
        return Answer("hold", f"hold, because {other}", None, behind_s)
    if verdict.action == "promote" and behind_s is not None and behind_s > late_s:
        said = f"hold, because the evidence is {behind_s:.0f} s behind the newest exchange"
        return Answer("hold", said, verdict, behind_s)
    return Answer(verdict.action, verdict.because, verdict, behind_s)


def _stands(alarm: Alarm, live: Live | None, variant: str) -> bool:
    """Whether it is a rollback of what is asked about, and not of a release that is over."""
    found = alarm.verdict
    if found.action != "rollback" or alarm.done == "stale" or (variant and not _is(found, variant)):
        return False
    if live is None:
        return True
    another = live.canary is not None and live.canary.artifact != found.trial.artifact
    if live.revision <= found.revision + 1 and not another:
        return True
    return bool(variant) and found.trial.artifact not in _released(live)


def _elsewhere(verdict: Verdict, live: Live | None, variant: str) -> str:
    """Why the newest verdict is no answer; empty: it is one."""
    trial = verdict.trial
    if variant and not _is(verdict, variant):
        return f"nothing was counted of '{variant[:80]}'; the newest verdict is of {trial.variant}"
    if live is None or trial.artifact in _released(live)[:1]:
        return ""
    if live.canary is None and live.stable.artifact == live.baseline.artifact:
        return f"nothing is on trial on {live.target} now"
    subject = live.canary or live.stable
    return f"nothing was counted of {subject.name} yet" if not variant else f"{trial.variant} is not on trial now"


def _released(live: Live) -> list[str]:
    """Digests that are live beside the baseline's, the one on trial first."""
    found = [one.artifact for one in (live.canary, live.stable) if one is not None]
    return [one for one in found if one != live.baseline.artifact]


def _is(verdict: Verdict, variant: str) -> bool:
    digest = verdict.trial.artifact
    prefix = variant.removeprefix("sha256:")
    return variant == verdict.trial.variant or (len(prefix) >= 8 and digest.removeprefix("sha256:").startswith(prefix))


class Verdicts:
    """An ASGI application for what begins with /watch."""

    def __init__(
        self,
        target: str,
        standings: Standings,
        live: Callable[[], Live | None],
        *,
        keys: Keys | None = None,
        late_s: float = 300.0,
    ) -> None:
        """``keys`` None: open to whoever reaches it; ``live``: what is released, as the gateway serves it."""
        self._target, self._standings, self._live, self._keys, self._late_s = target, standings, live, keys, late_s
        self._room = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, scope: wire.Scope, receive: wire.Receive, send: wire.Send) -> None:
        try:
            status, body, kind = await self._page(scope, receive)
            await wire.respond(send, status, body, [kind, *KEPT_NOWHERE])
        except wire.Gone:
            return
        except Exception as problem:
            refused = of(problem)
            if refused.code == "internal_error":
                log.error("a question for the verdict failed", exc_info=problem)
            await wire.refuse(send, refused)

    async def _page(self, scope: wire.Scope, receive: wire.Receive) -> tuple[int, bytes, tuple[bytes, bytes]]:
        headers, path, method = wire.headers_of(scope), scope["path"].rstrip("/"), scope["method"]
        if method not in ("GET", "POST", "HEAD"):
            allow = ((b"allow", b"GET, HEAD, POST"),)
            raise Refused(405, "method_not_allowed", f"{path[:200]}: {method} is not for this path", headers=allow)
        raw = await wire.read_body(headers, receive, MOST) if method == "POST" else b""
        self._caller(headers, raw)
        query = _query(scope)
        match path.removeprefix("/watch"):
            case "/verdict":
                asked = _asked(query)
                found = await self._read(self._answer, asked)
                return 200, _json(found.body(asked)), wire.JSON
            case "/flagger":
                asked = _asked(query)
                return _flagger(await self._read(self._answer, asked), asked)
            case "/points":
                return 200, _json(await self._read(self._points, query)), wire.JSON
            case "/alarms":
                return 200, _json(await self._read(self._alarms, query)), wire.JSON
        known = "/watch/verdict, /watch/flagger, /watch/points, /watch/alarms"
        raise Refused(404, "not_found", f"{path[:200]}: there is no such path here; there are {known}")

    def _caller(self, headers: Mapping[str, str], raw: bytes) -> Caller | None:
        """None: everybody may. Raises Refused: 401 without a key, 403 without a scope for it."""
        if self._keys is None:
            check_host(headers, "the watch")
            return None
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        told = secret.strip() if scheme.lower() == "bearer" else _token(raw)
        caller = self._keys.find(told) if told else None
        if caller is None:
            said = "a key of scope watch is needed; make one with: quantgate keys new --name NAME --scope watch"
            challenge = ((b"www-authenticate", b"Bearer"),)
            raise Refused(401, "invalid_api_key", said, headers=challenge, retry=False)
        if not caller.scopes & SCOPES:
            raise Refused(403, "scope_missing", "this key has neither the scope 'watch' nor 'admin'")
        return caller

    async def _read(self, read: Callable[[Any], Any], given: Any) -> Any:
        async with self._room:
            return await asyncio.to_thread(read, given)

    def _answer(self, asked: Asked) -> Answer:
        return answer(self._standings, self._target, self._live(), asked, late_s=self._late_s)

    def _points(self, query: Mapping[str, str]) -> Json:
        trial = query.get("trial") or ""
        since = _number(query, "since", 0.0)
        try:
            if not trial:
                verdict = self._standings.verdict(self._target)
                trial = "" if verdict is None else verdict.trial.digest
            points = self._standings.points(trial, since=since, signal=query.get("signal")) if trial else ()
        except QuantgateError as problem:
            raise Refused(503, "unavailable", str(problem)) from None
        return {"trial": trial, "points": [one.body() for one in points]}

    def _alarms(self, query: Mapping[str, str]) -> Json:
        limit = round(_number(query, "limit", 50.0))
        if not 1 <= limit <= 1000:
            raise bad("limit", f"limit: expected 1 to 1000, found {limit}")
        try:
            alarms = self._standings.alarms(self._target, limit=limit)
        except QuantgateError as problem:
            raise Refused(503, "unavailable", str(problem)) from None
        return {"alarms": [one.body() for one in alarms]}


def _flagger(found: Answer, asked: Asked) -> tuple[int, bytes, tuple[bytes, bytes]]:
    """Flagger goes on at 2xx, and writes what it was told into its events at anything else."""
    good = found.action == "rollback" if asked.hook == "rollback" else found.passes(asked)
    return (200 if good else 412), f"{found.action}: {found.because}\n".encode(), TEXT


def _query(scope: wire.Scope) -> dict[str, str]:
    """Of a name that comes twice the last. Raises Refused 400."""
    try:
        found = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), max_num_fields=FIELDS))
    except ValueError:
        raise bad(None, f"the query has more than {FIELDS} fields; it may have four") from None
    odd = next((name for name, value in found.items() if not value.isprintable()), None)
    if odd is not None:
        raise bad(odd[:80], f"{odd[:80]!r}: expected printable text")
    return found


def _asked(query: Mapping[str, str]) -> Asked:
    """Raises Refused 400."""
    fail_on, hook = query.get("fail_on", "rollback"), query.get("hook", "confirm")
    if fail_on not in ("rollback", "hold"):
        raise bad("fail_on", f"fail_on: expected rollback or hold, found '{fail_on[:80]}'")
    if hook not in ("confirm", "rollback"):
        raise bad("hook", f"hook: expected confirm or rollback, found '{hook[:80]}'")
    return Asked("hold" if fail_on == "hold" else "rollback", "rollback" if hook == "rollback" else "confirm",
                 query.get("variant", ""))  # fmt: skip


def _number(query: Mapping[str, str], name: str, default: float) -> float:
    told = query.get(name)
    if told is None:
        return default
    try:
        number = float(told)
    except ValueError:
        number = float("nan")
    if not 0 <= number < 1e15:
        raise bad(name, f"{name}: expected a number, found '{told[:80]}'")
    return number


def _token(raw: bytes) -> str:
    """The key of a hook that cannot send headers: ``metadata: {token: ...}`` of Flagger's body.

    >>> _token(b'{"name": "llm", "metadata": {"token": "qg_k1_x"}}'), _token(b"[]"), _token(b"{")
    ('qg_k1_x', '', '')
    """
    try:
        body = orjson.loads(raw) if raw else None
    except orjson.JSONDecodeError:
        return ""
    metadata = body.get("metadata") if isinstance(body, dict) else None
    token = metadata.get("token") if isinstance(metadata, dict) else None
    return token if isinstance(token, str) else ""


def _json(body: Mapping[str, Any]) -> bytes:
    return orjson.dumps(body)
