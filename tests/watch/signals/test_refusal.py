"""refusal: by field, by filter, or by words; what asks back, calls a tool or is empty declines nothing."""

from __future__ import annotations

from typing import Any

import pytest
from tests.watch.signals.made import calling, marked, read, said, signal

SORRY = "I'm sorry, but I can't help with that."


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (SORRY, 1.0),
        ("Es tut mir leid, aber dabei kann ich nicht helfen.", 1.0),
        ("抱歉，我无法帮助你。", 1.0),
        ([{"type": "text", "text": SORRY}], 1.0),
        ("The 12:03 train leaves from platform 2.", 0.0),
        ("I'm sorry for your loss. Here is the letter.", 0.0),
        ("I can't book it without a date. Which date?", 0.0),
        ("Sure. " + "It goes on and on. " * 400 + SORRY, 0.0),
        ("", None),
        (" \n ", None),
    ],
)
def test_an_answer_by_its_words(answer: Any, expected: float | None) -> None:
    assert marked("refusal", said({"role": "assistant", "content": answer})) == expected


def test_its_own_field_and_a_filter_say_so_without_words() -> None:
    assert marked("refusal", said({"role": "assistant", "content": None, "refusal": "No."})) == 1.0
    assert marked("refusal", said("The train", finish="content_filter")) == 1.0
    assert marked("refusal", said({"role": "assistant", "content": "Fine.", "refusal": ""})) == 0.0


def test_a_tool_call_declines_nothing_and_no_answer_is_no_refusal() -> None:
    assert marked("refusal", said(calling())) == 0.0
    assert marked("refusal", said()) is None


def test_it_is_read_both_ways_and_only_from_its_mark() -> None:
    assert signal("refusal").worse == "either"
    assert [read("refusal", marks={"refusal": one}) for one in (0.0, 1.0)] == [0.0, 1.0]
    assert read("refusal", marks={}) is None
