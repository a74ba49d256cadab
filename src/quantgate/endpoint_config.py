"""How a server is reached or launched: the keys of ``endpoint`` in release.yaml, and what ``compare`` is told."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, JsonValue, field_validator, model_validator

from quantgate.engines._openai_wire import OWN
from quantgate.errors import hint
from quantgate.hardware.quantities import TIMES
from quantgate.records import Record

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty")
GIVEN = ("artifact", "port", "host", "model")  # placeholders of 'launch' that quantgate fills in


def _seconds(value: Any) -> Any:
    """``120``, ``120s``, ``2 min`` and ``500 ms`` are seconds."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", value)
    if not found or (found[2] or "s") not in TIMES:
        raise ValueError(f"expected a time such as 120s, 2 min or 500 ms, found '{value}'")
    return float(found[1]) * TIMES[found[2] or "s"]


Seconds = Annotated[float, BeforeValidator(_seconds)]


class EndpointConfig(Record):
    """An OpenAI-compatible server: one that runs already, or one that is started for the run and ended after it."""

    url: str | None = Field(
        default=None, description="where its API begins, such as http://127.0.0.1:8000/v1; left out beside 'launch'"
    )
    model: str | None = Field(
        default=None, description="the name that it serves the model under; left out, the only one that it has"
    )
    api_key_env: str | None = Field(
        default=None, description="the environment variable that holds its key; the key itself is never written down"
    )
    revision: str | None = Field(
        default=None,
        description="your word for exactly these weights, such as a commit or a date: answers are kept under it. Left "
        "out, nobody vouches that the same name means the same weights tomorrow, and answers serve one session only",
    )
    concurrency: int = Field(default=16, ge=1, le=1024, description="requests in flight at most")
    timeout: Seconds = Field(default=120.0, gt=0, description="for one request, to its last byte: 120s, 2 min")
    tries: int = Field(default=6, ge=1, le=20, description="for one request; what then failed is not scored")
    stream: bool = Field(default=False, description="streams answers, which measures the time to the first token")
    sampling: dict[str, float] = Field(
        default={}, description=f"instead of greedy answers: {', '.join(SAMPLING)}, such as {{temperature: 0.7}}"
    )
    schemas: Literal["json_schema", "json_object", "none"] = Field(
        default="json_schema",
        description="how a case's JSON schema is sent: as OpenAI and vLLM read it, as llama-cpp-python does, or not",
    )
    request: dict[str, JsonValue] = Field(
        default={},
        description="more keys of every request, such as {chat_template_kwargs: {enable_thinking: false}}",
    )
    launch: str | None = Field(
        default=None,
        description="instead of 'url': the command that starts it, such as vllm serve {artifact} --port {port}; "
        f"{', '.join(f'{{{name}}}' for name in GIVEN)} are filled in, and what 'settings' names",
    )
    settings: dict[str, str | int | float] = Field(
        default={}, description="placeholders of your own in 'launch', such as {kv_cache: fp8, draft: ./small}"
    )
    startup: Seconds = Field(default=600.0, gt=0, description="how long a launched server may take until it answers")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.url is None) == (self.launch is None):
            both = "both 'url' and 'launch'" if self.url else "neither 'url' nor 'launch'"
            raise ValueError(f"names {both}; a server runs already or is launched, so name one of them")
        if self.launch is not None and "{port}" not in self.launch:
            raise ValueError("'launch' has no {port}, so nobody knows where the server listens; write --port {port}")
        unknown = sorted({*re.findall(r"\{([a-z_]+)\}", self.launch or "")} - {*GIVEN, *self.settings})
        if unknown:
            raise ValueError(
                f"'launch' has {{{unknown[0]}}}, and nothing to put in its place; name it under 'settings': "
                f"{hint(unknown[0], (*GIVEN, *self.settings))}"
            )
        return self

    @field_validator("url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is no address; expected such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("holds more than an address; write a key into a variable, and its name to 'api_key_env'")
        return value.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _a_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            raise ValueError("is no name of an environment variable; write the name here, and never the key itself")
        return value

    @field_validator("sampling")
    @classmethod
    def _known_sampling(cls, value: dict[str, float]) -> dict[str, float]:
        for name in value:
            if name not in SAMPLING:
                raise ValueError(f"'{name}' is no setting of sampling; {hint(name, SAMPLING)}")
        return value

    @field_validator("request")
    @classmethod
    def _not_ours(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in value:
            if name in OWN:
                raise ValueError(f"'{name}' is written by quantgate itself; leave it out")
        return value


def split_address(ref: str) -> tuple[str, str | None]:
    """The address and the model of ``http://127.0.0.1:8000/v1#model``.

    >>> split_address("http://127.0.0.1:8000/v1#qwen/q3")
    ('http://127.0.0.1:8000/v1', 'qwen/q3')
    """
    url, _, model = ref.partition("#")
    return url, model or None


def is_address(ref: str) -> bool:
    return ref.startswith(("http://", "https://"))
