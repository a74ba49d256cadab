"""The dashboard as an ASGI application, for everything under /dashboard of a gateway.

    GET   pages and parts of pages, in threads of its own, so that a slow database keeps no request waiting
    POST  login, logout, and moves: the form of this very session, from this very page, with an admin's key

Who may look: anybody on this machine where the gateway has no keys, else who showed a key of scope ``watch`` or
``admin``. Who may move: ``admin`` alone. What is refused is told as a page.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from quantgate.errors import Moved, NotPromoted, QuantgateError, UsageError
from quantgate.release import Variant
from quantgate.serve import OverBudget, wire
from quantgate.serve.exchanges import Reader
from quantgate.serve.refusals import Refused
from quantgate.watch import Standings
from quantgate.watch.dashboard import answers, moves
from quantgate.watch.dashboard.answers import Answer
from quantgate.watch.dashboard.known import Known
from quantgate.watch.dashboard.pages import Pages
from quantgate.watch.dashboard.sessions import Sessions, Viewer, check_host, check_origin, cookie_header

if TYPE_CHECKING:
    from quantgate.serve.open import Parts

log = logging.getLogger("quantgate.watch")
MOST = 2**14  # bytes of a form
FORM = "application/x-www-form-urlencoded"
FIELDS = 32
THREADS = 2
NOBODY = Viewer()


class Dashboard:
    """``parts`` of the gateway beside which it stands; ``standings`` and ``reader`` tell of its watch."""

    def __init__(self, parts: Parts, standings: Standings, reader: Reader) -> None:
        self.parts = parts
        self.known = Known(parts, standings, reader)
        self.sessions = Sessions(parts.folder.secret(), parts.ring.find, parts.ring.of)
        self.pages = Pages(self.known, self.sessions)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="dashboard")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, scope: wire.Scope, receive: wire.Receive, send: wire.Send) -> None:
        viewer = NOBODY
        try:
            headers = wire.headers_of(scope)
            words = [unquote(word) for word in scope["path"].split("/")[2:] if word]
            found = answers.file(words[1]) if len(words) == 2 and words[0] == "static" else None
            if found is None:
                viewer = self._viewer(headers)
                found = await self._answer(scope, receive, headers, viewer, words)
        except wire.Gone:
            return
        except Exception as problem:
            found = self._told(problem, viewer)
        await found.send(send, head=scope["method"] == "HEAD")

    def _viewer(self, headers: dict[str, str]) -> Viewer:
        """Who asks; a gateway without keys is open to this machine's own names. Raises Refused."""
        if self.parts.open_to_all:
            check_host(headers)
        return self.sessions.of(headers) or NOBODY

    async def _answer(
        self, scope: wire.Scope, receive: wire.Receive, headers: dict[str, str], viewer: Viewer, words: list[str]
    ) -> Answer:
        query = _query(scope)
        if any("\0" in word for word in words):  # which databases take for a fault of their own
            raise Refused(404, "not_found", "there is no such page; start at /dashboard")
        if scope["method"] == "POST":
            check_origin(headers)
            form = await _form(headers, receive)
            viewer = self._viewer(headers)  # anew: a body may take a minute, and a key may end in it
            return await self._posted(scope, headers, viewer, words, form)
        if scope["method"] not in ("GET", "HEAD"):
            raise Refused(
                405, "method_not_allowed", "the dashboard knows GET and POST", headers=((b"allow", b"GET, POST"),)
            )
        if words == ["login"]:
            return self._login_page(viewer)
        if words == ["who"]:
            return answers.data({"in": bool(viewer.key)})
        if not viewer.key and not self.parts.open_to_all:
            if "hx-request" in headers or words[:1] == ["data"]:
                raise Refused(401, "login_needed", "your session has ended; log in again")
            return answers.elsewhere("/dashboard/login")
        return await self._thread(lambda: self._page(viewer, words, query, headers))

    def _page(self, viewer: Viewer, words: list[str], query: dict[str, str], headers: dict[str, str]) -> Answer:
        pages = self.pages
        match words:
            case []:
                return pages.home(viewer, query)
            case ["parts", "now"]:
                return pages.now_part(viewer, headers.get("x-seen", ""))
            case ["signals", name]:
                return pages.signal(viewer, name, query)
            case ["data", "signals", name]:
                return pages.signal_data(name, query)
            case ["alarms"]:
                return pages.alarms(viewer)
            case ["alarms", id]:
                return pages.alarm(viewer, id)
            case ["exchanges", id]:
                return pages.exchange(viewer, id)
            case ["latency"]:
                return pages.latency(viewer)
            case ["releases"]:
                return pages.releases(viewer)
            case ["evidence"]:
                return pages.evidence(viewer)
            case ["report", *name]:
                return pages.report("/".join(name))
            case ["help"]:
                return pages.help(viewer)
            case ["moves", kind]:
                return self._confirm(viewer, kind, query, part="hx-request" in headers)
        raise Refused(404, "not_found", "there is no such page; start at /dashboard")

    def _confirm(
        self, viewer: Viewer, kind: str, form: dict[str, str], *, part: bool, problem: str = "", status: int = 200
    ) -> Answer:
        """What would happen, with the form that makes it happen; for who may not, how to become one who may."""
        frame = self.pages.frame(viewer, "")
        why_not = self.pages.can_move()
        live, asked = self.known.live, None
        if viewer.may_move and not why_not and live is not None:
            steps = [one.share for one in self.parts.config.watch.steps]
            try:
                live = self.parts.registry.get().live(self.known.target) if self.parts.registry is not None else live
                asked = moves.asked(kind, live, self.known.moves(), form, steps=steps, variants=self._variants(kind))
            except QuantgateError as refused:
                problem = problem or str(refused)
        told: dict[str, Any] = {
            "asked": asked,
            "kind": kind,
            "problem": problem,
            "why_not": why_not,
            "form": form,
            "part": part,
        }
        return answers.page("_confirm.html" if part else "confirm.html", status=status, **told, **frame)

    async def _posted(
        self, scope: wire.Scope, headers: dict[str, str], viewer: Viewer, words: list[str], form: dict[str, str]
    ) -> Answer:
        if words == ["login"]:
            return self._login(scope, headers, form)
        if not viewer.key:
            raise Refused(401, "login_needed", "your session has ended; log in again")
        self.sessions.check_form(viewer, form.get("token", ""))
        match words:
            case ["logout"]:
                self.sessions.end(viewer)
                return answers.elsewhere("/dashboard/login", (cookie_header("", secure=_secure(scope, headers)),))
            case ["moves", kind] if kind in moves.KINDS:
                return await self._thread(lambda: self._move(self._viewer(headers), kind, form))
        raise Refused(404, "not_found", "there is no such form; start at /dashboard")

    def _move(self, viewer: Viewer, kind: str, form: dict[str, str]) -> Answer:
        """In the registry's name for this key; what the registry says against it is shown where it was asked."""
        if not viewer.may_move:
            raise Refused(403, "scope_missing", "this key may look and not move; that needs the scope 'admin'")
        why_not = self.pages.can_move()
        if why_not or self.parts.registry is None:
            raise Refused(409, "no_registry", why_not)
        registry = replace(self.parts.registry.get(), actor=f"key {viewer.key}")
        try:
            live = moves.do(registry, self.known.target, kind, form, self._capacity)
        except QuantgateError as problem:
            self.known.forget()
            log.info("dashboard: %s by %s refused: %s", kind, viewer.key, " ".join(str(problem).split()))
            return self._confirm(viewer, kind, form, part=False, problem=str(problem), status=_status(problem))
        log.info("dashboard: %s by %s, revision %d", kind, viewer.key, live.revision)
        if self.parts.feed is not None:
            self.parts.feed.ask()
        self.known.forget()
        return answers.elsewhere(f"/dashboard?moved={live.revision}")

    def _variants(self, kind: str) -> tuple[Variant, ...]:
        link = self.parts.registry
        return link.get().variants(self.known.target) if kind == "canary" and link is not None else ()

    def _capacity(self, variant: Variant) -> str:
        return "" if variant.name in self.parts.fleet.upstreams else "this gateway has no upstream for it"

    def _login_page(self, viewer: Viewer, problem: str = "", status: int = 200, more: answers.Headers = ()) -> Answer:
        frame = self.pages.frame(viewer, "login")
        return answers.page("login.html", status=status, more=more, problem=problem, **frame)

    def _login(self, scope: wire.Scope, headers: dict[str, str], form: dict[str, str]) -> Answer:
        client = scope.get("client") or ("", 0)
        try:
            viewer, token = self.sessions.begin(form.get("key", "")[:512], str(client[0]))
        except (Refused, OverBudget) as problem:
            status = problem.status if isinstance(problem, Refused) else 429
            log.warning("dashboard: a login was refused: %s", problem)
            more = tuple(problem.headers()) if isinstance(problem, Refused) else ()
            return self._login_page(NOBODY, str(problem), status, more)
        log.info("dashboard: %s logged in", viewer.key)
        return answers.elsewhere("/dashboard", (cookie_header(token, secure=_secure(scope, headers)),))

    def _told(self, problem: Exception, viewer: Viewer) -> Answer:
        """A page for what went wrong; of what nobody foresaw, no more than that."""
        status, sentence = 500, "something went wrong here; the gateway's log tells more"
        more: answers.Headers = ()
        if isinstance(problem, Refused):
            status, sentence, more = problem.status, str(problem), tuple(problem.more)
        elif isinstance(problem, QuantgateError):
            status, sentence = 503, str(problem)
        else:
            log.error("a page of the dashboard failed", exc_info=problem)
        try:
            return answers.page("problem.html", status=status, more=more, sentence=sentence, **self.pages.frame(viewer))
        except Exception:
            log.exception("not even the page of a problem can be made")
            return answers.plain(status, sentence, more)

    async def _thread(self, make: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, make)


