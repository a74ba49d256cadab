"""repeated_prompt: the same again in one session and soon; the hash tells no words and fits every database."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.serve import Exchange
from quantgate.watch import Talk
from quantgate.watch.signals._simhash import SIGNS, distance, prompt_hash
from quantgate.watch.signals.repeated_prompt import SIGNAL

KEY = b"a secret of this gateway"
TEXT = (
    "train ticket harbour window seven printer garden letter morning doctor river budget island server answer colour "
    "kitchen market bottle winter engine mirror pencil forest ladder blanket thunder village camera hammer planet "
    "button sugar candle basket bridge tunnel rocket silver shadow meadow lantern"
)
WORDS = TEXT.split()


def asked(*turns: str) -> Talk:
    """Turns of user and assistant in alternation, the user's first."""
    roles = ("user", "assistant")
    return Talk([{"role": roles[at % 2], "content": text} for at, text in enumerate(turns)], [])


def hashed(text: str, key: bytes = KEY) -> int | None:
    return prompt_hash(asked(text), key)


def exchange(prompt: str = "Which train leaves Ulm at noon, please?", **told: Any) -> Exchange:
    fields: dict[str, Any] = dict(
        id="2", at=1000.0, target="t", variant="w4", artifact="d", answered_by="w4", cohort="canary", share=0.1,
        revision=1, route="chat", key="k", session="s", told_session=True, stream=False, structured=False, status=200,
        prompt_hash=hashed(prompt),
    )  # fmt: skip
    return Exchange(**{**fields, **told})


def test_the_same_question_again_is_one_and_another_question_none() -> None:
    first = exchange(id="1", at=900.0)
    assert SIGNAL.read(exchange(), []) == 0.0
    assert SIGNAL.read(exchange(), [first]) == 1.0
    assert SIGNAL.read(exchange("which train leaves  ULM at noon please"), [first]) == 1.0
    assert SIGNAL.read(exchange("How much is a ticket to Hamburg and back?"), [first]) == 0.0


@pytest.mark.parametrize(
    "earlier",
    [
        {"session": "of another user"},
        {"at": 399.0},
        {"at": 1001.0},
        {"status": 502, "error": "upstream_error"},
        {"answered_by": ""},
        {"prompt_hash": None},
        {"id": "2"},
    ],
    ids=["another session", "long ago", "clock set back", "failed", "unanswered", "unhashed", "twice delivered"],
)
def test_what_is_no_repetition(earlier: dict[str, Any]) -> None:
    assert SIGNAL.read(exchange(), [exchange(**{"id": "1", "at": 900.0, **earlier})]) == 0.0


@pytest.mark.parametrize("told", [{"prompt_hash": None}, {"retry": 1}, {"told_session": False}])
def test_where_it_does_not_apply(told: dict[str, Any]) -> None:
    assert SIGNAL.read(exchange(**told), [exchange(id="1", at=900.0)]) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "ok",
        "Go on!",
        "thank you very much",
        "continue",
        "да, конечно",
        "はい、お願いします",
        "好的，谢谢",
        "😀" * 50,
    ],
)
def test_short_prompts_do_not_count(text: str) -> None:
    assert hashed(text) is None


def test_a_tools_result_is_no_new_question() -> None:
    prompt = [{"role": "user", "content": "Which train leaves Ulm at noon?"}]
    assert prompt_hash(Talk(prompt, []), KEY) is not None
    assert prompt_hash(Talk([*prompt, {"role": "tool", "content": "12:03"}], []), KEY) is None
    assert prompt_hash(Talk([], []), KEY) is None


def test_writing_without_spaces_is_told_apart() -> None:
    one, same, other = (
        hashed(text)
        for text in (
            "请告诉我明天从柏林到汉堡的火车几点出发",
            "请告诉我明天从柏林到汉堡的火车几点出发？",
            "帮我写一封信给房东，说暖气坏了三天了",
        )
    )
    assert one is not None and same is not None and other is not None
    assert distance(one, same) <= 3 < distance(one, other)


@given(st.text(max_size=300), st.binary(min_size=1, max_size=64))
def test_a_hash_fits_a_signed_integer_of_64_bits_and_is_always_the_same(text: str, key: bytes) -> None:
    found = hashed(text, key)
    assert found == hashed(text, key)
    if found is not None:
        assert -(2**63) <= found < 2**63
        assert json.loads(exchange(prompt_hash=found).model_dump_json())["prompt_hash"] == found


@given(st.lists(st.sampled_from(WORDS), min_size=8, max_size=40), st.randoms())
def test_case_spaces_and_punctuation_change_nothing(words: list[str], random: random.Random) -> None:
    text = " ".join(words)
    noisy = "  ".join(one.upper() if random.random() < 0.3 else one + random.choice(["", ",", "!"]) for one in words)
    assert hashed(text) == hashed(noisy)


def test_hashes_of_strangers_are_far_apart_and_a_key_changes_all_bits() -> None:
    """Unrelated prompts differ in 32 bits of 64, give or take 4, and so do the hashes of one under two keys."""
    draw = random.Random(7)
    texts = [" ".join(draw.sample(WORDS, 12)) for _ in range(200)]
    apart = [distance(_sure(a), _sure(b)) for a, b in zip(texts[::2], texts[1::2], strict=True)]
    assert sum(one <= 3 for one in apart) == 0
    keys = [distance(_sure(one), _sure(one, b"another")) for one in texts]
    assert 29 < sum(keys) / len(keys) < 35


def test_a_word_more_in_a_long_prompt_is_the_same_and_another_question_about_one_document_is_not() -> None:
    draw, near = random.Random(11), []
    for _ in range(30):
        long = [f"{draw.choice(WORDS)}{number}" for number in range(90)]
        fewer = [*long[: (at := draw.randrange(90))], *long[at + 1 :]]
        near.append(distance(_sure(" ".join(long)), _sure(" ".join(fewer))))
    assert sum(one <= 3 for one in near) >= 20
    document = " ".join(draw.choice(WORDS) + str(draw.randrange(500)) for _ in range(3000))
    first = _sure(f"{document}\n\nSummarize section three for my manager in five short lines")
    second = _sure(f"{document}\n\nWhich prices rose since 2019, and why did nobody tell us")
    assert distance(first, second) > 3


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_distance_is_one(a: int, b: int, c: int) -> None:
    assert distance(a, b) == distance(b, a) <= 64
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, c) <= distance(a, b) + distance(b, c)
    assert distance(a, a ^ SIGNS) == 64


def _sure(text: str, key: bytes = KEY) -> int:
    found = hashed(text, key)
    assert found is not None
    return found
