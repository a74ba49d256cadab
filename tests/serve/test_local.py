"""An engine of this process behind the gateway: the same answers as ``generate``, several at once, ended when told."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import jsonschema_rs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantgate.engines import Completion, Prompt
from quantgate.engines._kept import Keep
from quantgate.engines._seats import Seat, TorchSeats
from quantgate.engines.torch import TorchEngine, open_engine
from quantgate.errors import EngineError
from quantgate.evaluate import suites
from quantgate.evaluate.answers import prompt_of
from quantgate.models import REFERENCE, open_model
from quantgate.models.random import save_random
from quantgate.quantize import Recipe, baseline
from quantgate.quantize.sweep import sweep
from quantgate.serve import Reply, UpstreamFault
from quantgate.serve.upstreams._forms import call_schema
from quantgate.serve.upstreams._local_ask import DONE, IGNORED, asked, turns_of
from quantgate.serve.upstreams._local_said import Said
from quantgate.serve.upstreams.local import LocalUpstream
from quantgate.serve.upstreams.opening import open_engine as open_here

GENEROUS = 120.0  # seconds that a busy machine may take for anything here
LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"type": "object", "properties": {"at": {"enum": ["sun", "moon"]}}, "required": ["at"],
                       "additionalProperties": False},
    },
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small networks wait longer for a second thread than it saves, on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: Any) -> Any:
    folder = tmp_path_factory.mktemp("local") / "tiny"
    return open_model(save_random(folder, feed_forward=256, tied=False, max_position_embeddings=1024))


class Gated(TorchEngine):
    """Waits for leave before each token after the first, and counts them."""

    def __init__(self, model: Any, leave: int = 100_000) -> None:
        super().__init__(model, baseline(model), dtype="float32")
        self.gate, self.fed, self.broken = threading.Semaphore(leave), 0, False

    def seats(self, keep: Keep, at_once: int) -> Any:
        return GatedSeats(super().seats(keep, at_once), self)


class GatedSeats:
    def __init__(self, seats: TorchSeats, engine: Gated) -> None:
        self.seats, self.engine = seats, engine

    def sit(self, ids: Sequence[int], most: int) -> Seat:
        seat: Any = self.seats.sit(ids, most)
        feed = seat.feed

        def gated(token: int) -> Any:
            assert self.engine.gate.acquire(timeout=GENEROUS)
            self.engine.fed += 1
            if self.engine.broken:
                raise MemoryError("no room")
            return feed(token)

        seat.feed = gated
        return cast(Seat, seat)


def chat(text: str, max_tokens: int = 8, **more: Any) -> dict[str, Any]:
    """Without an end of its own, so that the length of every answer is known."""
    messages = [{"role": "user", "content": text}]
    return {"model": "m", "messages": messages, "max_tokens": max_tokens, "logit_bias": {"256": -100}, **more}


@asynccontextmanager
async def opened(open: Callable[[], Any], **settings: Any) -> AsyncIterator[LocalUpstream]:
    upstream = LocalUpstream(open, name="variant", **settings)
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.close()


async def text_of(upstream: LocalUpstream, body: dict[str, Any]) -> str:
    reply: Reply = await upstream.ask(body, timeout_s=GENEROUS)
    return str(reply.body["choices"][0]["message"]["content"])


async def fault_of(upstream: LocalUpstream, body: dict[str, Any]) -> UpstreamFault:
    with pytest.raises(UpstreamFault) as caught:
        await upstream.ask(body, timeout_s=GENEROUS)
    return caught.value


# --- the same answers as the ones that were judged ---


@pytest.fixture(scope="module")
def reference(tmp_path_factory: Any) -> dict[str, TorchEngine]:
    model = open_model(REFERENCE)
    [made] = sweep(model, [[3] * 32], [Recipe(scheme="W4A16", method="rtn")], tmp_path_factory.mktemp("w4"))
    return {"baseline": open_engine(model, baseline(model)), "W4A16": open_engine(model, made)}


@pytest.mark.parametrize("variant", ["baseline", "W4A16"])
def test_answers_are_those_that_evaluation_judges(variant: str, reference: dict[str, TorchEngine]) -> None:
    engine = reference[variant]
    cases = [case for name in suites.names() for case in suites.cases(name, "tune", 1)]
    prompts = [Prompt.model_validate({**prompt_of(case).model_dump(), "max_tokens": 12}) for case in cases]
    want = [engine.generate([prompt])[0] for prompt in prompts]

    async def answers() -> list[Reply]:
        async with opened(lambda: engine, at_once=2, keep=Keep(conversations=0)) as upstream:
            bodies = [
                {
                    "messages": [{"role": role, "content": text} for role, text in prompt.turns],
                    "max_tokens": prompt.max_tokens,
                    "stop": list(prompt.stop),
                }
                for prompt in prompts
            ]
            return await asyncio.gather(*(upstream.ask(body, timeout_s=GENEROUS) for body in bodies))

    assert len(cases) >= 8  # one of each suite, long contexts too
    for reply, judged in zip(asyncio.run(answers()), want, strict=True):
        assert isinstance(judged, Completion)
        choice, usage = reply.body["choices"][0], reply.body["usage"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (judged.text, judged.finish)
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (judged.prompt_tokens, judged.tokens)


def test_the_answer_tells_who_gave_it_and_how_long_each_stage_took(tiny: Any) -> None:
    async def run() -> None:
        engine = Gated(tiny)
        async with opened(lambda: engine) as upstream:
            assert await upstream.ready() == engine.identity.weights
            reply = await upstream.ask(chat("Hello again, and again"), timeout_s=None)
            assert reply.body["system_fingerprint"] in engine.identity.weights
            assert reply.body["model"] == "variant"
            assert set(reply.stages) == {"queue", "context", "cache", "prefill", "decode"}
            assert all(took >= 0 for took in reply.stages.values())
            assert json.loads(reply.raw) == reply.body
            again = await upstream.ask(chat("Hello again, and again"), timeout_s=None)
            assert again.body["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
            assert again.body["choices"] == reply.body["choices"]

    asyncio.run(run())


def test_a_stream_is_the_whole_answer_in_pieces_and_ends_with_usage(tiny: Any) -> None:
    async def run() -> None:
        async with opened(lambda: Gated(tiny)) as upstream:
            body = chat("Hello", 30, logprobs=True, top_logprobs=2)
            whole = (await upstream.ask(body, timeout_s=None)).body
            chunks = [chunk async for chunk in upstream.stream(body, timeout_s=GENEROUS)]
        *parts, last = [chunk.body for chunk in chunks]
        texts = [one["choices"][0]["delta"].get("content", "") for one in parts]
        assert "".join(texts) == whole["choices"][0]["message"]["content"]
        assert [one["choices"][0]["finish_reason"] for one in parts] == [None] * (len(parts) - 1) + ["length"]
        assert [one["choices"][0]["delta"].get("role") for one in parts] == ["assistant"] + [None] * (len(parts) - 1)
        rows = [row for one in parts for row in (one["choices"][0]["logprobs"] or {"content": []})["content"]]
        assert rows == whole["choices"][0]["logprobs"]["content"]
        assert len(rows) == 30 and all(len(row["top_logprobs"]) == 2 for row in rows)
        assert last["choices"] == [] and last["usage"]["completion_tokens"] == 30
        assert set(last["quantgate"]["stages"]) >= {"queue", "prefill", "decode"}
        assert b"quantgate" not in chunks[-1].raw
        assert all(json.loads(chunk.raw.removeprefix(b"data: ")) == chunk.body for chunk in chunks[:-1])
        assert len({one["id"] for one in [*parts, last]}) == 1

    asyncio.run(run())


# --- several at once ---


def test_a_short_answer_does_not_wait_for_a_long_one(tiny: Any) -> None:
    async def run() -> list[str]:
        ended = list[str]()

        async def one(upstream: LocalUpstream, name: str, tokens: int) -> None:
            await upstream.ask(chat(name, tokens), timeout_s=None)
            ended.append(name)

        async with opened(lambda: Gated(tiny), at_once=2) as upstream:
            long = asyncio.create_task(one(upstream, "long", 200))
            await asyncio.sleep(0)
            await asyncio.gather(long, *(one(upstream, f"short {at}", 2) for at in range(4)))
        return ended

    assert asyncio.run(run())[-1] == "long"


def test_answers_at_once_are_the_answers_one_by_one(tiny: Any) -> None:
    async def run() -> None:
        bodies = [chat("x" * at, 12) for at in range(1, 9)]
        async with opened(lambda: Gated(tiny), at_once=3) as upstream:
            alone = [await text_of(upstream, body) for body in bodies]
            assert await asyncio.gather(*(text_of(upstream, body) for body in bodies)) == alone

    asyncio.run(run())


def test_more_than_may_wait_are_turned_away_and_the_others_answered(tiny: Any) -> None:
    async def run() -> None:
        engine = Gated(tiny, leave=0)
        async with opened(lambda: engine, at_once=1, waiting=1) as upstream:
            asks = [asyncio.create_task(text_of(upstream, chat("Hi", 4))) for _ in range(2)]
            await asyncio.sleep(0)
            fault = await fault_of(upstream, chat("Hi", 4))
            assert (fault.kind, fault.status) == ("overloaded", 503)
            engine.gate.release(1000)
            assert len(set(await asyncio.gather(*asks))) == 1

    asyncio.run(run())


# --- the end of the work ---


def test_a_stream_that_is_left_ends_within_a_token(tiny: Any) -> None:
    async def run() -> int:
        engine = Gated(tiny, leave=3)
        async with opened(lambda: engine, at_once=1) as upstream:
            stream = upstream.stream(chat("Hi", 200, logprobs=True), timeout_s=GENEROUS)
            async with aclosing(stream):
                for _ in range(4):
                    await anext(stream)
            engine.gate.release(1000)
            await text_of(upstream, chat("Next", 1))  # one token: read from the prompt, not fed
        return engine.fed

    assert asyncio.run(run()) <= 4  # three, and the one that was being written


def test_a_call_that_is_cancelled_or_late_ends_the_work(tiny: Any) -> None:
    async def run() -> int:
        engine = Gated(tiny, leave=0)
        async with opened(lambda: engine, at_once=1) as upstream:
            call = asyncio.create_task(text_of(upstream, chat("Hi", 200)))
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            with pytest.raises(UpstreamFault, match=r"within 0\.05 s") as late:
                await upstream.ask(chat("Hi", 200), timeout_s=0.05)
            assert (late.value.kind, late.value.status) == ("timeout", 504)
            with pytest.raises(UpstreamFault, match=r"within 0\.05 s"):
                async for _ in upstream.stream(chat("Hi", 200), timeout_s=0.05):
                    pass
            engine.gate.release(1000)
            await text_of(upstream, chat("Next", 1))
        return engine.fed

    assert asyncio.run(run()) <= 3


def test_closing_cuts_what_is_not_finished(tiny: Any) -> None:
    async def run() -> None:
        engine = Gated(tiny, leave=1)
        async with opened(lambda: engine, at_once=1) as upstream:
            stream = upstream.stream(chat("Hi", 200, logprobs=True), timeout_s=GENEROUS)
            await anext(stream)
            waiting = asyncio.create_task(text_of(upstream, chat("Hi", 2)))
            await asyncio.sleep(0)
            closing = asyncio.create_task(upstream.close())
            await asyncio.sleep(0)
            engine.gate.release(1000)
            await closing
            with pytest.raises(UpstreamFault) as cut:
                async for _ in stream:
                    pass
            assert cut.value.kind == "cut"
            with pytest.raises(UpstreamFault):
                await waiting
            assert (await fault_of(upstream, chat("Hi"))).kind == "refused"

    asyncio.run(run())


def test_an_engine_that_fails_at_one_answer_goes_on_with_the_next(tiny: Any) -> None:
    async def run() -> None:
        engine = Gated(tiny)
        async with opened(lambda: engine) as upstream:
            want = await text_of(upstream, chat("Hi", 5))
            engine.broken = True
            fault = await fault_of(upstream, chat("Hi", 5))
            assert (fault.kind, str(fault)) == ("error_event", "the engine of this process failed: MemoryError")
            engine.broken = False
            assert await text_of(upstream, chat("Hi", 5)) == want

    asyncio.run(run())


def test_what_cannot_be_opened_is_told_at_the_start(tiny: Any, tmp_path: Any) -> None:
    def fails() -> Any:
        raise EngineError("no such thing")

    def untold() -> Any:
        folder = save_random(tmp_path / "untold")
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        del settings["chat_template"]
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        model = open_model(folder)
        return open_engine(model, baseline(model))

    async def run() -> None:
        for open, said in ((fails, "no such thing"), (untold, "no chat template")):
            upstream = LocalUpstream(open, name="x")
            assert await upstream.ready() is None
            assert (await fault_of(upstream, chat("Hi"))).status == 503
            with pytest.raises(EngineError, match=said):
                await upstream.start()

    asyncio.run(run())


# --- what is refused ---


@pytest.mark.parametrize(
    ("more", "code", "param"),
    [
        ({"messages": [{"role": "user", "content": "x" * 1100}]}, "context_length_exceeded", "messages"),
        ({"max_tokens": 1023}, "context_length_exceeded", "messages"),
        ({"n": 2}, "unsupported_parameter", "n"),
        ({"audio": {}}, "unsupported_parameter", "audio"),
        ({"modalities": ["audio"]}, "unsupported_parameter", "modalities"),
        ({"functions": []}, "unsupported_parameter", "functions"),
        ({"chat_template_kwargs": {}}, "unsupported_parameter", "chat_template_kwargs"),
        ({"logit_bias": {"99999": 1}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {"the": 1}}, "invalid_value", "logit_bias"),
        ({"top_k": "many"}, "invalid_value", "top_k"),
        ({"min_p": 2}, "invalid_value", "min_p"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "unsupported_parameter", "tools[0].type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "unsupported_parameter",
            "messages[0].content[0]",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(tiny: Any, more: dict[str, Any], code: str, param: str) -> None:
    async def run() -> UpstreamFault:
        async with opened(lambda: Gated(tiny)) as upstream:
            return await fault_of(upstream, {**chat("Hi"), **more})

    fault = asyncio.run(run())
    assert (fault.kind, fault.status) == ("status", 400)
    assert fault.body is not None
    assert (fault.body["error"]["code"], fault.body["error"]["param"]) == (code, param)


def test_the_page_names_every_key_that_is_taken() -> None:
    page = (Path(__file__).parents[2] / "docs" / "embedded.md").read_text(encoding="utf-8")
    table = page.split("## What a request may ask")[1].split("## A schema")[0]
    untold = {"model", "stream", "stream_options", "modalities"}  # every client sends them
    assert {key for key in (DONE | IGNORED) - untold if f"`{key}`" not in table} == set()


def test_what_changes_no_answer_is_ignored(tiny: Any) -> None:
    async def run() -> None:
        async with opened(lambda: Gated(tiny)) as upstream:
            want = await text_of(upstream, chat("Hi"))
            told = chat("Hi", user="u", metadata={"a": "b"}, store=True, seed=None, parallel_tool_calls=False)
            assert await text_of(upstream, told) == want

    asyncio.run(run())


# --- forms and calls ---


SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "array", "items": {"type": "boolean"},
                   "maxItems": 2}},
    "required": ["city", "days"], "additionalProperties": False,
}  # fmt: skip


def test_a_schema_holds_every_answer_of_a_model_that_writes_at_random(tiny: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}}

    async def run() -> list[dict[str, Any]]:
        async with opened(lambda: Gated(tiny)) as upstream:
            bodies = [chat("Hi", 200, response_format=form, temperature=1.0, seed=seed) for seed in range(6)]
            return [(await upstream.ask(body, timeout_s=None)).body["choices"][0] for body in bodies]

    found = asyncio.run(run())
    assert {choice["finish_reason"] for choice in found} == {"stop"}
    read = [json.loads(choice["message"]["content"]) for choice in found]
    assert all(jsonschema_rs.is_valid(SCHEMA, one) for one in read)
    assert len({json.dumps(one) for one in read}) > 1


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look"}}])
def test_a_call_that_must_come_comes(tiny: Any, choice: Any) -> None:
    async def run() -> tuple[dict[str, Any], list[dict[str, Any]]]:
        async with opened(lambda: Gated(tiny)) as upstream:
            body = chat("Hi", 500, tools=[LOOK], tool_choice=choice)
            whole = (await upstream.ask(body, timeout_s=None)).body["choices"][0]
            return whole, [chunk.body async for chunk in upstream.stream(body, timeout_s=None)]

    whole, chunks = asyncio.run(run())
    [call] = whole["message"]["tool_calls"]
    assert (whole["finish_reason"], whole["message"]["content"]) == ("tool_calls", None)
    assert call["function"]["name"] == "look"
    assert json.loads(call["function"]["arguments"])["at"] in ("sun", "moon")
    pieces = [one for chunk in chunks for choice in chunk["choices"] for one in choice["delta"].get("tool_calls", ())]
    assert [(one["index"], one["function"]) for one in pieces] == [(0, call["function"])]
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_gguf_file_answers_through_llama_cpp_and_keeps_a_schema(tmp_path: Any) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (quantgate[gguf])")
    pytest.importorskip("gguf", reason="the package 'gguf' is not installed (quantgate[gguf])")
    from quantgate.quantize.gguf import make_gguf

    model = open_model(REFERENCE)
    file = str(make_gguf(model, tmp_path / "r-Q8_0.gguf", "Q8_0").path)
    form = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}}
    question = {"messages": [{"role": "user", "content": "What is 17 + 25?"}], "max_tokens": 12}

    async def run() -> None:
        engine = open_here(model, file, threads=1)
        want = engine.generate([Prompt(turns=(("user", "What is 17 + 25?"),), max_tokens=12)])[0].text
        async with opened(lambda: engine, at_once=2) as upstream:
            held = {**question, "response_format": form, "max_tokens": 300}
            bodies = [question, held, question]
            texts = await asyncio.gather(*(text_of(upstream, body) for body in bodies))
            assert [texts[0], texts[2]] == [want, want]
            assert jsonschema_rs.is_valid(SCHEMA, json.loads(texts[1]))
            assert await upstream.ready() == engine.identity.weights

    asyncio.run(run())


def test_a_folder_of_ours_is_opened_by_what_it_holds(tmp_path: Any) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (quantgate[gguf])")
    pytest.importorskip("gguf", reason="the package 'gguf' is not installed (quantgate[gguf])")
    model = open_model(REFERENCE)
    recipes = [Recipe(scheme="W4A16", method="rtn"), Recipe(scheme="Q4_K_M", method="rtn")]
    made = sweep(model, [[3] * 32], recipes, tmp_path)
    opened = [open_here(model, str(one.path)).identity for one in made]
    assert [one.engine for one in opened] == ["torch", "llamacpp"]
    assert [one.weights for one in opened] == [one.manifest.digest for one in made]


def test_without_constraint_a_schema_is_left_to_the_checks(tiny: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}}

    async def run() -> None:
        async with opened(lambda: Gated(tiny), constrain=False) as upstream:
            assert await text_of(upstream, chat("Hi", response_format=form)) == await text_of(upstream, chat("Hi"))

    asyncio.run(run())


def test_definitions_of_a_tool_are_found_from_the_root() -> None:
    parameters = {"type": "object", "properties": {"at": {"$ref": "#/$defs/Place"}}, "required": ["at"],
                  "$defs": {"Place": {"enum": ["sun"]}}}  # fmt: skip
    schema = call_schema([{"name": "look", "parameters": parameters}, {"name": "wait"}])
    assert jsonschema_rs.is_valid(schema, {"name": "look", "arguments": {"at": "sun"}})
    assert not jsonschema_rs.is_valid(schema, {"name": "look", "arguments": {"at": "mars"}})
    assert jsonschema_rs.is_valid(schema, {"name": "wait", "arguments": {}})
    assert not jsonschema_rs.is_valid(schema, {"name": "fly", "arguments": {}})


CALL = '{"name":"look","arguments":{"at":"sun"}}'


def said(text: str, cuts: Sequence[int] = (), tools: bool = True) -> tuple[str, list[Any]]:
    heard = Said(tools)
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    content = "".join(heard.push(text[one:next]) for one, next in pairwise(edges)) + heard.end()
    return content, [json.loads(call["function"]["arguments"]) for call in heard.calls]


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (CALL, "", [{"at": "sun"}]),
        (f"\n{CALL}", "", [{"at": "sun"}]),
        (f"<tool_call>{CALL}</tool_call>", "", [{"at": "sun"}]),
        (f"I look. <tool_call>\n{CALL}\n</tool_call>\n<tool_call>{CALL}</tool_call>", "I look. ", [{"at": "sun"}] * 2),
        ("no_tool", "no_tool", []),
        ('{"name":"look"}', '{"name":"look"}', []),
        ('{"name":"look","arguments":{"at"', '{"name":"look","arguments":{"at"', []),
        (f"<tool_call>{CALL}", f"<tool_call>{CALL}", []),
        (f"<tool_call>{CALL}</tool_call> so", f"<tool_call>{CALL}</tool_call> so", []),
        (f"An object: {CALL}", f"An object: {CALL}", []),
    ],
)
def test_a_call_is_read_out_of_what_the_model_writes(text: str, content: str, calls: list[Any]) -> None:
    for cuts in ((), range(len(text))):
        assert said(text, cuts) == (content, calls)
    assert said(text, tools=False) == (text, [])


@given(
    words=st.lists(st.sampled_from(["a", " ", "{", "<tool_call>", "</tool_call>", "<tool", CALL]), max_size=8),
    cuts=st.lists(st.integers(0, 200), max_size=8),
)
def test_nothing_of_an_answer_is_lost_however_it_is_cut(words: list[str], cuts: list[int]) -> None:
    text = "".join(words)
    content, calls = said(text, cuts)
    assert (content, calls) == said(text)
    assert content == text or calls


def test_each_result_stands_behind_its_own_call() -> None:
    def call(id: str, at: str) -> dict[str, Any]:
        return {"id": id, "type": "function", "function": {"name": "look", "arguments": json.dumps({"at": at})}}

    calls = [("a", "sun"), ("b", "moon"), ("c", "sun")]
    turns = turns_of(
        [
            {"role": "developer", "content": "Rules"},
            {"role": "user", "content": [{"type": "text", "text": "Look "}, {"type": "text", "text": "up"}]},
            {"role": "assistant", "content": "I do.", "tool_calls": [call(*one) for one in calls]},
            {"role": "tool", "tool_call_id": "c", "content": "C"},
            {"role": "tool", "tool_call_id": "a", "content": "A"},
            {"role": "tool", "tool_call_id": "b", "content": "B"},
            {"role": "tool", "tool_call_id": "z", "content": "stray"},
            {"role": "assistant", "content": None, "refusal": "No."},
        ]
    )  # fmt: skip
    assert turns == [
        ("system", "Rules"), ("user", "Look up"), ("assistant", "I do."),
        ("assistant", '{"name":"look","arguments":{"at":"sun"}}'), ("tool", "A"),
        ("assistant", '{"name":"look","arguments":{"at":"moon"}}'), ("tool", "B"),
        ("assistant", '{"name":"look","arguments":{"at":"sun"}}'), ("tool", "C"),
        ("tool", "stray"), ("assistant", "No."),
    ]  # fmt: skip


def test_tools_that_may_not_be_called_are_not_offered() -> None:
    assert asked(chat("Hi", tools=[LOOK], tool_choice="none")).tools == ()
    assert asked(chat("Hi", tools=[LOOK], tool_choice="required")).must == ("look",)
    assert asked(chat("Hi", tools=[LOOK])).must == ()
