"""A hostile client, over sockets: what it sends costs little, opens nothing and breaks nobody else's requests."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tests.serve.gateways import CANARY, Answer, asked, call, chat, gateway_of, kept, until

from quantgate.serve import Caller
from quantgate.serve.scripted import Script, ScriptedUpstream
from quantgate.serve.server import Running
from quantgate.serve.settings import Limits

CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
GOOD = json.dumps(asked()).encode()


@dataclass
class OneKey:
    def find(self, secret: str) -> Caller | None:
        return Caller("k1") if secret == "qg_right" else None


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    limits = Limits(body_s=0.5, body_bytes=100_000, grace_s=5.0)
    with ScriptedUpstream() as upstream, Running(gateway_of(upstream, limits=limits)) as made:
        yield made


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    with ScriptedUpstream() as upstream, Running(gateway_of(upstream, keys=OneKey())) as made:
        yield made


@contextmanager
def line(running: Running) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as made:
        yield made


def rest(link: socket.socket) -> bytes:
    """All that comes until the gateway hangs up."""
    parts = []
    try:
        while part := link.recv(2**16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def fine(running: Running) -> None:
    """Somebody else is answered as ever."""
    assert chat(running, asked("abc")).text == "cba"


def test_a_head_without_end_is_cut_off(running: Running) -> None:
    with line(running) as link:
        sent = 0
        try:
            link.sendall(b"GET /health HTTP/1.1\r\n")
            for number in range(1_000_000):
                sent += link.send(b"x-%d: %d\r\n" % (number, number) * 50)
        except ConnectionError:
            pass
        assert sent < 20 * 2**20
    fine(running)


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nx: "])
def test_a_line_without_end_is_cut_off(running: Running, start: bytes) -> None:
    with line(running) as link, pytest.raises(ConnectionError):
        link.sendall(start)
        for _ in range(1000):
            link.sendall(b"a" * 2**16)
    fine(running)


def test_a_long_head_is_told_so_and_a_usual_one_is_taken(running: Running) -> None:
    with line(running) as link:
        link.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 30_000)
        link.sendall(b"\r\nconnection: close\r\n\r\n")
        assert rest(link).startswith(b"HTTP/1.1 200")


def test_a_body_that_never_comes_has_its_time(running: Running) -> None:
    with line(running) as link:
        link.sendall(CHAT + b"content-length: 1000\r\n\r\n{")
        answer = rest(link)
    assert answer.startswith(b"HTTP/1.1 408") and b"request_timeout" in answer and b"connection: close" in answer
    assert until(lambda: running.gateway.in_flight == 0)


def test_a_chunked_body_beyond_the_limit_is_refused_before_its_end(running: Running) -> None:
    with line(running) as link:
        link.sendall(CHAT + b"transfer-encoding: chunked\r\n\r\n")
        try:
            for _ in range(40):
                link.sendall(b"1000\r\n" + b"a" * 4096 + b"\r\n")
        except ConnectionError:
            pass
        assert rest(link).startswith(b"HTTP/1.1 413")
    fine(running)


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 5\r\ncontent-length: 6\r\n", b"content-length: -1\r\n", b"content-length: \xb2\r\n",
        b"content-length: 1e3\r\n", b"transfer-encoding: chunked\r\ncontent-length: 3\r\n", b"x y: z\r\n", b": z\r\n",
        b"transfer-encoding: gzip, chunked\r\ncontent-length: 3\r\n", b"\x00: \x00\r\n",
    ],
)  # fmt: skip
def test_a_head_that_two_servers_would_read_differently_is_refused(running: Running, head: bytes) -> None:
    with line(running) as link:
        link.sendall(CHAT + head + b"\r\n" + b"0\r\n\r\nGET /health HTTP/1.1\r\n\r\n")
        answer = rest(link)
    assert answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1") == 1
    fine(running)


@pytest.mark.parametrize(
    "path", [b"/v1/models/\xff\xfe", b"/%00", b"/v1/models/%ff%0d%0aset-cookie:a", b"/%2e%2e/admin/live", b"*", b"x"]
)
def test_no_path_is_a_failure_of_the_gateway(running: Running, path: bytes) -> None:
    for method in (b"GET", b"TRACE", b"OPTIONS", b"CONNECT", b"PROPFIND", b"DELETE"):
        with line(running) as link:
            link.sendall(method + b" " + path + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = rest(link)
        assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 405") and b"\nset-cookie" not in answer


@pytest.mark.parametrize(
    "path", ["/admin/live", "/admin//live", "//admin/live", "/%61dmin/live", "/v1/../admin/live", "/admin/%2e%2e/live"]
)
def test_no_path_leads_around_a_key(locked: Running, path: str) -> None:
    assert call(locked, path).status in (401, 404)


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"x-api-key": "qg_right"}, {"api-key": "qg_right"}, {"authorization": "qg_right"},
        {"authorization": "Basic qg_right"}, {"authorization": "Bearer"}, {"authorization": "Bearer qg_right qg_right"},
        {"authorization": "Bearer qg_righ\xb2"}, {"authorization": "Bearer " + "q" * 30_000},
        {"cookie": "key=qg_right"},
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions?api_key=qg_right", "/v1/models?key=qg_right", "/v1/models/demo"]
)
def test_a_key_counts_in_its_one_place_alone(locked: Running, path: str, headers: dict[str, str]) -> None:
    answer = call(locked, path, asked() if "chat" in path else None, headers=headers)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    "headers",
    [
        {"x-stainless-retry-count": "\xb2"}, {"x-stainless-retry-count": "9" * 999},
        {"x-stainless-read-timeout": "nan"},
        {"x-stainless-read-timeout": "-1"}, {"x-stainless-read-timeout": "1e999"}, {"x-session-id": "\xff" * 20_000},
        {"traceparent": "00-" + "z" * 50}, {"idempotency-key": "\xb2"}, {"x-quantgate-approval": "../../x"},
        {"content-type": "application/json; charset=\xb2"}, {"expect": "100-continue"},
        {"upgrade": "h2c", "connection": "upgrade"},
    ],
    ids=str,
)  # fmt: skip
def test_no_header_is_a_failure_of_the_gateway(running: Running, headers: dict[str, str]) -> None:
    answer = call(running, "/v1/chat/completions", asked(), headers=headers)
    assert answer.status in (200, 400, 403, 415), answer.raw


BODIES = [
    b"", b"\xef\xbb\xbf{}", b'{"model": "demo", "messages": [{"role": "user", "content": "\xff"}]}',
    b'{"model": "demo", "messages": [{"role": "user", "content": "\\ud800"}]}', b"[" * 90_000, b'{"a":' * 10_000,
    b'{"model": NaN}', b"null", b'"text"', b"1e999", b'{"model": "demo", "messages": 1e999}',
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: str(body[:40]))
def test_no_body_is_a_failure_of_the_gateway(running: Running, body: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses"):
        answer = call(running, path, body)
        assert answer.status == 400, answer.raw


def test_a_key_given_twice_means_one_thing_to_all(running: Running) -> None:
    """What was judged is what goes upstream: the body is parsed once, and written anew."""
    body = GOOD[:-1] + b', "messages": [{"role": "user", "content": "xyz"}], "n": 1, "n": 2}'
    answer = call(running, "/v1/chat/completions", body)
    assert answer.text == "zyx" and len(answer.body["choices"]) == 2


def test_requests_in_one_piece_are_answered_one_after_the_other(running: Running) -> None:
    one = CHAT + b"content-length: %d\r\n\r\n" % len(GOOD) + GOOD
    with line(running) as link:
        link.sendall(one * 20 + b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = rest(link)
    assert answer.count(b"HTTP/1.1 200") == 21 and answer.count(b'"content":"cba"') == 20


def test_a_client_that_reads_nothing_holds_its_upstream_up_and_not_the_memory() -> None:
    """The upstream offers 200 MB; what the gateway takes of it is what its buffers hold."""
    piece = "x" * 20_000
    script = Script(pieces=[piece] * 10_000, text="")
    limits = Limits(grace_s=1.0, answer_chars=2**30)
    with (
        ScriptedUpstream(always=lambda _b: script) as upstream,
        Running(gateway_of(upstream, limits=limits)) as running,
    ):
        with socket.socket() as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
            link.connect(("127.0.0.1", running.port))
            body = json.dumps(asked(stream=True)).encode()
            link.sendall(CHAT + b"content-length: %d\r\n\r\n" % len(body) + body)
            assert upstream.wait(lambda one: len(one.asked) == 1)
            assert link.recv(10)
            assert chat(running, asked()).status == 200  # somebody else, while this one waits
            sent, same = 0, 0
            while same < 20:
                sent, same = upstream.sent, same + 1 if upstream.sent == sent else 0
                time.sleep(0.025)
        assert upstream.wait(lambda one: len(one.aborts) == 1)
        assert 0 < sent * len(piece) < 40 * 2**20
        assert until(lambda: kept(running.gateway)[-1].disconnected)


def test_a_client_that_reads_nothing_does_not_keep_its_place() -> None:
    script = Script(pieces=["x" * 20_000] * 10_000, text="")
    limits = Limits(grace_s=1.0, answer_chars=2**30, unread_s=0.5, per_arm=1)
    with (
        ScriptedUpstream(always=lambda _b: script) as upstream,
        Running(gateway_of(upstream, limits=limits)) as running,
    ):
        with socket.socket() as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
            link.connect(("127.0.0.1", running.port))
            body = json.dumps(asked(stream=True)).encode()
            link.sendall(CHAT + b"content-length: %d\r\n\r\n" % len(body) + body)
            assert upstream.wait(lambda one: len(one.aborts) == 1)
            assert chat(running, asked()).status == 200
            assert not rest(link).endswith(b"0\r\n\r\n")
        assert kept(running.gateway)[0].disconnected


def test_as_many_values_as_nobody_sends_are_refused_at_once() -> None:
    with ScriptedUpstream() as upstream, Running(gateway_of(upstream)) as running:
        many = b'{"model": "demo", "messages": [' + b"[]," * 2_000_000 + b"[]]}"
        answer = call(running, "/v1/chat/completions", many)
        assert (answer.status, answer.error["code"]) == (400, "too_many_values")
        said = "[" * 200_000 + '"\\'
        assert chat(running, asked(said)).text == said[::-1]


class Purse:
    """A ledger that tells what was asked of it."""

    def __init__(self) -> None:
        self.reserved: list[tuple[int, int]] = []

    def reserve(self, caller: Caller, prompt: int, answer: int, variant: str = "") -> Any:
        raise NotImplementedError

    async def admit(self, caller: Caller, prompt: int, answer: int, variant: str = "") -> Any:
        self.reserved.append((prompt, answer))
        return None

    def settle(self, *_: Any) -> None: ...


class Payer:
    def find(self, secret: str) -> Caller | None:
        return Caller("k1", budget="k1")


@pytest.fixture(scope="module")
def paying() -> Iterator[tuple[Running, Purse]]:
    purse = Purse()
    with ScriptedUpstream() as upstream, Running(gateway_of(upstream, keys=Payer(), ledger=purse)) as made:
        yield made, purse


def paid(
    paying: tuple[Running, Purse], *, path: str = "/v1/chat/completions", **more: Any
) -> tuple[Answer, list[tuple[int, int]]]:
    running, purse = paying
    purse.reserved.clear()
    body = asked(**more) if "chat" in path else {"model": "demo", "prompt": "x", **more}
    answer = call(running, path, body, headers={"authorization": "Bearer x"})
    return answer, list(purse.reserved)


@pytest.mark.parametrize("key", ["best_of", "n_predict", "num_predict", "max_new_tokens", "ignore_eos", "min_tokens"])
def test_who_has_a_budget_cannot_ask_for_more_in_a_servers_own_words(paying: Any, key: str) -> None:
    asks: dict[str, Any] = {"max_tokens": 1, key: 100}
    answer, reserved = paid(paying, **asks)
    assert (answer.status, answer.error["param"], reserved) == (400, key, [])
    answer, reserved = paid(paying, path="/v1/completions", **asks)
    assert (answer.status, answer.error["param"], reserved) == (400, key, [])


@pytest.mark.parametrize(
    ("asks", "most"),
    [
        ({"max_completion_tokens": 1, "max_tokens": 900}, 900),
        ({"max_completion_tokens": 900, "max_tokens": 1}, 900),
        ({"max_tokens": 10, "n": 128}, 1280),
        ({"n": 3}, 3072),
        ({"max_tokens": None, "max_completion_tokens": None}, 1024),
    ],
)
def test_what_may_be_written_is_what_is_reserved(paying: Any, asks: dict[str, Any], most: int) -> None:
    _, reserved = paid(paying, **asks)
    assert [answer for _, answer in reserved] == [most]


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens", "n"])
@pytest.mark.parametrize("value", [-1, 0, 1.5, "10", True, [1], {"a": 1}, 10**30, -(10**30)])
def test_no_length_that_is_none_reaches_a_budget(paying: Any, key: str, value: Any) -> None:
    answer, reserved = paid(paying, **{key: value})
    assert (answer.status, answer.error["param"], reserved) == (400, key, [])


def test_nothing_of_a_variant_or_an_upstream_becomes_a_header_of_its_own() -> None:
    from dataclasses import replace

    from quantgate.serve import Choice
    from quantgate.serve.passage import identity

    arm = replace(CANARY, name="W4\r\nset-cookie: a=b", digest="sha256:\nx")
    fields = identity(arm, Choice(arm, "canary", 0.5, 1))
    assert not any(sign in value for _, value in fields for sign in (b"\r", b"\n"))
