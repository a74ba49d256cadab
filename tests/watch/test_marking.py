"""Texts leave numbers and nothing else; nothing waits for it, and nothing is lost by it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from tests.watch.signals.made import exchange
from tests.watch.signals.test_contract import told

from quantgate.serve import Exchange
from quantgate.watch import Talk
from quantgate.watch._pairs import Pairs
from quantgate.watch._talks import READ, cost_of, talk_of
from quantgate.watch.marking import Marker
from quantgate.watch.signals import Signal, get, of_mark

KEY = b"a secret of this gateway"
CANARY = "zanzibar-kumquat-7719"


@dataclass
class Kept:
    exchanges: list[Exchange] = field(default_factory=list)

    def put(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)


def text(answer: str = "At noon.", prompt: str = "Which train leaves Ulm at noon, please?") -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"prompt": messages, "answer": [{"role": "assistant", "content": answer}], "tools": True}


def signal(name: str, mark: Callable[[Talk], float | None], kind: Any = "event") -> Signal:
    return Signal(name=name, about="a test", kind=kind, read=of_mark(name), mark=mark)


@contextmanager
def marking(*found: Signal, **more: Any) -> Iterator[tuple[Marker, list[Exchange]]]:
    sink = Kept()
    marker = Marker(sink, KEY, signals=found or None, **{"busy": 1.0} | more)
    yield marker, sink.exchanges
    marker.close()


def until(true: Callable[[], object], limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.002)


@pytest.mark.parametrize("keep", [False, True])
def test_an_exchange_gets_marks_and_a_hash_and_loses_its_text(keep: bool) -> None:
    with marking(keep_text=keep) as (marker, found):
        marker.put(exchange(text=text(""), marks={"other": 1.0}))
        marker.close()
        (one,) = found
        assert one.marks["empty"] == 1.0 and one.marks["tool_calls"] == 0.0 and one.marks["other"] == 1.0
        assert one.prompt_hash is not None and -(2**63) <= one.prompt_hash < 2**63
        assert one.text == (text("") if keep else None)
        assert exchange(**one.model_dump()) == one  # it can be written down and read again
        assert (marker.marked, marker.unmarked, marker.failed.total(), marker.trouble) == (1, 0, 0, None)


def test_hashes_need_the_key() -> None:
    def hashed(key: bytes) -> int | None:
        sink = Kept()
        marker = Marker(sink, key, signals=())
        marker.put(exchange(text=text()))
        marker.close()
        return sink.exchanges[0].prompt_hash

    assert hashed(KEY) == hashed(KEY) != hashed(b"another")


def test_only_prompts_that_may_be_held_against_earlier_ones_are_hashed() -> None:
    with marking() as (marker, found):
        for changed in ({}, {"told_session": False}, {"shadow": True, "id": "copy"}):
            marker.put(exchange(text=text(), **changed))
        marker.close()
        assert [one.prompt_hash is not None for one in found] == [True, False, False]


def test_an_exchange_without_text_goes_on_as_it_is_and_in_its_order() -> None:
    given = [exchange(id=f"req_{at}", text=text() if at % 2 else None) for at in range(50)]
    with marking() as (marker, found):
        for one in given:
            marker.put(one)
        marker.close()
        assert [one.id for one in found] == [one.id for one in given]
        assert found[0] is given[0] and (marker.marked, marker.unmarked) == (25, 0)


@given(told)
@settings(max_examples=40)
def test_whatever_a_text_holds_its_exchange_comes_out_once(text: dict[str, Any]) -> None:
    with marking() as (marker, found):
        for shadow in (False, True):
            marker.put(exchange(shadow=shadow).model_copy(update={"text": text}))
        marker.close()
        assert [one.shadow for one in found] == [False, True]
        assert all(one.text is None for one in found)
        assert marker.failed.total() == 0 and marker.waiting == (0, 0)


def test_under_any_load_each_exchange_comes_out_once() -> None:
    def slow(talk: Talk) -> float:
        time.sleep(len(talk.said) / 1e6)
        return 0.0

    with marking(signal("slow", slow), queue_items=50, queue_bytes=200_000) as (marker, found):
        for at in range(3000):
            marker.put(exchange(id=f"req_{at}", text=text("a" * (at * 7919 % 2000))))
        marker.close()
        assert sorted(one.id for one in found) == sorted(f"req_{at}" for at in range(3000))
        assert marker.marked + marker.unmarked == 3000 and marker.marked == sum("slow" in one.marks for one in found)
        assert marker.unmarked > 0 and marker.waiting == (0, 0)


class Gate:
    """A mark that waits until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, _talk: Talk) -> float:
        self.begun.set()
        self.go.wait(60)
        return 1.0


