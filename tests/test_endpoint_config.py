"""``endpoint`` in release.yaml: what is read, and what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from quantgate.endpoint_config import EndpointConfig
from quantgate.errors import UsageError
from quantgate.records import parse
from quantgate.release_config import ReleaseConfig, load_config
from quantgate.variant_config import VariantConfig

URL = "http://127.0.0.1:8000/v1"


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "release.yaml"
    path.write_text(yaml.safe_dump({"capabilities": ["math"], "variants": ["W4A16"]} | changes))
    return path


def test_an_endpoint_is_read_for_the_variant_and_for_the_baseline(tmp_path: Path) -> None:
    launch = "vllm serve {artifact} --port {port} --kv-cache-dtype {kv_cache}"
    served = {"launch": launch, "settings": {"kv_cache": "fp8"}, "timeout": "2 min", "startup": "90s"}
    variants = [{"scheme": "W4A16", "engine": "openai", "endpoint": served}]
    config = load_config(
        write(tmp_path, variants=variants, baseline={"engine": "openai", "endpoint": {"url": URL + "/"}})
    )
    first, second = config.endpoints
    assert first.url == URL and second.launch == launch
    assert (second.timeout, second.startup, second.concurrency) == (120.0, 90.0, 16)


def test_a_configuration_without_a_server_keeps_its_digest() -> None:
    assert not {"endpoint", "engine"} & set(VariantConfig(scheme="W4A16").body())
    plain = parse(ReleaseConfig, {"capabilities": ["math"], "variants": ["W4A16"]}, where="test")
    assert "baseline" not in plain.body() and plain.endpoints == ()


@pytest.mark.parametrize(
    ("endpoint", "sentence"),
    [
        ({}, "names neither 'url' nor 'launch'"),
        ({"url": URL, "launch": "serve {port}"}, "names both 'url' and 'launch'"),
        ({"url": "127.0.0.1:8000"}, "is no address; expected such as http://"),
        ({"url": "http://me:secret@host/v1"}, "holds more than an address; write a key into a variable"),
        ({"url": URL + "?key=1"}, "holds more than an address"),
        ({"url": URL, "api_key_env": "sk-12345"}, "never the key itself"),
        ({"url": URL, "timeout": "soon"}, "expected a time such as 120s"),
        (
            {"url": URL, "sampling": {"temprature": 1}},
            "'temprature' is no setting of sampling; did you mean 'temperature'",
        ),
        ({"url": URL, "request": {"messages": []}}, "'messages' is written by quantgate itself"),
        ({"url": URL, "concurency": 4}, "unknown key 'concurency'.*did you mean 'concurrency'"),
        ({"launch": "serve {artifact}"}, r"has no \{port\}"),
        (
            {"launch": "serve {port} {draft}"},
            r"has \{draft\}, and nothing to put in its place; name it under 'settings'",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(endpoint: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as told:
        parse(EndpointConfig, endpoint, where="test")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("variant", "sentence"),
    [
        ({"scheme": "W4A16", "engine": "openai"}, "'engine: openai' and 'endpoint' belong together"),
        ({"scheme": "W4A16", "endpoint": {"url": URL}}, "'engine: openai' and 'endpoint' belong together"),
        (
            {"engine": "openai", "endpoint": {"url": URL}},
            "names a server and not what it serves.*quantgate compare URL URL",
        ),
        (
            {"scheme": "W4A16", "engine": "openai", "endpoint": {"url": URL}, "runtime": {"batch": 2}},
            "what a server does stands in its 'launch' command",
        ),
    ],
)
def test_a_variant_and_its_server_must_fit(tmp_path: Path, variant: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        load_config(write(tmp_path, variants=[variant]))


def test_a_missing_key_is_told_before_anything_is_made(tmp_path: Path) -> None:
    from quantgate import pipeline

    endpoint = {"url": URL, "api_key_env": "NO_SUCH_KEY"}
    config = load_config(write(tmp_path, variants=[{"scheme": "W4A16", "engine": "openai", "endpoint": endpoint}]))
    with pytest.raises(UsageError, match="the variable NO_SUCH_KEY is not set; export it, or leave 'api_key_env' out"):
        pipeline.run(config, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
