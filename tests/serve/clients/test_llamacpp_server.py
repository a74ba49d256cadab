"""A real llama.cpp server behind the gateway: what it answers by itself is what comes through, streamed and not."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.serve.clients.conftest import TARGET, serving, settings_of

from quantgate.engines._launch import Launched
from quantgate.serve.scripted import ScriptedUpstream
from quantgate.serve.upstreams.http import HttpUpstream

NEEDED = ("llama_cpp", "gguf", "fastapi", "sse_starlette", "starlette_context", "pydantic_settings", "openai")
MISSING = [one for one in NEEDED if importlib.util.find_spec(one) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"llama_cpp.server needs packages that are missing: {MISSING}")
LAUNCH = (
    f"{shlex.quote(sys.executable)} -m llama_cpp.server --model {{artifact}} --port {{port}} --n_ctx 2048 "
    "--n_threads 1 --interrupt_requests false --model_alias reference"
)
ASKED = ("What is 17 + 25?", "Sam has 3 apples and buys 4 more. How many apples does Sam have?", "Hello!")
PLAIN = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
    "additionalProperties": False,
}
SMALL = {**PLAIN, "properties": {"answer": {"type": "integer", "minimum": 0, "maximum": 9}}}
SUM = [{"role": "user", "content": "What is 17 + 25? Answer as JSON."}]


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Where the server answers by itself, and where the gateway in front of it does."""
    from quantgate.models import open_model
    from quantgate.quantize.gguf import make_gguf

    folder = tmp_path_factory.mktemp("llama")
    file = make_gguf(open_model("quantgate/reference"), folder / "reference-Q8_0.gguf", "Q8_0").path
    with Launched(LAUNCH, {"artifact": str(file)}, log=folder / "log") as server:
        server.wait()
        upstreams = {name: HttpUpstream(server.url, "reference", dialect="llamacpp") for name in ("full", "small")}
        with (
            ScriptedUpstream() as unused,
            serving(replace(settings_of(unused), upstreams=upstreams)) as running,
        ):
            yield server.url, running.url


@pytest.mark.parametrize("stream", [False, True])
def test_the_gateway_gives_the_servers_own_answers(addresses, stream):
    import openai

    direct, through = (openai.OpenAI(base_url=url, api_key="none", max_retries=0) for url in addresses)
    with direct, through:
        for question in ASKED:
            turns = [{"role": "user", "content": question}]
            own = said(direct, "reference", turns, stream)
            assert said(through, TARGET, turns, stream) == own != ""


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_is_kept_through_the_servers_own_grammar(addresses, stream):
    import openai

    with openai.OpenAI(base_url=addresses[1], api_key="none", max_retries=0) as client:
        text = said(client, TARGET, SUM, stream, response_format=asked_for(PLAIN))
    assert set(json.loads(text)) == {"answer"}


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_servers_grammar_lets_through_does_not_leave_the_gateway(addresses, stream):
    """Its grammar knows no bounds of numbers, and answers 200."""
    import openai

    direct, through = (openai.OpenAI(base_url=url, api_key="none", max_retries=0) for url in addresses)
    with direct, through:
        wrong = said(direct, "reference", SUM, False, response_format={"type": "json_object", "schema": SMALL})
        assert not 0 <= json.loads(wrong)["answer"] <= 9
        try:
            text = said(through, TARGET, SUM, stream, response_format=asked_for(SMALL))
        except openai.APIError as refused:
            assert refused.code == "invalid_answer"
        else:  # the corrective turn mended it
            assert not stream and 0 <= json.loads(text)["answer"] <= 9


def asked_for(schema):
    return {"type": "json_schema", "json_schema": {"name": "sum", "schema": schema, "strict": True}}


def said(client, model, turns, stream, **more):
    asked = dict(model=model, messages=turns, temperature=0, max_tokens=60, stream=stream, **more)
    answer = client.chat.completions.create(**asked)
    if not stream:
        return answer.choices[0].message.content
    return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)


def test_the_gateway_is_ready_because_the_server_lists_its_model(addresses):
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(addresses[1].removesuffix("/v1") + "/ready", timeout=30) as response:
        told = json.load(response)
    assert told["ready"] is True and {arm["serves"] for arm in told["arms"]} == {"reference"}
