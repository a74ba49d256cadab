"""Gateways around a made-up trial, a client without a browser, and one Chromium for all."""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

import pytest

from quantgate.watch.dashboard.sample_gateway import World, opened


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Iterator[World]:
    """Read only by the tests that share it."""
    with opened(tmp_path_factory.mktemp("healthy"), minutes=60) as world:
        yield world


@pytest.fixture
def own(tmp_path) -> Iterator[World]:
    """To be moved by one test."""
    with opened(tmp_path, minutes=45) as world:
        yield world


@dataclass
class Page:
    status: int
    text: str
    headers: dict[str, str]


class Client:
    """A browser's habits without a browser: a cookie, an Origin, the form's token."""

    def __init__(self, url: str) -> None:
        self.host = urlsplit(url).netloc
        self.cookie = ""

    def __call__(self, method: str, path: str, form: dict[str, str] | None = None, **headers: str) -> Page:
        link = http.client.HTTPConnection(self.host, timeout=30)
        sent = {"cookie": self.cookie} if self.cookie else {}
        body = None
        if form is not None:
            body = urlencode(form)
            sent |= {"content-type": "application/x-www-form-urlencoded", "origin": f"http://{self.host}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(link):
            link.request(method, path, body, {name: value for name, value in sent.items() if value})
            answer = link.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Page(answer.status, answer.read().decode(), found)

    def login(self, key: str, **headers: str) -> Page:
        found = self("POST", "/dashboard/login", {"key": key}, **headers)
        if found.status == 303:
            self.cookie = found.headers["set-cookie"].partition(";")[0]
        return found

    def form(self, kind: str, query: str = "") -> dict[str, str]:
        """The hidden fields of a confirmation."""
        page = self("GET", f"/dashboard/moves/{kind}{query}").text.partition("What will happen")[2]
        return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))


def client_of(world: World, scope: str = "") -> Client:
    client = Client(world.url)
    if scope:
        assert client.login(world.keys[scope]).status == 303
    return client


@pytest.fixture(scope="session")
def chromium():
    """One for all; each test has a context of its own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: quantgate[browser]")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
