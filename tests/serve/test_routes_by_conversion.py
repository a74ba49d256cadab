"""The two routes that are chat underneath, through a real gateway."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
from tests.serve.gateways import call, gateway_of, kept, until

from quantgate.serve.scripted import Script, ScriptedUpstream
from quantgate.serve.server import Running


def test_a_response_is_an_answer_in_another_form() -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant)) as running:
        body = {"model": "demo", "input": "stressed"}
        whole = call(running, "/v1/responses", body)
        assert whole.status == 200 and whole.body["output"][0]["content"][0]["text"] == "desserts"
        assert whole.headers["x-quantgate-variant-name"] == "W4A16"
        streamed = call(running, "/v1/responses", {**body, "stream": True})
        kinds = [one["type"] for one in streamed.chunks]
        assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
        assert "".join(one["delta"] for one in streamed.chunks if one["type"].endswith("text.delta")) == "desserts"
        assert streamed.chunks[-1]["response"]["usage"]["output_tokens"] > 0
        assert [one.route for one in until(lambda: len(kept(running.gateway)) == 2 and kept(running.gateway))] == [
            "responses",
            "responses",
        ]


def test_a_completion_is_an_answer_in_another_form() -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant)) as running:
        body = {"model": "demo", "prompt": "stressed"}
        assert call(running, "/v1/completions", body).body["choices"][0]["text"] == "desserts"
        streamed = call(running, "/v1/completions", {**body, "stream": True})
        assert "".join(one["choices"][0]["text"] for one in streamed.chunks) == "desserts" and streamed.done


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/responses", {"model": "demo", "input": "a", "temperature": 9}, "temperature"),
        ("/v1/responses", {"model": "demo", "input": "a", "text": {"format": {"type": "json_schema", "name": "a",
         "schema": {"not": {}}}}}, "text.format.schema"),
        ("/v1/completions", {"model": "demo", "prompt": [1, 2]}, "prompt"),
        ("/v1/completions", {"prompt": "a"}, "model"),
    ],
)  # fmt: skip
def test_a_bad_request_names_the_key_that_the_client_wrote(path: str, body: Any, param: str) -> None:
    with ScriptedUpstream() as variant, Running(gateway_of(variant)) as running:
        answer = call(running, path, body)
        assert (answer.status, answer.error["param"]) == (400, param)
        assert variant.asked == []


def test_a_response_that_breaks_off_says_so_in_its_own_events() -> None:
    script = Script("cut", after=3, held=True, text="some words that are cut")
    with ScriptedUpstream(always=lambda _body: script) as variant, Running(gateway_of(variant)) as running:
        variant.next(Script("status"))
        assert call(running, "/v1/responses", {"model": "demo", "input": "a"}).error["code"] == "upstream_error"
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
        data = json.dumps({"model": "demo", "input": "a", "stream": True}).encode()
        connection.request("POST", "/v1/responses", data, {"content-type": "application/json"})
        with connection.getresponse() as response:
            while b"output_text.delta" not in response.readline():
                pass
            variant.go_on()
            rest = response.read()
        connection.close()
        assert b"response.completed" not in rest and (b"event: error" in rest or b"response.failed" in rest)
