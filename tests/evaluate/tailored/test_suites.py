"""Lengths in tokens, depths, rounds, and the user's rare words: each suite's own promise."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluate.tailored.conftest import SHARED, traffic

from quantgate.errors import DataError, UsageError
from quantgate.evaluate import tailored
from quantgate.evaluate.tailored import Place, fitted, held_out
from quantgate.evaluate.tailored.needle import SENTENCE, hidden
from quantgate.evaluate.tailored.rare_traffic import WORD, rare_words
from quantgate.evaluate.tailored.tool_conversation import TOOLS, conversation


def slice_of(case: Any, name: str) -> str:
    return next(str(one).partition("=")[2] for one in case.slices if one.startswith(f"{name}="))


def tokens(place: Place, case: Any) -> int:
    return place.measure(tuple((one.role, one.content) for one in case.messages), case.tools)


def test_needle_prompts_have_exactly_the_tokens_asked(made: Any, place: Place) -> None:
    lengths = [(tokens(place, case), int(slice_of(case, "length"))) for case in made("needle")]
    assert all(wanted - 2 <= found <= wanted for found, wanted in lengths)
    assert sum(found == wanted for found, wanted in lengths) >= 0.9 * len(lengths)


def test_needles_stand_at_their_depth(made: Any) -> None:
    for case in made("needle", lengths=[700, 1200]):
        text = case.messages[0].content
        body = text[: text.rindex("\n\nWhat is")]
        at = body.index(f" is {case.answer}.") / len(body)
        assert at == pytest.approx(float(slice_of(case, "depth")), abs=0.06)  # sentences are not cut


def test_the_haystack_may_be_a_file(made: Any, place: Place) -> None:
    file = SHARED / "data" / "tinyshakespeare" / "input.txt"
    if not file.is_file():
        pytest.skip("no ../shared/data/tinyshakespeare beside the repository")
    cases = made("needle", haystack=str(file), count=12, lengths=[700])
    lines = set(file.read_text("utf-8").splitlines())
    for case in cases:
        assert int(slice_of(case, "length")) - 2 <= tokens(place, case) <= int(slice_of(case, "length"))
        assert sum(line in lines for line in case.messages[0].content.splitlines() if len(line) > 30) >= 3
    assert len({case.messages[0].content[:80] for case in cases}) == len(cases)


def test_a_haystack_too_short_for_the_length_is_told(made: Any, tmp_path: Any) -> None:
    (tmp_path / "short.txt").write_text("One line only.\n")
    with pytest.raises(DataError, match=r"the text at hand fills \d+ of 256 tokens"):
        made("needle", haystack=str(tmp_path / "short.txt"))
    with pytest.raises(DataError, match="no such file"):
        made("needle", haystack=str(tmp_path / "none.txt"))


@given(st.text(min_size=20, max_size=300), st.floats(0, 1))
def test_hiding_a_needle_keeps_every_word_of_the_text(hay: str, depth: float) -> None:
    needle = SENTENCE.format(name="amber bay", number="12345")
    text = hidden(hay, needle, depth)
    assert needle in text
    assert "".join(text.replace(needle, "").split()) == "".join(hay.split())


@given(st.integers(1, 400), st.integers(0, 500))
def test_a_text_is_fitted_to_the_longest_that_does_not_exceed(most: int, length: int) -> None:
    """Of a text with one token for three characters and five for its frame."""

    def count(text: str) -> int:
        return 5 + -(-len(text) // 3)

    try:
        made = fitted(lambda size, end: "x" * size, most, length, count)
    except DataError:
        assert length < 5 or count("x" * most) < 0.95 * length
    else:
        assert count(made) <= length
        assert len(made) == most or count(made) == length


def test_lengths_beyond_the_context_are_refused(made: Any) -> None:
    with pytest.raises(UsageError, match="do not fit the context of 2048; ask for lengths up to 2016"):
        made("needle", lengths=[4096])
    with pytest.raises(UsageError, match=r"depth 1.5 is not between 0 and 1"):
        made("key_value", depths=[1.5])


def test_lengths_left_out_are_those_that_fit(place: Place) -> None:
    cases = tailored.cases("needle", place, tailored.order_of("needle", {"depths": [0.5]}), split="gate", count=4)
    assert {slice_of(case, "length") for case in cases} == {"512", "1024"}


def test_pairs_fill_the_length_and_the_key_stands_once(made: Any, place: Place) -> None:
    for case in made("key_value"):
        wanted, text = int(slice_of(case, "length")), case.messages[0].content
        pairs = json.loads(text[: text.rindex("\n\nWhat is")])
        key = text.rsplit("key ", 1)[1].split()[0]
        assert wanted - 120 <= tokens(place, case) <= wanted  # one pair of UUIDs is about 100 tokens here
        assert pairs[key] == case.answer and list(pairs.values()).count(case.answer) == 1
        at = list(pairs).index(key) / (len(pairs) - 1)
        assert at == pytest.approx(float(slice_of(case, "depth")), abs=0.2)


def test_conversations_have_as_many_rounds_as_they_say(made: Any) -> None:
    for case in made("tool_conversation"):
        assert len(case.messages) == 4 * (int(slice_of(case, "round")) - 1) + 1
        assert case.tools == TOOLS and case.messages[-1].role == "user"
    assert max(len(case.messages) for case in made("tool_conversation")) >= 15


@pytest.mark.parametrize("seed", range(40))
def test_the_call_asked_for_follows_from_the_calls_before(seed: int) -> None:
    """The whole desk again, from the calls and results in the conversation alone."""
    turns, last = conversation(random.Random(seed), 12)
    numbers: dict[str, str] = {}
    city: dict[str, str] = {}
    for (role, content), (_, result) in pairwise(turns):
        if role == "assistant" and content.startswith("{"):
            call = json.loads(content)
            if call["name"] == "create_parcel":
                numbers[call["arguments"]["recipient"]] = json.loads(result)["parcel"]
            parcel = json.loads(result)["parcel"]
            city[parcel] = call["arguments"].get("city", city.get(parcel, ""))
    words = last.request.replace("'s", "").replace(".", "").split()
    named = [numbers[word] for word in words if word in numbers]
    assert last.arguments["parcel"] == named[0]
    if last.kind == "same_city":
        assert last.arguments["city"] == city[named[1]]
    assert last.distance >= 1 and last.name in {tool["name"] for tool in TOOLS}


def test_a_context_without_room_for_fifteen_turns_is_told(place: Place) -> None:
    small = Place(place.encode, place.measure, 600)
    with pytest.raises(UsageError, match="15 turns do not fit the context of 600 tokens"):
        tailored.cases("tool_conversation", small, tailored.order_of("tool_conversation", {}), split="gate", count=1)
    with pytest.raises(UsageError, match=r"\d rounds take about \d+ tokens"):
        order = tailored.order_of("tool_conversation", {"rounds": [1, 9]})
        tailored.cases("tool_conversation", small, order, split="gate", count=1)


def test_rare_words_are_those_that_take_many_tokens(made: Any, place: Place) -> None:
    for case in made("rare_traffic"):
        kind, pieces = slice_of(case, "kind"), int(slice_of(case, "pieces"))
        if kind in ("copy", "gap", "reverse"):
            assert min(8, len(place.encode(f" {case.answer}"))) == pieces >= 3
            assert any(case.answer in content for turns in place.traffic for _, content in turns)


def test_calibration_and_cases_share_no_conversation(made: Any, place: Place) -> None:
    left = [turns for turns in place.traffic if held_out(turns) not in tailored.HELD_OUT]
    seen = {" ".join(content.split()) for turns in left for _, content in turns}
    gaps = [case for case in made("rare_traffic") if slice_of(case, "kind") == "gap"]
    assert gaps and 0.5 < len(left) / len(place.traffic) < 0.9
    for case in gaps:
        sentence = case.messages[0].content.split("\n")[1]
        assert not any(sentence in text for text in seen)


def test_words_of_a_background_are_not_rare(place: Place, tmp_path: Any) -> None:
    (tmp_path / "general.txt").write_text(" ".join(content for turns in traffic(50) for _, content in turns))
    orders = [tailored.order_of("rare_traffic", one) for one in ({}, {"background": str(tmp_path / "general.txt")})]
    words = [set(rare_words(place, one)) for one in orders]
    known = set(WORD.findall((tmp_path / "general.txt").read_text()))
    assert words[1] == {word for word in words[0] if word not in known} != words[0]


def test_traffic_without_rare_words_is_told(place: Place) -> None:
    dull = Place(place.encode, place.measure, place.context, [(("user", "What is the time now?"),)] * 50)
    with pytest.raises(DataError, match="0 rare words in"):
        tailored.cases("rare_traffic", dull, tailored.order_of("rare_traffic", {}), split="gate", count=5)
