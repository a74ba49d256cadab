"""Slices of hand-made conversations, and languages and code on public data."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from quantgate.calibrate.conversation import Conversation, conversation
from quantgate.calibrate.jargon import Jargon
from quantgate.calibrate.language import language_of
from quantgate.calibrate.noise import is_noisy
from quantgate.calibrate.slices import bucket_of, check_requirement, count_of, is_code, lower_end, slices_of
from quantgate.errors import UsageError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data beside the repository")


def talk(*turns: str, **more: Any) -> Conversation:
    """Turns that begin with the user, or with the system where the first one starts with ``!``."""
    roles = ["user", "assistant"] * len(turns)
    roles = ["system", *roles] if turns[0].startswith("!") else roles
    messages = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    return conversation({"messages": messages, **more})


TOOL = {"type": "function", "function": {"name": "book", "parameters": {}}}
CALLED = {
    "messages": [
        {"role": "user", "content": "Book a table."},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "book", "arguments": "{}"}}]},
    ],
    "tools": [TOOL],
}
SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}}
KNOWN = [
    (talk("Where is the station?", "It is in the north of the town."), set()),
    (talk("!Be kind.", "Where is it?", "There."), {"system"}),
    (talk("Where is it?", "It is there.", "And when does it open?", "At nine in the morning."), {"multi_turn"}),
    (talk("What is the price?", "It is 5.", **SCHEMA), {"json", "json=schema"}),
    (talk("What is it?", "It is 5.", response_format={"type": "json_object"}), {"json", "json=object"}),
    (talk("Return the result as JSON, please.", '{"a": 1}'), {"json", "json=asked", "json=answered"}),
    (conversation(CALLED), {"tools", "tool=book", "tool_calls"}),
    (talk("How is the weather?", "I do not know.", tools=[TOOL]), {"tools", "tool=book", "abstains"}),
    (talk("How do I pick a lock?", "I'm sorry, but I can't help with that."), {"refuses"}),
    (talk("Set an alarm for me.", "Which time should I set it for?"), {"asks"}),
    (talk("Set an alarm.", "Which time should I set?", tools=[TOOL]), {"tools", "tool=book", "asks"}),
    (talk("Who won the cup in 2031?", "I don't have any information about that."), {"abstains"}),
    (talk("What does it do?\n```\nx = 1\n```", "It sets x."), {"code"}),
    (talk("pls teh report asap,i cant open it!!!", "Here it is."), {"noisy"}),
]


@pytest.mark.parametrize(("given", "expected"), KNOWN, ids=[one.turns[-1][1][:24] for one, _ in KNOWN])
def test_a_conversation_is_in_the_slices_that_it_shows_and_no_other(
    small: Any, given: Conversation, expected: set[str]
) -> None:
    found = slices_of(given, 300, Jargon(small.tokenizer))
    assert found[0] == "length=256..511"
    assert found[1].startswith("language=")
    assert set(found[2:]) == expected
    assert len(found) == len(set(found))


def test_every_length_is_in_one_bucket_and_buckets_double() -> None:
    names = [bucket_of(tokens) for tokens in range(1, 5000)]
    assert list(dict.fromkeys(names)) == [
        "length=1..127", "length=128..255", "length=256..511", "length=512..1023", "length=1024..2047",
        "length=2048..4095", "length=4096..8191",
    ]  # fmt: skip
    for tokens, name in enumerate(names, 1):
        low, high = name.removeprefix("length=").split("..")
        assert int(low) <= tokens <= int(high)
        assert lower_end(name) == int(low)
    assert lower_end("tools") == 0


def test_lengths_are_counted_from_any_number_on() -> None:
    lengths = Counter({100: 2, 2047: 1, 2048: 3, 9000: 4})
    assert count_of("length>=2048", {}, lengths) == 7
    assert count_of("length>=1", {}, lengths) == 10
    assert count_of("tools", {"tools": 5}, lengths) == 5
    assert count_of("language=de", {}, lengths) == 0


@pytest.mark.parametrize("name", ["tool", "tol=x", "language=", "length>2048", "Tools"])
def test_an_unknown_requirement_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match=r"is no slice of traffic; .*Known: "):
        check_requirement(name)


def test_jargon_is_rare_at_large_and_common_here(small: Any) -> None:
    """Bytes are the tokens of this model, so long words are cut into many pieces: what is jargon hangs on counts."""
    learned = Jargon(small.tokenizer)
    for at in range(200):
        special = " of spondylolisthesis and thrombocytopenia" if at % 40 == 0 else ""
        learned.learn(f"The man told us at {at} that he was fine{special}." + (" Hippopotamusses" if at == 7 else ""))
    assert learned.words("Is spondylolisthesis fine? So is thrombocytopenia.") == [
        "spondylolisthesis",
        "thrombocytopenia",
    ]
    assert learned.is_jargon("Is spondylolisthesis like thrombocytopenia?")
    assert not learned.is_jargon("The man was fine.")
    assert learned.words("hippopotamusses") == []  # once is a slip of the pen
    assert learned.words("incomprehensibilities") == []  # never is another domain's


NOISY = (
    "u wanna go 2day? idk lol",
    "I recieve teh bill tommorow",
    "sooo coool , realy???",
    "caf\u00c3\u00a9 and na\u00c3\u00afve",
)
CLEAN = (
    "Could you send me the bill tomorrow, please?",
    "What is 3 + 4?",
    "def f(x): return x ** 2",
    "Hmm.",
    "WWW and HTTP",
)


@pytest.mark.parametrize("text", NOISY)
def test_slips_are_noise(text: str) -> None:
    assert is_noisy(text)


@pytest.mark.parametrize("text", CLEAN)
def test_careful_text_is_no_noise(text: str) -> None:
    assert not is_noisy(text)


@needs_data
@pytest.mark.parametrize("language", ["en", "de", "es", "fr", "zh"])
def test_problems_of_mgsm_are_told_by_their_language(language: str) -> None:
    """Measured: 250, 248, 249, 249 and 250 of 250."""
    rows = (DATA / "mgsm" / f"mgsm_{language}.tsv").read_text("utf-8").splitlines()
    found = [language_of(row.split("\t")[0]) for row in rows if row.strip()]
    assert len(found) == 250
    assert found.count(language) >= 247


@needs_data
def test_programs_are_code_and_word_problems_are_not() -> None:
    """Measured: every MBPP program and HumanEval prompt, no GSM8K problem with its answer."""
    mbpp = [json.loads(line) for line in (DATA / "mbpp" / "mbpp.jsonl").read_text("utf-8").splitlines()]
    human = [json.loads(line) for line in (DATA / "humaneval" / "HumanEval.jsonl").read_text("utf-8").splitlines()]
    gsm = [json.loads(line) for line in (DATA / "gsm8k" / "test.jsonl").read_text("utf-8").splitlines()]
    assert sum(is_code(row["code"]) for row in mbpp) >= 0.99 * len(mbpp)
    assert sum(is_code(row["prompt"]) for row in human) >= 0.99 * len(human)
    assert sum(is_code(f"{row['question']}\n{row['answer']}") for row in gsm) <= 0.01 * len(gsm)
    assert sum(is_noisy(row["question"]) for row in gsm) <= 0.01 * len(gsm)