def test_what_does_not_fit_goes_on_without_marks_until_half_of_the_room_is_free() -> None:
    gate = Gate()
    with marking(signal("gate", gate), queue_items=10) as (marker, found):
        marker.put(exchange(id="first", text=text()))
        assert gate.begun.wait(30)
        for at in range(12):  # ten wait
            marker.put(exchange(id=f"req_{at}", text=text()))
        assert [one.id for one in found] == ["req_10", "req_11"] and marker.unmarked == 2
        assert all(one.text is None and one.marks == {} for one in found)
        assert marker.trouble is not None and "2 exchanges went on without marks" in marker.trouble
        gate.go.set()
        until(lambda: len(found) == 13)
        assert sum("gate" in one.marks for one in found) == 11
        marker.put(exchange(id="last", text=text()))
        marker.close()
        assert "gate" in found[-1].marks and marker.trouble is None


def test_the_room_is_bounded_in_bytes_as_well() -> None:
    gate = Gate()
    with marking(signal("gate", gate), queue_bytes=1 << 20) as (marker, found):
        marker.put(exchange(text=text()))
        assert gate.begun.wait(30)
        for _ in range(40):
            marker.put(exchange(text=text("a" * 100_000)))
        items, held = marker.waiting
        assert items < 12 and held <= 1 << 20 and len(found) == 40 - items == marker.unmarked
        gate.go.set()


def test_a_small_text_does_not_slip_past_a_large_one_that_found_no_room() -> None:
    gate = Gate()
    with marking(signal("gate", gate), queue_bytes=1 << 20) as (marker, found):
        marker.put(exchange(text=text()))
        assert gate.begun.wait(30)
        marker.put(exchange(text=text("a" * 900_000)))
        for size in (900_000, 1, 1):
            marker.put(exchange(text=text("a" * size)))
        assert marker.unmarked == len(found) == 3
        gate.go.set()


def test_a_signal_that_hangs_for_ever_costs_marks_and_no_exchange() -> None:
    gate, sink = Gate(), Kept()
    marker = Marker(sink, KEY, signals=[signal("gate", gate)], busy=1.0)
    for at in range(5):
        marker.put(exchange(id=f"req_{at}", text=text()))
    assert gate.begun.wait(30)
    marker.close(wait_s=0.05)
    assert [one.id for one in sink.exchanges] == [f"req_{at}" for at in range(5)]
    assert all(one.text is None and one.marks == {} for one in sink.exchanges) and marker.unmarked == 5
    gate.go.set()
    marker._thread.join(30)
    marker.put(exchange(id="after", text=text()))
    marker.close()
    assert [one.id for one in sink.exchanges][5:] == ["after"]


def fails(talk: Talk) -> float:
    raise ValueError(f"cannot read {talk.said}")


@pytest.mark.parametrize("mark", [fails, lambda _: float("nan"), lambda _: float("inf"), lambda _: "a"])
def test_a_mark_that_fails_is_counted_told_once_and_says_no_word(mark: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), marking(signal("bad", mark), get("empty")) as (marker, found):
        for _ in range(3):
            marker.put(exchange(text=text(CANARY)))
        marker.close()
        assert [one.marks for one in found] == [{"empty": 0.0}] * 3
        assert [one.unread for one in found] == [("bad",)] * 3, "not the same as a signal that does not apply"
        assert marker.failed == {"bad": 3} and marker.trouble is not None and "3 exchanges: bad" in marker.trouble
    assert len(caplog.records) == 1 and "bad" in caplog.text and CANARY not in caplog.text + str(marker.trouble)


def test_a_sink_that_raises_does_not_end_the_marks() -> None:
    class Broken(Kept):
        def put(self, exchange: Exchange) -> None:
            if exchange.id == "bad":
                raise OSError("full")
            super().put(exchange)

    sink = Broken()
    marker = Marker(sink, KEY, signals=())
    for id in ("bad", "good"):
        marker.put(exchange(id=id, text=text()))
    marker.close()
    assert [one.id for one in sink.exchanges] == ["good"] and marker.failed == {"sink": 1}


PAIR = get("shadow_disagreement")


