"""What the dashboard answers with: pages from templates, JSON for charts, files; and the headers that all of them bear.

The policy lets a page load nothing but this server's own files and run no script that stands in the page. Styles in the
page are refused too, so drawings bear numbers and classes only.
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import orjson

from quantgate.serve import wire
from quantgate.watch.dashboard import words

Headers = tuple[tuple[bytes, bytes], ...]
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"
"""Of a run's report, which bears its styles in itself and no script: it may do nothing here."""
SAFE: Headers = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # no-referrer would make browsers send forms with Origin: null
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
TYPES = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
FILTERS: Mapping[str, Callable[..., Any]] = {
    name: getattr(words, name)
    for name in (
        "share",
        "times",
        "seconds",
        "span",
        "odds",
        "moment",
        "machine_moment",
        "seconds_of",
        "short",
        "weighed",
        "count",
    )
}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    headers: Headers

    async def send(self, send: wire.Send, *, head: bool = False) -> None:
        sent = [*SAFE, *self.headers, (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": sent})
        await send({"type": "http.response.body", "body": b"" if head else self.body})


def page(template: str, *, status: int = 200, more: Headers = (), **values: Any) -> Answer:
    """A template with what it shows; never kept by a browser, for what it shows may be secret tomorrow."""
    return written(_environment().get_template(template).render(**values), status=status, more=more)


def written(text: str, *, status: int = 200, more: Headers = (), policy: str = POLICY) -> Answer:
    kind = (b"content-type", b"text/html; charset=utf-8")
    headers = (kind, (b"cache-control", b"no-store"), (b"content-security-policy", policy.encode()), *more)
    return Answer(status, text.encode(), headers)


def part(text: str, seen: str) -> Answer:
    """A part of a page that htmx asks for again and again: 204, and no change, where it is what was seen."""
    mark = mark_of(text)
    if seen == mark:
        return Answer(204, b"", ((b"cache-control", b"no-store"),))
    return written(text, more=((b"x-mark", mark.encode()),))


def mark_of(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def rendered(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


def data(value: Any) -> Answer:
    """JSON; a number that is none becomes null."""
    headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
    return Answer(200, orjson.dumps(value), headers)


def elsewhere(path: str, more: Headers = ()) -> Answer:
    return Answer(303, b"", ((b"location", path.encode()), (b"cache-control", b"no-store"), *more))


def plain(status: int, sentence: str, more: Headers = ()) -> Answer:
    """For a request that wants no page, and for one whose page cannot be made."""
    text = f"<!doctype html><html lang=en><title>quantgate</title><p>{html.escape(sentence)}</p></html>"
    return written(text, status=status, more=more)


def file(name: str) -> Answer | None:
    """A file of static/, which a browser may keep for ever: its address bears its digest."""
    found = _files().get(name)  # names that strangers make up are kept nowhere
    if found is None:
        return None
    kind = TYPES.get(name.rpartition(".")[2], "text/plain; charset=utf-8").encode()
    return Answer(200, found, ((b"content-type", kind), (b"cache-control", b"public, max-age=31536000, immutable")))


@cache
def address(name: str) -> str:
    """
    >>> address("style.css").startswith("/dashboard/static/style.css?v=")
    True
    """
    return f"/dashboard/static/{name}?v={hashlib.sha256(_files()[name]).hexdigest()[:12]}"


@cache
def _files() -> Mapping[str, bytes]:
    folder = files("quantgate.watch.dashboard").joinpath("static")
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}


@cache
def _environment() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("quantgate.watch.dashboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= dict(FILTERS)
    found.globals["static"] = address
    return found
