"""The gateway with an engine of its own process behind it, as official clients see it."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.serve.gateways import Fixed, Kept, Sessions
from tests.serve.test_local import Gated, chat

from quantgate.guard.admission import admit
from quantgate.models import REFERENCE, open_model
from quantgate.models.random import save_random
from quantgate.serve import Arm, Choice
from quantgate.serve.app import Gateway
from quantgate.serve.server import Running
from quantgate.serve.settings import RoutePolicy, Settings
from quantgate.serve.upstreams.local import LocalUpstream
from quantgate.serve.upstreams.opening import open_engine

openai = pytest.importorskip("openai", reason="the package 'openai' is not installed (quantgate[clients])")
ASK = [{"role": "user", "content": "What is 17 + 25?"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "ok": {"type": "boolean"}},
    "required": ["city", "ok"],
    "additionalProperties": False,
}
TOOL = {"name": "look", "parameters": {"type": "object", "properties": {"at": {"enum": ["sun", "moon"]}},
                                       "required": ["at"], "additionalProperties": False}}  # fmt: skip


@pytest.fixture(scope="module")
def gateway() -> Iterator[tuple[str, Gateway, str]]:
    """Address, gateway, and the text that evaluation would judge for ASK."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    model = open_model(REFERENCE)
    arm = Arm("BF16", model.weights_digest, "baseline")
    upstream = LocalUpstream(lambda: open_engine(model, ""), name=arm.name)
    policy = RoutePolicy(stream="passthrough", escalate=False)
    settings = Settings(
        {arm.name: upstream}, router=Fixed(Choice(arm, "stable", 0.0, 1)), admit=admit, sessions=Sessions(),
        sink=Kept(), policy=lambda _request: policy,
    )  # fmt: skip
    from quantgate.engines import Prompt

    judged = open_engine(model, "").generate([Prompt(turns=(("user", ASK[0]["content"]),), max_tokens=20)])[0].text
    running = Gateway(settings)
    with Running(running) as served:
        yield served.url, running, judged
    torch.set_num_threads(before)


@pytest.fixture
def client(gateway: Any) -> Iterator[Any]:
    with openai.OpenAI(base_url=gateway[0], api_key="none", max_retries=0, timeout=120) as made:
        yield made


def test_a_chat_is_answered_as_it_was_judged(client: Any, gateway: Any) -> None:
    raw = client.chat.completions.with_raw_response.create(model="demo", messages=ASK, max_tokens=20)
    answer = raw.parse()
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (gateway[2], "stop")
    assert answer.system_fingerprint in raw.headers["x-quantgate-variant"]
    timing = raw.headers["server-timing"]
    assert all(stage in timing for stage in ("queue", "prefill", "decode"))


def test_a_streamed_chat_holds_the_same_text_and_no_private_key(client: Any, gateway: Any) -> None:
    stream = client.chat.completions.create(
        model="demo", messages=ASK, max_tokens=20, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == gateway[2]
    assert chunks[-1].usage.completion_tokens > 0 and chunks[-1].choices == []
    assert not any("quantgate" in one.model_dump_json() for one in chunks)


def test_a_schema_and_a_call_are_held(client: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA, "strict": True}}
    answer = client.chat.completions.create(model="demo", messages=ASK, response_format=form, max_tokens=400)
    assert json.loads(answer.choices[0].message.content)["city"] in ("Rome", "Oslo")
    answer = client.chat.completions.create(
        model="demo", messages=ASK, tools=[{"type": "function", "function": TOOL}], tool_choice="required",
        max_tokens=400,
    )  # fmt: skip
    [call] = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments)["at"] in ("sun", "moon")


def test_responses_say_the_same_whole_and_streamed(client: Any, gateway: Any) -> None:
    whole = client.responses.create(model="demo", input=ASK[0]["content"], max_output_tokens=20)
    assert (whole.output_text, whole.status) == (gateway[2], "completed")
    with client.responses.stream(model="demo", input=ASK[0]["content"], max_output_tokens=20) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert (final.output_text, final.usage.output_tokens) == (gateway[2], whole.usage.output_tokens)


def test_a_response_calls_a_tool_and_reads_its_result(client: Any) -> None:
    tools = [{"type": "function", **TOOL, "strict": True}]
    first = client.responses.create(
        model="demo", input="Look.", tools=tools, tool_choice="required", max_output_tokens=400
    )
    [call] = [item for item in first.output if item.type == "function_call"]
    items = [{"role": "user", "content": "Look."}, call.model_dump(exclude_none=True),
             {"type": "function_call_output", "call_id": call.call_id, "output": '{"status":"ok"}'}]  # fmt: skip
    second = client.responses.create(model="demo", input=items, tools=tools, tool_choice="none", max_output_tokens=16)
    assert second.status in ("completed", "incomplete") and second.output[0].type == "message"


def test_text_completions_say_the_same(client: Any, gateway: Any) -> None:
    whole = client.completions.create(model="demo", prompt=ASK[0]["content"], max_tokens=20)
    assert whole.choices[0].text == gateway[2]
    stream = client.completions.create(model="demo", prompt=ASK[0]["content"], max_tokens=20, stream=True)
    assert "".join(one.choices[0].text for one in stream if one.choices) == gateway[2]


@pytest.mark.parametrize(
    ("route", "body", "code", "param"),
    [
        ("chat/completions", {"messages": ASK, "max_tokens": 99_999}, "context_length_exceeded", "messages"),
        ("responses", {"input": "Hi", "max_output_tokens": 99_999}, "context_length_exceeded", "input"),
        ("completions", {"prompt": "Hi", "max_tokens": 99_999}, "context_length_exceeded", "prompt"),
        ("responses", {"input": "Hi", "previous_response_id": "x"}, "unsupported_parameter", "previous_response_id"),
        ("completions", {"prompt": [1, 2]}, "invalid_value", "prompt"),
    ],
)
def test_what_cannot_be_answered_is_a_bad_request_by_its_own_names(
    client: Any, route: str, body: dict[str, Any], code: str, param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post(f"/{route}", body={"model": "demo", **body}, cast_to=object)
    assert caught.value.code == code and param in (None, caught.value.param)
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_a_client_that_leaves_ends_the_work_within_a_token(tmp_path: Any) -> None:
    model = open_model(save_random(tmp_path / "tiny", tied=False))
    engine = Gated(model, leave=3)
    arm = Arm("tiny", engine.identity.weights, "baseline")
    upstream = LocalUpstream(lambda: engine, name=arm.name, at_once=1)
    policy, sink = RoutePolicy(stream="passthrough", escalate=False), Kept()
    settings = Settings(
        {arm.name: upstream}, router=Fixed(Choice(arm, "stable", 0.0, 1)), admit=admit, sessions=Sessions(),
        sink=sink, policy=lambda _request: policy,
    )  # fmt: skip
    with Running(Gateway(settings)) as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=120)
        body = json.dumps({**chat("Hi", 200, logprobs=True), "model": "demo", "stream": True})
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read1(64)
        answer.close()
        connection.close()
        until = time.monotonic() + 120
        while not sink.exchanges and time.monotonic() < until:
            time.sleep(0.01)
        assert sink.exchanges[0].disconnected
        engine.gate.release(1000)
        with openai.OpenAI(base_url=served.url, api_key="none", max_retries=0, timeout=120) as client:
            client.chat.completions.create(**chat("Next", 1))
    assert engine.fed <= 4  # three, and the one that was being written
