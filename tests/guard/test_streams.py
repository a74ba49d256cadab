"""What may leave of an answer in pieces: all of a good one, and of a bad one never the whole."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.guard.answers import (
    BODIES,
    Body,
    Said,
    arguments_of,
    bad,
    calling,
    content_of,
    ends,
    good,
    head,
    in_chunks,
    parses,
)

from quantgate.errors import UsageError
from quantgate.guard import Policy, validators
from quantgate.guard.admission import admit
from quantgate.guard.assembly import Assembly, Broken
from quantgate.guard.streams import StreamGuard, usable

POLICIES: tuple[Policy, ...] = ("passthrough", "holdback", "window", "buffer")
every_policy = pytest.mark.parametrize("policy", POLICIES)
USAGE = {"id": "c1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}


def guarded(guard: StreamGuard, chunks: list[Body]) -> tuple[list[Body], list[Body]]:
    """What left before the end, and with it."""
    left = [one for chunk in chunks for one in guard.feed(chunk)]
    return left, guard.end()


@every_policy
@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_good_answer_leaves_whole_however_it_is_cut(policy: Policy, data: st.DataObject) -> None:
    said = data.draw(
        st.lists(good(), min_size=1, max_size=2).filter(lambda all: len({id(s.contract) for s in all}) == 1)
    )
    lanes = [list(in_chunks(data.draw, one, index)) for index, one in enumerate(said)]
    chunks: list[Body] = []
    while any(lanes):
        chunks.append(data.draw(st.sampled_from([lane for lane in lanes if lane])).pop(0))
    guard = StreamGuard(said[0].contract, policy, window=data.draw(st.integers(1, 6)))
    before, last = guarded(guard, [*chunks, USAGE])
    assert ends(before) == []
    assert sorted(ends(last)) == sorted(one.finish for one in said)
    assert last[-1] == USAGE
    whole = Assembly()
    for chunk in [*before, *last]:
        whole.add(chunk)
    for index, one in enumerate(said):
        got = whole.drafts[index].message()
        assert (got["content"] or "") == (one.message["content"] or "")
        assert got.get("tool_calls") == one.message.get("tool_calls")


@every_policy
@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_bad_answer_never_ends_and_never_leaves_whole(policy: Policy, data: st.DataObject) -> None:
    said = data.draw(bad())
    assume(said.contract.check(said.message, said.finish) is not None)
    guard = StreamGuard(said.contract, policy, window=data.draw(st.integers(1, 6)))
    left: list[Body] = []
    with pytest.raises(Broken) as broken:
        for chunk in in_chunks(data.draw, said):
            left += guard.feed(chunk)
        left += guard.end()
    assert ends(left) == []
    assert broken.value.released == guard.released == bool(left)
    assert not parses(content_of(left))
    for at, arguments in arguments_of(left).items():
        call = {**said.message, "tool_calls": said.message["tool_calls"][at : at + 1]}
        assert not parses(arguments) or said.contract.check(call, "tool_calls") is None


@every_policy
def test_after_a_fault_nothing_leaves_any_more(policy: Policy) -> None:
    guard = StreamGuard(admit(BODIES["object"]), policy)
    with pytest.raises(Broken):
        guarded(guard, [head({"content": '{"n": "x'}), head({}, "stop")])
    for again in (lambda: guard.feed(head({"content": "}"})), guard.end):
        with pytest.raises(Broken, match="content"):
            again()


def test_what_closes_an_answer_waits_for_the_check_and_nothing_else_does() -> None:
    guard = StreamGuard(admit(BODIES["object"]), "passthrough")
    left = [len(guard.feed(head({"content": text}))) for text in ('{"s": "a}b', '", "n"', ": 1", "}", " ", "\n")]
    assert left == [1, 1, 1, 0, 0, 0]
    assert guard.feed(head({}, "stop")) == []
    assert len(guard.end()) == 4


def test_a_wrong_type_stops_the_stream_in_its_middle() -> None:
    guard = StreamGuard(admit(BODIES["object"]), "holdback")
    assert guard.feed(head({"content": '{"s": "a", "n": '}))
    with pytest.raises(Broken) as broken:
        guard.feed(head({"content": '"one'}))
    assert (broken.value.fault.kind, broken.value.released) == ("prefix", True)


def test_a_call_that_breaks_its_schema_does_not_leave_when_the_next_begins() -> None:
    tools = {"name": "pick", "parameters": {"type": "object", "properties": {"n": {"not": {"const": 8}}}}}
    contract = admit({"tools": [{"type": "function", "function": tools}]})
    said = Said(contract, calling(("pick", '{"n": 8}'), ("pick", '{"n": 14}')), "tool_calls")
    assert contract.check(said.message, "tool_calls") is not None
    guard = StreamGuard(contract, "passthrough")
    left: list[Body] = []
    with pytest.raises(Broken):
        for at, call in enumerate(said.message["tool_calls"]):
            text = call["function"]["arguments"]
            left += guard.feed(
                head({"tool_calls": [{**call, "index": at} | {"function": {"name": "pick", "arguments": text[:-1]}}]})
            )
            left += guard.feed(head({"tool_calls": [{"index": at, "function": {"arguments": text[-1]}}]}))
        left += guard.feed(head({}, "tool_calls"))
        left += guard.end()
    assert not parses(arguments_of(left)[0])


@pytest.mark.parametrize("policy", ["passthrough", "holdback"])
def test_free_text_leaves_as_the_very_object_that_came(policy: Policy) -> None:
    guard = StreamGuard(admit({}), policy)
    guard.feed(head({"role": "assistant", "content": ""}))
    chunks = [head({"content": f"word {number} "}) for number in range(5)]
    assert [guard.feed(one)[-1] is one for one in chunks] == [True] * 5
    assert guard.feed(head({}, "stop")) == []
    assert ends(guard.end()) == ["stop"]
    assert guard.assembly.drafts[0].text() == "".join(f"word {number} " for number in range(5))


def test_nothing_leaves_before_the_first_content_under_holdback() -> None:
    guard = StreamGuard(admit({}), "holdback")
    first = [head({"role": "assistant", "content": ""}), {"id": "c1", "choices": []}, head({"content": ""})]
    assert [guard.feed(one) for one in first] == [[], [], []]
    assert not guard.released
    left = guard.feed(head({"content": "Hi"}))
    assert guard.released
    assert len(left) == 4
    assert content_of(left) == "Hi"


def test_a_window_holds_back_its_newest_pieces() -> None:
    guard = StreamGuard(admit({}), "window", window=3)
    left = [content_of(guard.feed(head({"content": sign}))) for sign in "abcdef"]
    assert left == ["", "", "", "a", "b", "c"]


def test_a_window_holds_back_as_much_as_a_validator_looks_back() -> None:
    words = {"patterns": [{"pattern": "sesame +open", "example": "sesame open"}], "reach": 32}
    guard = StreamGuard(admit({}), "window", window=1, validators=validators.build({"forbidden": words}, canary=False))
    left: list[Body] = []
    with pytest.raises(Broken) as broken:
        for sign in "The door says: sesame" + " " * 15 + "open, and then some more":
            left += guard.feed(head({"content": sign}))
    assert broken.value.fault.validator == "forbidden"
    assert content_of(left) == "The door"[: len(content_of(left))]
    assert "sesame" not in content_of(left)


@pytest.mark.parametrize(
    ("chunks", "kind"),
    [
        ([], "empty"),
        ([USAGE], "empty"),
        ([head({"content": "Hi"})], "malformed"),
        ([head({"content": "Hi"}), head({}, "stop"), head({"content": "more"})], "malformed"),
        ([head({"content": "Hi"}), head({}, "stop"), head({}, "stop")], "malformed"),
        ([head({"content": 5})], "malformed"),
        ([head({"function_call": {"name": "f", "arguments": ""}})], "malformed"),
        ([{"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}], "malformed"),
        ([{"choices": {"0": {}}}], "malformed"),
        ([{"error": {"message": "out of memory"}}], "malformed"),
        ([head({"content": "Hi"}), head({"content": "Hi"}) | {"error": {"message": "out of memory"}}], "malformed"),
        ([{"choices": [None]}], "malformed"),
        ([head({"content": "Hi"}, index=-1)], "malformed"),
        ([head({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})], "malformed"),
        ([head({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]})], "unknown_tool"),
        ([head({"content": "x" * 151})], "malformed"),
    ],
)
@every_policy
def test_a_stream_that_is_none_is_a_fault(policy: Policy, chunks: list[Body], kind: str) -> None:
    guard = StreamGuard(admit({}), policy, max_chars=150)
    with pytest.raises(Broken) as broken:
        guarded(guard, [*chunks, head({}, "tool_calls")] if kind == "unknown_tool" else chunks)
    assert broken.value.fault.kind == kind


def test_long_answers_stop_on_the_short_way_too() -> None:
    guard = StreamGuard(admit({}), "passthrough", max_chars=100)
    with pytest.raises(Broken, match="longer than any answer"):
        for _ in range(30):
            guard.feed(head({"content": "abcd"}))


@every_policy
@pytest.mark.parametrize("chunk", [head({}), head({"content": ""}), {"choices": []}, head({"content": ""}, index=1)])
def test_empty_chunks_without_end_stop_too(policy: Policy, chunk: Body) -> None:
    guard = StreamGuard(admit({}), policy, max_chars=1000)
    with pytest.raises(Broken, match="longer than any answer"):
        for _ in range(1000):
            guard.feed(chunk)


@every_policy
def test_blanks_without_end_stop_a_structured_answer(policy: Policy) -> None:
    guard = StreamGuard(admit(BODIES["any object"]), policy)
    guard.feed(head({"content": '{"a":'}))
    with pytest.raises(Broken) as broken:
        for _ in range(100):
            guard.feed(head({"content": "    "}))
        guard.feed(head({}, "stop"))
        guard.end()
    assert broken.value.fault.kind == ("not_json" if policy == "buffer" else "whitespace")  # or told at its end


@every_policy
def test_blanks_within_a_string_are_the_answers_own_affair(policy: Policy) -> None:
    guard = StreamGuard(admit(BODIES["any object"]), policy)
    chunks = [head({"content": text}) for text in ('{"a": "\\"', *["     "] * 100, '"', "}")]
    before, last = guarded(guard, [*chunks, head({}, "stop")])
    assert parses(content_of([*before, *last]))


def test_a_stricter_policy_is_taken_where_the_asked_one_would_disable_a_guard() -> None:
    whole = validators.build({"language": {}}, canary=False)
    late = validators.build({"secrets": {}}, canary=False)
    assert [StreamGuard(admit({}), one, validators=whole).policy for one in POLICIES] == ["buffer"] * 4
    assert [StreamGuard(admit({}), one, validators=late).policy for one in POLICIES] == ["window"] * 3 + ["buffer"]
    assert [StreamGuard(admit({}), one, validators=late).forced for one in POLICIES] == [True, True, False, False]


class Blind:
    """A contract whose schema is beyond a check of prefixes."""

    structured, checks_prefixes = True, False

    def __getattr__(self, name: str) -> Any:
        return getattr(admit(BODIES["object"]), name)


def test_an_answer_whose_beginnings_cannot_be_checked_is_buffered() -> None:
    guard = StreamGuard(Blind(), "passthrough")
    assert guard.forced
    assert guard.feed(head({"content": '{"n": 1}'})) == guard.feed(head({}, "stop")) == []
    assert content_of(guard.end()) == '{"n": 1}'


@pytest.mark.parametrize(
    ("policy", "more", "sentence"),
    [
        ("pass", {}, "unknown policy 'pass'"),
        ("holdback", {"validators": {"language": {}}}, "before 'language' can judge the whole answer; choose buffer"),
        ("window", {"validators": {"refusal": {}}}, "choose buffer"),
        ("passthrough", {"validators": {"secrets": {}}}, "has left before it is found; choose window or buffer"),
        ("passthrough", {"confirm": True}, "before a person has approved it"),
        ("window", {"window": 0}, "holds nothing back"),
    ],
)
def test_settings_that_would_disable_a_guard_are_refused(policy: str, more: dict[str, Any], sentence: str) -> None:
    if "validators" in more:
        more["validators"] = validators.build(more["validators"], canary=False)
    with pytest.raises(UsageError, match=sentence):
        usable(policy, where="routes.chat", **more)


def test_settings_that_guard_are_taken() -> None:
    for policy in POLICIES:
        usable(policy, validators=validators.build({"degenerate": {}}, canary=False))
    usable("buffer", validators=validators.build({"language": {}, "secrets": {}}, canary=True), confirm=True)


def test_held_tool_calls_are_told_in_their_place() -> None:
    def hold(message: Body) -> Body | None:
        return {"role": "assistant", "content": f"{message['content']}\n\nwaits", "quantgate": {"id": 1}}

    guard = StreamGuard(admit(BODIES["tools"]), "holdback", hold=hold)
    call = {"index": 0, "id": "a", "function": {"name": "stop", "arguments": "{}"}}
    chunks = [
        head({"content": "I will "}),
        head({"content": "stop."}),
        head({"tool_calls": [call]}),
        head({}, "tool_calls"),
    ]
    before, last = guarded(guard, chunks)
    assert content_of(before) == "I will stop."
    assert content_of(last) == "\n\nwaits"
    assert ends(last) == ["stop"]
    assert arguments_of([*before, *last]) == {}
    assert [one["choices"][0]["delta"].get("quantgate") for one in last] == [{"id": 1}, None]


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats()
    | st.sampled_from(["", "stop", "f", "{}", "Hi", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["content", "tool_calls", "index", "id", "function", "name", "arguments", "delta", "refusal"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def with_junk(chunk: Any, draw: Any) -> Any:
    """The chunk with one of its values replaced by anything."""
    if isinstance(chunk, dict) and chunk and draw(st.integers(0, 4)):
        key = "choices" if "choices" in chunk else draw(st.sampled_from(sorted(chunk)))
        return chunk | {key: with_junk(chunk[key], draw)}
    if isinstance(chunk, list) and chunk and draw(st.integers(0, 4)):
        return [with_junk(chunk[0], draw), *chunk[1:]]
    return draw(JUNK)


@every_policy
@given(st.data())
@settings(max_examples=200, deadline=None)
def test_junk_is_a_fault_or_kept_and_nothing_else(policy: Policy, data: st.DataObject) -> None:
    said = data.draw(good())
    chunks = list(in_chunks(data.draw, said))
    at = data.draw(st.integers(0, len(chunks) - 1))
    chunks[at] = with_junk(chunks[at], data.draw)
    guard = StreamGuard(said.contract, policy)
    try:
        before, last = guarded(guard, chunks)
    except Broken:
        return
    whole = Assembly()
    for chunk in [*before, *last]:
        whole.add(chunk)
    for draft in whole.drafts.values():
        assert said.contract.check(draft.message(), draft.finish) is None