def _query(scope: wire.Scope) -> dict[str, str]:
    """Raises Refused."""
    try:
        return _fields(scope.get("query_string", b"").decode("latin-1"))
    except ValueError:
        said = f"this address cannot be read; it has at most {FIELDS} fields, of text"
        raise Refused(400, "invalid_value", said) from None


async def _form(headers: dict[str, str], receive: wire.Receive) -> dict[str, str]:
    """Raises Refused."""
    raw = await wire.read_body(headers, receive, MOST)
    if headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise Refused(415, "unsupported_media_type", f"content-type: expected {FORM}")
    try:
        return _fields(raw.decode("utf-8"), blank=True)
    except ValueError:
        raise Refused(400, "invalid_value", "the form cannot be read; load the page again") from None


def _fields(text: str, *, blank: bool = False) -> dict[str, str]:
    """Raises ValueError."""
    found = dict(parse_qsl(text, keep_blank_values=blank, max_num_fields=FIELDS))
    if any("\0" in value for value in found.values()):
        raise ValueError
    return found


def _secure(scope: wire.Scope, headers: dict[str, str]) -> bool:
    """Whether the browser came by https, here or at a proxy before us."""
    return scope.get("scheme") == "https" or headers.get("x-forwarded-proto", "").partition(",")[0].strip() == "https"


def _status(problem: QuantgateError) -> int:
    return 422 if isinstance(problem, UsageError) else 409 if isinstance(problem, NotPromoted | Moved) else 503
