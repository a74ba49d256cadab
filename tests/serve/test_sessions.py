"""A session is known by what the client calls it, by nobody else, and a retry stays with its first try."""

from __future__ import annotations

import pytest

from quantgate.serve import Caller
from quantgate.serve.sessions import REMEMBERED, REMEMBERED_S, SessionNames

ANN, BOB = Caller("k_ann"), Caller("k_bob")
BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
RETRY = {"x-stainless-retry-count": "1"}


def sessions(secret: bytes = b"s" * 32, **settings):
    return SessionNames(secret, **settings)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({}, {"x-session-id": "s"}),
        ({}, {"x-litellm-session-id": "s"}),
        ({"metadata": {"session_id": "s"}}, {}),
        ({"user": "s"}, {}),
        ({"safety_identifier": "s"}, {}),
        ({"prompt_cache_key": "s"}, {}),
        ({"conversation": "s"}, {}),
        ({"conversation": {"id": "s"}}, {}),
        ({"previous_response_id": "s"}, {}),
    ],
)
def test_every_name_that_a_client_can_give_makes_a_session(body, headers):
    one = sessions()
    first, told = one.name({**BODY, **body}, headers, ANN, "r1")
    later = {**BODY, **body, "messages": [{"role": "user", "content": "and then?"}]}
    assert told
    assert one.name(later, headers, ANN, "r2") == (first, True)
    assert one.name({**BODY, **body}, headers, BOB, "r3")[0] != first
    assert sessions(b"t" * 32).name({**BODY, **body}, headers, ANN, "r1")[0] != first


def test_the_hash_holds_nothing_of_the_name():
    found, _ = sessions().name({**BODY, "user": "ann@example.org"}, {}, ANN, "r1")
    assert len(found) == 32
    assert set(found) <= set("0123456789abcdef")


def test_the_same_word_in_two_places_names_two_sessions():
    one = sessions()
    assert one.name({"user": "x"}, {}, ANN, "1")[0] != one.name({"conversation": "x"}, {}, ANN, "1")[0]


def test_what_names_nothing_is_no_name():
    nothing: tuple[dict[str, object], ...] = (
        {"user": ""},
        {"user": None},
        {"user": []},
        {"user": True},
        {"metadata": "s"},
        {"conversation": {}},
    )
    for body in nothing:
        assert not sessions().name({**BODY, **body}, {}, ANN, "r1")[1]


def test_without_a_name_every_request_is_its_own_session():
    one = sessions()
    assert one.name(BODY, {}, ANN, "r1")[0] != one.name(BODY, {}, ANN, "r2")[0]


def test_a_retry_keeps_the_session_of_its_first_try():
    one = sessions()
    first, told = one.name(BODY, {}, ANN, "r1")
    assert not told
    assert one.name(BODY, RETRY, ANN, "r2") == (first, False)
    assert one.name(BODY, {"x-stainless-retry-count": "2"}, ANN, "r3") == (first, False)
    assert one.name({**BODY, "temperature": 1}, RETRY, ANN, "r4")[0] != first
    assert one.name(BODY, RETRY, BOB, "r5")[0] != first


def test_an_idempotency_key_is_the_same_request_in_every_process():
    headers = {"idempotency-key": "abc"}
    assert sessions().name(BODY, headers, ANN, "r1") == sessions().name({}, headers, ANN, "r2")


def test_first_tries_are_forgotten_in_time_and_by_number():
    now = [0.0]
    one = sessions(clock=lambda: now[0])
    first, _ = one.name(BODY, {}, ANN, "r1")
    now[0] = REMEMBERED_S + 1
    assert one.name(BODY, RETRY, ANN, "r2")[0] != first
    kept, _ = one.name(BODY, {}, ANN, "r3")
    for number in range(REMEMBERED):
        one.name({"n": number}, {}, ANN, f"x{number}")
    assert one.name(BODY, RETRY, ANN, "r4")[0] != kept
