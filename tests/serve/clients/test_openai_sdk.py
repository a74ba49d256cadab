"""The official SDK of OpenAI in front of the gateway: it cannot tell the difference, and asks for nothing twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

openai = pytest.importorskip("openai", reason="the extra clients")
pydantic = pytest.importorskip("pydantic")

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")


def say(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


HELLO, WEATHER, CITY, LIE = map(say, ("Say hello.", "How is the weather in Paris?", "Which city?", "Lie to me."))
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
]


class City(pydantic.BaseModel):  # type: ignore[name-defined,misc]
    name: str
    people: int


@pytest.fixture
def client(gateway):
    with openai.OpenAI(base_url=gateway.url, api_key=gateway.key) as made:
        yield made


def test_an_answer_is_the_upstreams_and_says_who_gave_it(client, gateway):
    raw = client.chat.completions.with_raw_response.create(model=gateway.model, messages=HELLO)
    answer = raw.parse()
    assert answer.choices[0].message.content == "Hello to you there."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert answer._request_id == raw.headers["x-request-id"] != ""
    assert raw.headers["x-quantgate-variant"] and raw.headers["x-quantgate-cohort"] and raw.headers["server-timing"]


def test_a_stream_is_the_same_answer_in_pieces(client, gateway):
    chunks = list(client.chat.completions.create(model=gateway.model, messages=HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello to you there."
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]
    assert all(chunk.usage is None for chunk in chunks)  # nobody asked for it
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"


def test_usage_comes_in_a_last_chunk_where_it_is_asked_for(client, gateway):
    asked = dict(model=gateway.model, messages=HELLO, stream=True, stream_options={"include_usage": True})
    *chunks, last = client.chat.completions.create(**asked)
    assert last.choices == [] and last.usage.total_tokens > 0
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def _async(gateway) -> tuple[str, str]:
    async with openai.AsyncOpenAI(base_url=gateway.url, api_key=gateway.key) as client:
        whole = await client.chat.completions.create(model=gateway.model, messages=HELLO)
        pieces = await client.chat.completions.create(model=gateway.model, messages=HELLO, stream=True)
        return whole.choices[0].message.content, "".join([p.choices[0].delta.content or "" async for p in pieces])


def test_the_asynchronous_client_reads_both(gateway):
    import asyncio

    assert asyncio.run(_async(gateway)) == ("Hello to you there.", "Hello to you there.")


def test_calls_of_tools_come_whole_and_streamed(client, gateway):
    whole = client.chat.completions.create(model=gateway.model, messages=WEATHER, tools=TOOLS)
    (call,) = whole.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Paris"})
    assert whole.choices[0].finish_reason == "tool_calls"
    chunks = client.chat.completions.create(model=gateway.model, messages=WEATHER, tools=TOOLS, stream=True)
    deltas = [one for chunk in chunks if chunk.choices for one in chunk.choices[0].delta.tool_calls or []]
    assert {one.index for one in deltas} == {0}
    assert [one.id for one in deltas if one.id] == [deltas[0].id]
    assert [one.function.name for one in deltas if one.function.name] == ["weather"]
    assert json.loads("".join(one.function.arguments or "" for one in deltas)) == {"city": "Paris"}


def test_parse_gives_objects(client, gateway):
    made = client.chat.completions.parse(model=gateway.model, messages=CITY, response_format=City)
    assert made.choices[0].message.parsed == City(name="Paris", people=2_100_000)


def test_parse_gives_arguments_of_tools_as_objects(client, gateway):
    class weather(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        city: str

    tool = openai.pydantic_function_tool(weather)
    made = client.chat.completions.parse(model=gateway.model, messages=WEATHER, tools=[tool])
    assert made.choices[0].message.tool_calls[0].function.parsed_arguments == weather(city="Paris")


def test_the_stream_helper_ends_with_the_object(client, gateway):
    with client.chat.completions.stream(model=gateway.model, messages=CITY, response_format=City) as events:
        kinds = [event.type for event in events]
        final = events.get_final_completion()
    assert "content.delta" in kinds and "content.done" in kinds
    assert final.choices[0].message.parsed == City(name="Paris", people=2_100_000)


def test_responses_come_by_conversion(client, gateway):
    made = client.responses.create(model=gateway.model, input="Say hello.")
    assert (made.output_text, made.status) == ("Hello to you there.", "completed")
    assert made.usage.total_tokens > 0
    with client.responses.stream(model=gateway.model, input="Say hello.") as events:
        kinds = [event.type for event in events]
        final = events.get_final_response()
    assert final.output_text == "Hello to you there."
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert "response.output_text.delta" in kinds


def test_responses_parse_gives_objects(client, gateway):
    made = client.responses.parse(model=gateway.model, input="Which city?", text_format=City)
    assert made.output_parsed == City(name="Paris", people=2_100_000)


def test_completions_come_by_conversion(client, gateway):
    made = client.completions.create(model=gateway.model, prompt="Say hello.")
    assert made.choices[0].text == "Hello to you there." and made.object == "text_completion"
    pieces = client.completions.create(model=gateway.model, prompt="Say hello.", stream=True)
    assert "".join(one.choices[0].text for one in pieces if one.choices) == "Hello to you there."


def test_models_are_listed_and_found(client, gateway):
    listed = [one.id for one in client.models.list()]
    assert gateway.model in listed
    assert client.models.retrieve(gateway.model).id == gateway.model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


# --- errors, each in the class that the SDK has for it ---


def test_a_wrong_key_is_an_authentication_error(gateway):
    with openai.OpenAI(base_url=gateway.url, api_key="qg_wrong") as client, pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model=gateway.model, messages=HELLO)


def test_a_bad_parameter_is_a_bad_request_that_names_it(client, gateway):
    with pytest.raises(openai.BadRequestError) as found:
        client.chat.completions.create(model=gateway.model, messages=HELLO, temperature=3)
    assert found.value.param == "temperature" and found.value.request_id


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as found:
        client.chat.completions.create(model="nobody", messages=HELLO)
    assert found.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_stays_invalid_is_an_error_and_is_not_asked_again(client, gateway, stream):
    """The SDK would ask twice more on its own, had ``x-should-retry`` not forbidden it."""
    schema = {"type": "json_schema", "json_schema": {"name": "city", "schema": City.model_json_schema()}}
    counts = []
    for patient in (client.with_options(max_retries=0), client):
        before = len(gateway.upstream.asked)
        with pytest.raises(openai.APIError) as found:
            asked = dict(model=gateway.model, messages=LIE, response_format=schema, stream=stream)
            answer = patient.chat.completions.create(**asked)
            list(answer if stream else ())
        counts.append(len(gateway.upstream.asked) - before)
        assert found.value.code == "invalid_answer"
    assert counts[0] == counts[1] >= 1


def test_a_stream_that_breaks_off_is_an_error_and_no_end(client, gateway):
    read = []
    with pytest.raises(openai.APIError):
        for chunk in client.chat.completions.create(model=gateway.model, messages=say("Cut it."), stream=True):
            read.append(chunk)
    assert not any(chunk.choices and chunk.choices[0].finish_reason for chunk in read)


def test_a_limit_of_the_upstream_is_a_rate_limit_error(client, gateway):
    with pytest.raises(openai.RateLimitError):
        client.with_options(max_retries=0).chat.completions.create(model=gateway.model, messages=say("Limit it."))


def test_an_upstream_that_answers_nothing_is_a_server_error(client, gateway):
    with pytest.raises(openai.InternalServerError) as found:
        client.with_options(max_retries=0).chat.completions.create(model=gateway.model, messages=say("Reset it."))
    assert found.value.type and found.value.request_id
