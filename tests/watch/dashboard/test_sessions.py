"""A key shown once, a cookie that stands for it: nobody forges one, and the key's end is its end."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.serve import Caller
from quantgate.serve.refusals import Refused
from quantgate.watch.dashboard.sessions import COOKIE, LASTS_S, WRONG, Sessions, check_host, check_origin, cookie_header

ADMIN = Caller("k1", frozenset({"admin"}))


class Keys:
    def __init__(self, *callers: Caller) -> None:
        self.callers = {one.key: one for one in callers}

    def find(self, secret: str) -> Caller | None:
        return self.callers.get(secret.removeprefix("secret of "))

    def of(self, id: str) -> Caller | None:
        return self.callers.get(id)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def sessions(*callers: Caller, secret: bytes = b"s" * 32) -> tuple[Sessions, Keys, Clock]:
    keys, clock = Keys(*callers), Clock()
    return Sessions(secret, keys.find, keys.of, clock=clock), keys, clock


def cookie(token: str) -> dict[str, str]:
    return {"cookie": f"other=1; {COOKIE}={token}"}


def test_a_token_stands_for_its_key_in_every_process_of_the_same_secret():
    one, _, _ = sessions(ADMIN)
    other, _, _ = sessions(ADMIN)
    stranger, _, _ = sessions(ADMIN, secret=b"x" * 32)
    viewer, token = one.begin("secret of k1", "a")
    assert other.of(cookie(token)) == viewer
    assert stranger.of(cookie(token)) is None
    assert "secret" not in token
    assert other.form_token(viewer) == one.form_token(viewer) != stranger.form_token(viewer)


def test_a_key_that_ends_or_loses_its_scope_ends_its_sessions():
    found, keys, _ = sessions(ADMIN)
    _, token = found.begin("secret of k1", "a")
    keys.callers["k1"] = Caller("k1", frozenset({"watch"}))
    viewer = found.of(cookie(token))
    assert viewer is not None
    assert not viewer.may_move
    keys.callers["k1"] = Caller("k1", frozenset({"use"}))
    assert found.of(cookie(token)) is None
    del keys.callers["k1"]
    assert found.of(cookie(token)) is None


def test_sessions_end_by_time_and_by_logging_out():
    found, _, clock = sessions(ADMIN)
    viewer, token = found.begin("secret of k1", "a")
    _, other = found.begin("secret of k1", "a")
    found.end(viewer)
    assert found.of(cookie(token)) is None
    assert found.of(cookie(other)) is not None
    clock.now += LASTS_S
    assert found.of(cookie(other)) is None


def test_a_key_that_may_only_be_used_does_not_look():
    found, _, _ = sessions(Caller("k2", frozenset({"use"})))
    with pytest.raises(Refused, match="needs the scope 'watch' or 'admin'"):
        found.begin("secret of k2", "a")


def test_wrong_keys_are_slowed_down_for_their_address_alone():
    found, _, clock = sessions(ADMIN)
    for _ in range(WRONG):
        with pytest.raises(Refused, match="not known"):
            found.begin("guess", "bad")
    with pytest.raises(Refused, match="too many wrong keys; wait 60 s"):
        found.begin("secret of k1", "bad")
    assert found.begin("secret of k1", "good")
    clock.now += 61
    assert found.begin("secret of k1", "bad")


@given(st.text(max_size=60) | st.binary(max_size=40).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_no_made_up_token_is_anybody(text):
    found, _, _ = sessions(ADMIN)
    assert found.of({"cookie": f"{COOKIE}={text}"}) is None
    body = base64.urlsafe_b64encode(json.dumps(["k1", "n", 1e12]).encode()).decode()
    assert found.of(cookie(f"{body}.{text}")) is None


@given(st.integers(min_value=0), st.sampled_from("0aZ-_."))
def test_a_changed_token_is_nobody(at, sign):
    found, _, _ = sessions(ADMIN)
    _, token = found.begin("secret of k1", "a")
    at %= len(token)
    changed = token[:at] + sign + token[at + 1 :]
    assert (found.of(cookie(changed)) is not None) == (changed == token)


def test_forms_of_another_session_or_another_site_are_refused():
    found, _, _ = sessions(ADMIN)
    one, _ = found.begin("secret of k1", "a")
    other, _ = found.begin("secret of k1", "a")
    found.check_form(one, found.form_token(one))
    for token in ("", "é", found.form_token(other)):
        with pytest.raises(Refused, match="not of your session"):
            found.check_form(one, token)
    check_origin({"origin": "https://gate.example:8000", "host": "gate.example:8000"})
    for origin in ("", "null", "https://evil.example", "https://gate.example"):
        with pytest.raises(Refused, match="not sent by the dashboard"):
            check_origin({"origin": origin, "host": "gate.example:8000"} if origin else {"host": "gate.example:8000"})


def test_an_open_gateway_answers_to_its_machine_alone():
    for host in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000", "localhost"):
        check_host({"host": host})
    for host in ("evil.example:8000", "127.0.0.1.evil.example", "", "10.0.0.7"):
        with pytest.raises(Refused, match="own names only"):
            check_host({"host": host})


def test_the_cookie_is_for_the_server_alone():
    name, told = cookie_header("t", secure=True)
    assert name == b"set-cookie"
    assert told == b"quantgate_dashboard=t; Path=/dashboard; Max-Age=28800; HttpOnly; SameSite=Strict; Secure"
    assert cookie_header("", secure=False)[1].endswith(b"Max-Age=0; HttpOnly; SameSite=Strict")
