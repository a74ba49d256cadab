"""Reading traffic: every form that is promised, every broken line by its number, any size in little memory."""

from __future__ import annotations

import gzip
import json
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.calibrate import Rules, select
from quantgate.calibrate.conversation import conversation
from quantgate.calibrate.traffic import LONGEST_LINE, Place, fetch, lines
from quantgate.errors import DataError

WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather"}, {"type": "text", "text": "in Oslo?"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ],
    "tools": [{"type": "function", "function": WEATHER}],
    "response_format": {"type": "json_object"},
    "temperature": 0,
}
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "It rains."}, "finish_reason": "stop"}]}


def test_a_chat_request_keeps_tools_calls_and_the_form_that_was_asked_for() -> None:
    read = conversation(CHAT)
    assert read.turns == (
        ("system", "Be brief."),
        ("user", "Weather\nin Oslo?"),
        ("assistant", '{"name": "weather", "arguments": {"city": "Oslo"}}'),
        ("tool", "rain"),
    )
    assert read.functions == ("weather",)
    assert read.tools[0]["function"] == WEATHER
    assert read.response_format == {"type": "json_object"}
    assert conversation(read.body()) == read


def test_an_exchange_is_the_request_and_its_first_answer() -> None:
    read = conversation({"request": CHAT, "response": ANSWER, "id": "x", "status": 200})
    assert read.turns[:-1] == conversation(CHAT).turns
    assert read.turns[-1] == ("assistant", "It rains.")
    failed = conversation({"request": CHAT, "response": {"error": {"message": "overloaded"}}})
    assert failed == conversation(CHAT)
    text = conversation({"request": {"prompt": "Once"}, "response": {"choices": [{"text": " upon"}]}})
    assert text.turns == (("user", "Once"), ("assistant", " upon"))


def test_prompts_refusals_and_older_calls_are_read() -> None:
    assert conversation("Hello").turns == (("user", "Hello"),)
    refused = {"role": "assistant", "content": None, "refusal": "I can't."}
    assert conversation({"messages": [{"role": "user", "content": "q"}, refused]}).turns[-1][1] == "I can't."
    old = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "not json"}}
    read = conversation({"messages": [{"role": "user", "content": "q"}, old], "functions": [{"name": "f"}]})
    assert read.turns[-1][1] == '{"name": "f", "arguments": "not json"}'
    assert read.functions == ("f",)


WRONG = {
    "found a part of type 'image_url'": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
    "found a part of no known type": {"messages": [{"role": "user", "content": [{"type": "sk-" + "a" * 40}]}]},
    "one piece of a stream": {"request": CHAT, "response": {"choices": [{"delta": {"content": "It"}}]}},
    "'response' holds no 'choices'": {"request": CHAT, "response": {"text": "It rains."}},
    "'tools' is not a list": {**CHAT, "tools": {}},
    "a tool has no function with a name": {**CHAT, "tools": [{"type": "function"}]},
    "'response_format' has no type": {**CHAT, "response_format": "json"},
    "a call of a tool names no function": {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [{"id": "c"}]}]
    },
}


@pytest.mark.parametrize("told", WRONG)
def test_what_is_no_conversation_is_told_and_not_guessed_at(told: str) -> None:
    with pytest.raises(DataError, match=told):
        conversation(WRONG[told])


def test_broken_lines_are_numbered_and_the_others_are_read(write: Any) -> None:
    path = write([CHAT, b'{"messages": [', b"", "p", b'{"prompt": "caf\xe9"}', b'{"prompt": NaN}', b"[" * 100_000])
    read = list(lines([path]))
    assert [line.place.number for line in read] == [1, 2, 4, 5, 6, 7]
    assert [bool(line.conversation) for line in read] == [True, False, True, False, False, False]
    assert "not valid JSON" in read[1].problem
    assert "not UTF-8" in read[3].problem
    assert "NaN is not JSON" in read[4].problem
    assert "nested too deep" in read[5].problem


@given(st.data())
def test_a_line_is_read_or_told_whatever_happened_to_its_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Flip, cut or insert bytes anywhere: there is a conversation or a sentence for every line, and no other error."""
    raw = bytearray(json.dumps(CHAT).encode())
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=6)):
        raw[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != 10))
    raw = raw[: data.draw(st.integers(1, len(raw)))]
    path = tmp_path_factory.mktemp("mutated") / "t.jsonl"
    path.write_bytes(bytes(raw) + b'\n{"prompt": "after"}\n')
    read = list(lines([path]))
    assert read[-1].conversation is not None
    assert read[-1].conversation.turns == (("user", "after"),)
    assert all((line.conversation is None) == bool(line.problem) for line in read)


def test_packed_files_read_as_plain_ones_and_places_find_their_lines_again(write: Any) -> None:
    rows = [{"prompt": f"question {at} " * (at % 7 + 1)} for at in range(500)]
    plain, packed = write(rows), write(rows, "more.jsonl.gz")
    read = list(lines([plain, packed]))
    assert [line.conversation for line in read[:500]] == [line.conversation for line in read[500:]]
    some = [read[at].place for at in (3, 499, 500, 777, 999)]
    found = dict(fetch([plain, packed], reversed(some)))
    assert [found[place] for place in some] == [read[at].conversation for at in (3, 499, 500, 777, 999)]


def test_progress_counts_the_bytes_on_disk(write: Any) -> None:
    seen: list[tuple[int, int]] = []
    paths = [write(["a b c"] * 1000), write(["a b c"] * 1000, "b.jsonl.gz")]
    for _ in lines(paths, lambda done, total: seen.append((done, total))):
        pass
    size = sum(path.stat().st_size for path in paths)
    assert seen[-1] == (size, size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_packed_file_that_was_cut_off_is_refused(write: Any) -> None:
    path = write([{"prompt": f"question {at * at}"} for at in range(2000)], "t.jsonl.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="end too early, lines are missing"):
        list(lines([path]))
    path.write_bytes(whole[:100] + bytes(50) + whole[150:])
    with pytest.raises(DataError, match="damaged"):
        list(lines([path]))
    path.write_bytes(b"plain text")
    with pytest.raises(DataError, match="damaged"):
        list(lines([path]))


def test_two_hundred_thousand_lines_stream_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        for at in range(200_000):
            file.write(f'{{"prompt": "question {at}: {"x" * 200}"}}\n')
    tracemalloc.start()
    try:
        count = sum(line.conversation is not None for line in lines([path]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 200_000
    assert peak < 4 << 20


def test_a_line_of_any_length_is_never_whole_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantgate.calibrate.traffic.LONGEST_LINE", 1 << 16)
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'"' + b"x" * (8 << 20) + b'"\n"after"\n')
    tracemalloc.start()
    try:
        read = list(lines([path]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [bool(line.conversation) for line in read] == [False, True]
    assert "longer than" in read[0].problem
    assert peak < 1 << 20
    assert LONGEST_LINE == 64 << 20


def test_a_pipe_is_read_like_a_file(small: Any, write: Any, tmp_path: Path) -> None:
    path, pipe = write([CHAT, "second question"]), tmp_path / "pipe" / "traffic.jsonl"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    feeding = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    feeding.start()
    found = select(small, [pipe], Rules(2))
    feeding.join()
    assert found == select(small, [path], Rules(2))


def test_a_file_that_changed_in_between_is_refused(write: Any) -> None:
    path = write([b'{"prompt": "a"}', b'{"prompt": "b"}'])
    place = list(lines([path]))[1].place
    path.write_bytes(b"short\n")
    with pytest.raises(DataError, match="the file was changed while it was read"):
        list(fetch([path], [place, Place(0, 1, 0)]))
