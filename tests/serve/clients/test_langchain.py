"""LangChain's ChatOpenAI in front of the gateway: answers, streams, tools, structured output, usage."""

from __future__ import annotations

import pydantic
import pytest

langchain_openai = pytest.importorskip("langchain_openai", reason="the extra clients")


class City(pydantic.BaseModel):
    """A city."""

    name: str
    people: int


class weather(pydantic.BaseModel):
    """The weather of a city."""

    city: str


@pytest.fixture
def chat(gateway):
    return langchain_openai.ChatOpenAI(base_url=gateway.url, api_key=gateway.key, model=gateway.model)


def test_invoke_answers_and_counts(chat):
    answer = chat.invoke("Say hello.")
    assert answer.content == "Hello to you there."
    assert answer.usage_metadata["total_tokens"] > 0


def test_stream_answers_in_pieces(chat):
    pieces = list(chat.stream("Say hello."))
    assert "".join(piece.content for piece in pieces) == "Hello to you there." and len(pieces) > 1


def test_stream_counts_where_it_is_asked_to(gateway):
    chat = langchain_openai.ChatOpenAI(
        base_url=gateway.url, api_key=gateway.key, model=gateway.model, stream_usage=True
    )
    pieces = list(chat.stream("Say hello."))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert whole.usage_metadata["total_tokens"] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_bound_tools_are_called(chat, stream):
    bound = chat.bind_tools([weather])
    if stream:
        pieces = list(bound.stream("How is the weather in Paris?"))
        answer = pieces[0]
        for piece in pieces[1:]:
            answer += piece
    else:
        answer = bound.invoke("How is the weather in Paris?")
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Paris"})


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_is_an_object(chat, method):
    question = "Which city?" if method == "json_schema" else "Which city? Call it."
    assert chat.with_structured_output(City, method=method).invoke(question) == City(name="Paris", people=2_100_000)


def test_structured_output_that_stays_invalid_is_an_error(chat):
    import openai

    with pytest.raises(openai.APIError):
        chat.with_structured_output(City, method="json_schema").invoke("Lie to me.")


def test_a_conversation_with_a_result_of_a_tool_is_answered(chat):
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

    turns = [
        HumanMessage("How is the weather in Paris?"),
        AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Paris"}, "id": "call_0"}]),
        ToolMessage("Sunny.", tool_call_id="call_0"),
    ]
    assert chat.bind_tools([weather]).invoke(turns).content == "It is sunny."