@pytest.mark.parametrize("first", ["live", "shadow"])
def test_an_answer_and_its_shadow_meet_in_either_order(first: str) -> None:
    live, shadow = exchange(text=text("At noon.")), exchange(shadow=True, text=text(""))
    with marking(PAIR, get("empty")) as (marker, found):
        for one in (live, shadow) if first == "live" else (shadow, live):
            marker.put(one)
        marker.close()
        by_kind = {one.shadow: one for one in found}
        assert len(found) == 2
        assert by_kind[True].marks == {"empty": 1.0, "shadow_disagreement": 1.0}
        assert by_kind[False].marks == {"empty": 0.0}


def test_choices_of_a_shadow_are_read_as_messages_are() -> None:
    choices = [{"index": 0, "message": {"role": "assistant", "content": "At noon."}, "finish_reason": "stop"}]
    with marking(PAIR) as (marker, found):
        marker.put(exchange(text=text("")))
        marker.put(exchange(shadow=True, text={**text(), "answer": choices}))
        marker.close()
        assert found[1].marks == {"shadow_disagreement": 0.0}


def test_a_shadow_that_nobody_answers_for_goes_on_alone_when_its_time_is_over() -> None:
    with marking(PAIR, get("empty"), pair_s=0.05) as (marker, found):
        marker.put(exchange(shadow=True, text=text()))
        until(lambda: found)
        assert found[0].marks == {"empty": 0.0} and found[0].text is None
        marker.put(exchange(id="other", shadow=True, text=text()))
        marker.close()
        assert [one.id for one in found] == ["req_2", "other"]


def talk(said: str = "At noon.") -> Talk:
    return talk_of(exchange(text=text(said)))


def test_who_waits_for_the_other_is_bounded() -> None:
    pairs = Pairs([("pair", lambda _: 1.0)], lambda _name, mark, talk, _unread: mark(talk), 60.0)
    for at in range(3000):
        out = list(pairs.add(exchange(id=f"s{at}", shadow=True), talk(), {}, 0.0))
        assert [one.id for one, _ in out] == ([] if at < 2048 else [f"s{at - 2048}"])
    for at in range(3000):
        list(pairs.add(exchange(id=f"l{at}"), talk("a" * 20_000), {}, 0.0))
    assert pairs._chars <= 16 << 20 and len(pairs._left) < 840
    assert len(list(pairs.alone(59.9))) == 0
    assert len(list(pairs.alone(60.1))) == 2048 and pairs._chars == 0 and not pairs._left


def test_a_shadow_told_twice_comes_out_twice_and_an_answer_counts_once() -> None:
    pairs = Pairs([("pair", lambda _: 1.0)], lambda _name, mark, talk, _unread: mark(talk), 60.0)
    shadow = exchange(shadow=True)
    assert list(pairs.add(shadow, talk(), {}, 0.0)) == []
    assert [more for _, more in pairs.add(shadow, talk(), {}, 0.0)] == [{}]
    found = list(pairs.add(exchange(), talk(), {}, 0.0))
    assert [(one.shadow, more) for one, more in found] == [(False, {}), (True, {"marks": {"pair": 1.0}, "unread": ()})]
    assert pairs.made == 1 and list(pairs.alone()) == []


def test_an_answer_that_was_broken_off_is_held_against_nothing() -> None:
    with marking(PAIR) as (marker, found):
        marker.put(exchange(id="1", disconnected=True, text=text("")))
        marker.put(exchange(id="1", shadow=True, text=text()))
        refused = {"status": 422, "error": "invalid_answer", "step": "failed", "faults": ("schema",)}
        marker.put(exchange(id="2", **refused, text={**text(), "answer": []}))
        marker.put(exchange(id="2", shadow=True, text=text()))
        marker.close()
        assert [one.marks for one in found if one.shadow] == [{}, {"shadow_disagreement": 0.0}]


def test_of_a_long_text_both_ends_are_read() -> None:
    long = "head " + "a" * 300_000 + " tail"
    found = talk_of(exchange(text=text(long, long)))
    for one in (found.said, found.asked):
        assert len(one) <= READ + 1 and one.startswith("head a") and one.endswith("a tail")
    many = {
        "prompt": [{"role": "user", "content": f"turn {at}"} for at in range(500)],
        "answer": [{"content": "a"}] * 90,
    }
    short = talk_of(exchange(text=many))
    assert short.asked == "turn 499" and len(short.prompt) == 16 and len(short.answers) == 8


def test_what_a_text_costs_is_about_what_it_holds() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:" + "a" * 1_000_000}}
    assert cost_of({"prompt": [{"role": "user", "content": [image]}], "answer": []}) > 1_000_000
    assert 1000 < cost_of(text("a" * 500)) < 3000
    assert cost_of({}) == cost_of({"prompt": "a", "answer": None}) == 0
