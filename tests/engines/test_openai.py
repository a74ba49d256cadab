"""What is sent to a server, what its answers become, and what an engine of this kind says about itself."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from quantgate.engines import Completion, Failure, Prompt, TokenLogprobs
from quantgate.engines._openai_http import Patience
from quantgate.engines._openai_stream import Events, Malformed, Stream, Told
from quantgate.engines._openai_wire import calls_in, messages_of
from quantgate.engines._scripted_model import LIKELY, UNLIKELY, Says
from quantgate.engines._scripted_server import Fault, ScriptedServer, last
from quantgate.engines.openai import OpenAIEngine
from quantgate.errors import EngineError
from quantgate.evaluate.scorers.tool_call import called
from quantgate.records import canonical

TOOL: dict[str, JsonValue] = {
    "name": "get_weather",
    "description": "Weather",
    "parameters": {"type": "object", "properties": {}},
}
QUICK = Patience(timeout_s=5, tries=2, first_s=0.01, longest_s=0.02)


def ask(text: str = "Hello there", **more: Any) -> Prompt:
    return Prompt(turns=(("user", text),), **more)


def opened(server: ScriptedServer, **settings: Any) -> OpenAIEngine:
    engine = OpenAIEngine(server.url, **{"patience": QUICK} | settings)
    server.asked.clear()
    return engine


@pytest.fixture
def server() -> Any:
    with ScriptedServer(lambda body: last(body).upper(), timings=True) as running:
        yield running


# --- what is sent ---


def test_a_chat_is_sent_greedily_with_a_fixed_seed(server: ScriptedServer) -> None:
    opened(server).generate([ask(max_tokens=9, stop=("\n", "###"))])
    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.body == {
        "model": "scripted", "messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 9,
        "temperature": 0.0, "seed": 0, "stop": ["\n", "###"],
    }  # fmt: skip


def test_a_plain_prompt_is_one_text_for_completions(server: ScriptedServer) -> None:
    (answer,) = opened(server).generate([Prompt(turns=(("user", "a "), ("assistant", "b")), plain=True, max_tokens=5)])
    (asked,) = server.asked
    assert asked.path == "/v1/completions" and asked.body["prompt"] == "a b" and asked.body["max_tokens"] == 5
    assert isinstance(answer, Completion) and answer.text == "A B"


def test_sampling_and_more_keys_are_the_users_and_stand_in_the_identity(server: ScriptedServer) -> None:
    engine = opened(server, sampling={"temperature": 0.7, "top_p": 0.9}, body={"user": "x"})
    engine.generate([ask()])
    body = server.asked[0].body
    assert (body["temperature"], body["top_p"], body["seed"], body["user"]) == (0.7, 0.9, 0, "x")
    assert engine.identity.sampling == "seed=0 temperature=0.7 top_p=0.9"
    assert any(part.startswith("body=") for part in engine.identity.runtime)


@pytest.mark.parametrize(
    ("schemas", "sent"),
    [
        (
            "json_schema",
            {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True}},
        ),
        ("json_object", {"type": "json_object", "schema": {"type": "object"}}),
        ("none", None),
    ],
)  # fmt: skip
def test_a_schema_is_sent_as_the_server_reads_it(server: ScriptedServer, schemas: str, sent: Any) -> None:
    opened(server, schemas=schemas).generate([ask(answer_schema={"type": "object"})])
    assert server.asked[0].body.get("response_format") == sent


def test_earlier_calls_and_their_results_are_bound_by_ids() -> None:
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    turns = (("user", "Weather?"), ("assistant", "Let me see.\n" + call + call), ("tool", "18"), ("tool", "19"),
             ("assistant", '{"name": "get_weather", "arguments": {}}'), ("tool", "20"), ("user", "And?"))  # fmt: skip
    messages = messages_of(Prompt(turns=turns, tools=(TOOL,)))
    first, second = messages[1]["tool_calls"], messages[4]["tool_calls"]
    assert messages[1]["content"] == "Let me see." and messages[4]["content"] is None
    assert first[0]["function"] == {"name": "get_weather", "arguments": '{"city": "Rome"}'}
    assert [one["id"] for one in (*first, *second)] == [messages[at]["tool_call_id"] for at in (2, 3, 5)]
    assert len({one["id"] for one in (*first, *second)}) == 3
    assert all(len(one["id"]) == 9 and one["id"].isalnum() for one in (*first, *second))


def test_json_in_a_turn_stays_text_where_no_tools_are_offered() -> None:
    turns = (("user", "?"), ("assistant", '{"name": "f", "arguments": {}}'), ("tool", "1"))
    assert messages_of(Prompt(turns=turns))[1] == {"role": "assistant", "content": '{"name": "f", "arguments": {}}'}
    talk = (("user", "?"), ("assistant", "I will not."), ("user", "!"))
    assert messages_of(Prompt(turns=talk, tools=(TOOL,)))[1] == {"role": "assistant", "content": "I will not."}


# --- what comes back ---


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_has_its_text_counts_end_and_times(server: ScriptedServer, stream: bool) -> None:
    engine = opened(server, stream=stream)
    whole, cut = engine.generate([ask("a b c"), ask("a b c", max_tokens=2)])
    assert isinstance(whole, Completion) and isinstance(cut, Completion)
    assert (whole.text, whole.tokens, whole.finish) == ("A B C", 3, "stop")
    assert (cut.text, cut.tokens, cut.finish) == ("A B ", 2, "length")
    assert whole.prompt_tokens == len("<user>a b c\n<assistant>")
    assert (whole.prefill_s, whole.decode_s) == (0.02, 0.03)
    assert whole.latency_s is not None and whole.latency_s > 0
    assert (whole.ttft_s is not None and 0 < whole.ttft_s <= whole.latency_s) == stream


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", [None, Fault("no_index")])
def test_a_call_of_a_tool_is_text_that_the_scorer_reads(server: ScriptedServer, stream: bool, fault: Any) -> None:
    server.answer = lambda body: Says("Let me see.", calls=(("get_weather", '{"city": "Zürich", "days": [1, 2]}'),))
    engine = opened(server, stream=stream)
    server.next(*[fault] if fault else [])
    (answer,) = engine.generate([ask(tools=(TOOL,))])
    assert isinstance(answer, Completion) and answer.finish == "stop"
    assert called(answer.text) == ("get_weather", {"city": "Zürich", "days": [1, 2]})
    assert answer.text.startswith("Let me see.\n<tool_call>")
    assert server.asked[0].body["tools"] == [{"type": "function", "function": TOOL}]


def test_arguments_that_are_no_json_stay_as_the_model_wrote_them(server: ScriptedServer) -> None:
    server.answer = lambda body: Says(calls=(("f", '{"a": 1, "a": 2}'), ("g", '{"a": ')))
    (answer,) = opened(server).generate([ask(tools=(TOOL,))])
    assert isinstance(answer, Completion)
    assert '"arguments": {"a": 1, "a": 2}}' in answer.text and json.dumps('{"a": ') in answer.text


def test_a_refusal_of_the_model_is_its_answer(server: ScriptedServer) -> None:
    server.answer = lambda body: Says(refusal="I cannot help with that.")
    for stream in (False, True):
        (answer,) = opened(server, stream=stream).generate([ask()])
        assert isinstance(answer, Completion) and answer.text == "I cannot help with that." and answer.finish == "stop"


def test_half_a_surrogate_pair_does_not_break_the_journal(server: ScriptedServer) -> None:
    server.answer = lambda body: "ok \ud83d"
    (answer,) = opened(server).generate([ask()])
    assert isinstance(answer, Completion) and canonical(answer.body())


def test_requests_in_flight_are_bounded_and_answers_keep_their_order(server: ScriptedServer) -> None:
    engine = opened(server, concurrency=3)
    server.next(*[Fault("slow", seconds=0.05 * (at % 3)) for at in range(12)])
    answers = engine.generate([ask(f"n{at}") for at in range(12)])
    assert [one.text for one in answers] == [f"N{at}" for at in range(12)]  # type: ignore[union-attr]
    assert server.most_at_once == 3


def test_it_answers_where_a_loop_runs_already(server: ScriptedServer) -> None:
    engine = opened(server)

    async def inside() -> list[Any]:
        return engine.generate([ask("x")])

    assert asyncio.run(inside())[0].text == "X"


# --- given text: continuations and known answers, of a model that counts ---


def test_continuations_are_weighed_as_the_counting_model_would(server: ScriptedServer) -> None:
    prompt = Prompt(turns=(("user", "abc"),), plain=True, choices=("def", "dz", "x"))
    (answer,) = opened(server).generate([prompt])
    assert isinstance(answer, Completion)
    weighed = json.loads(answer.text)
    assert [greedy for _, greedy in weighed] == [True, False, False]
    wanted = [3 * LIKELY, LIKELY + UNLIKELY, UNLIKELY]
    assert all(math.isclose(one, two) for (one, _), two in zip(weighed, wanted, strict=True))


def test_known_answers_by_the_chat_template_that_the_caller_holds(server: ScriptedServer) -> None:
    def render(turns: Any) -> str:
        return "".join(f"[{role}]{content}" for role, content in turns) + ">"

    found = opened(server, render=render).answer_logprobs([("user", "count"), ("assistant", "?@x")], 3)
    assert isinstance(found, list)
    assert [(one.token, one.logprob) for one in found] == [("?", LIKELY), ("@", LIKELY), ("x", UNLIKELY)]
    assert found[0].top["?"] == LIKELY and len(found[0].top) == 3
    assert server.asked[0].body["prompt"] == "[user]count>?@x"


def test_known_answers_by_prompt_logprobs_where_the_template_is_the_servers(server: ScriptedServer) -> None:
    found = opened(server).answer_logprobs([("user", "count"), ("assistant", "?@x")], 2)
    assert isinstance(found, list) and all(isinstance(one, TokenLogprobs) for one in found)
    assert [(one.token, one.logprob) for one in found] == [("?", LIKELY), ("@", LIKELY), ("x", UNLIKELY)]
    assert set(found[2].top) == {"x", "A", "!"}  # the answer's own, and the two likeliest


def test_a_server_without_log_probabilities_says_so_once() -> None:
    with ScriptedServer(rows=False) as server:
        engine = opened(server)
        known = [("user", "a"), ("assistant", "b")]
        first = engine.answer_logprobs(known, 2)
        spent = len(server.asked)
        assert isinstance(first, Failure) and "gives no log probabilities of given text" in first.reason
        assert engine.answer_logprobs(known, 2) == first and len(server.asked) == spent
        (weighed,) = engine.generate([Prompt(turns=(("user", "a"),), plain=True, choices=("b",))])
        assert isinstance(weighed, Failure) and weighed.lost


def test_rows_that_are_not_those_of_their_tokens_are_found_out(server: ScriptedServer) -> None:
    """As llama-cpp-python 0.3.36 shifts them by one where a vocabulary has no start token."""
    engine = opened(server)
    rows = {
        "tokens": ["a", "b", "c"],
        "token_logprobs": [None, -9.0, -8.0],
        "top_logprobs": [None, {"x": -0.1}, {"y": -0.1}],
    }
    server.always = lambda _: Fault(
        "shape", value={"choices": [{"text": "", "finish_reason": "stop", "logprobs": rows}]}
    )
    (weighed,) = engine.generate([Prompt(turns=(("user", "a"),), plain=True, choices=("b",))])
    assert isinstance(weighed, Failure) and "is not the likeliest of its row" in weighed.reason


def test_ids_and_logits_are_refused_in_one_sentence(server: ScriptedServer) -> None:
    engine = opened(server)
    for call in (lambda: engine.encode([("user", "a")]), lambda: engine.logits(None)):  # type: ignore[arg-type]
        with pytest.raises(EngineError, match=r"a server of this kind gives no .*; ask for 'answer_logprobs'"):
            call()


# --- identity ---


def test_answers_of_an_undeclared_server_are_never_taken_for_those_of_a_later_one(server: ScriptedServer) -> None:
    first, second = opened(server), opened(server)
    assert first.identity.key != second.identity.key and first.declared
    assert any(part.startswith("this session only=") for part in first.identity.runtime)
    assert "its bytes were not seen" in first.sentence


def test_a_declared_revision_keeps_answers_and_another_one_or_a_swapped_model_does_not(server: ScriptedServer) -> None:
    def key(**settings: Any) -> str:
        return opened(server, revision="r1", **settings).identity.key

    first = key()
    assert key() == first
    server.next(Fault("other_model", text="swapped"))
    assert key() != first
    assert opened(server, revision="r2").identity.key != first
    assert opened(server, weights="sha256:" + "0" * 64).declared is False
    server.version = "2.0"
    assert key() != first


def test_servers_that_count_prompts_alike_have_one_template_and_others_do_not() -> None:
    with ScriptedServer() as one, ScriptedServer(models=("two",)) as two:
        first, second = opened(one).identity, opened(two).identity
        assert (first.template, first.tokenizer) == (second.template, second.tokenizer)
        two.models = ("two",)
        two.always = lambda _: Fault("no_usage")
        assert opened(two).identity.template != first.template


# --- the parser of chunks ---

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=6)


@given(pieces=TEXTS, cuts=st.lists(st.integers(1, 17), min_size=1, max_size=30), crlf=st.booleans())
def test_a_stream_reads_the_same_however_its_bytes_are_cut(pieces: list[str], cuts: list[int], crlf: bool) -> None:
    end = "\r\n" if crlf else "\n"
    chunks: list[dict[str, Any]] = [
        {"choices": [{"delta": {"content": piece}, "finish_reason": None}]} for piece in pieces
    ]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    sent = "".join(f"data: {json.dumps(one, ensure_ascii=False)}{end}{end}" for one in chunks)
    data = (f": ping{end}{end}" + sent + f"data: [DONE]{end}{end}").encode()
    events, stream, at = Events(), Stream(), 0
    for step in itertools.cycle(cuts):
        for event in events.feed(data[at : at + step]):
            stream.take(event)
        at += step
        if at >= len(data):
            break
    reply = stream.end()
    assert reply.text == "".join(pieces) and reply.over and reply.finish == "stop"


@given(st.binary(max_size=200))
def test_any_bytes_are_events_or_one_sentence(data: bytes) -> None:
    stream = Stream()
    events = Events()
    for event in [*events.feed(data), *events.end()]:
        try:
            stream.take(event)
        except (Malformed, Told) as told:
            assert "\n" not in str(told)
            return
    with pytest.raises(Malformed, match="ended before the answer did"):
        stream.end()


KEYS = ["choices", "delta", "content", "tool_calls", "function", "index", "error", "usage", "finish_reason",
        "arguments", "name", "text", "message"]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_any_json_is_a_chunk_or_one_sentence(value: Any) -> None:
    try:
        Stream().take(json.dumps(value))
    except (Malformed, Told) as told:
        assert "\n" not in str(told)


@given(st.text(max_size=60))
def test_talk_is_never_a_call(text: str) -> None:
    assert calls_in(text) == [] or '"name"' in text
