"""serve.yaml: every key, its type, its default and what it means. Unknown keys are errors with the nearest one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, JsonValue, PlainSerializer, field_validator, model_validator

from quantgate.endpoint_config import EndpointConfig, Seconds
from quantgate.errors import UsageError, hint
from quantgate.guard.confirm import Rules
from quantgate.hardware.quantities import Bytes, PerMillion
from quantgate.records import Record, parse
from quantgate.store import is_address
from quantgate.watch_config import WatchConfig

STAGES = ("parse", "context", "cache", "queue", "prefill", "decode", "validate", "stream")
WINDOWS = {"min": 60, "hour": 3600, "day": 86400, "month": 0, "ever": -1}  # seconds; of a month: by the calendar, UTC
NANO = 10**9  # money is counted in billionths, whole ones: sums of it have no rounding
MULTIPLES = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9}


class Allowance(Record):
    """So much in each window of time."""

    written_as: ClassVar[str] = "text"  # in a file: see allowance()
    amount: int = Field(gt=0, lt=2**62)  # tokens, requests, or billionths of money
    window: Literal["min", "hour", "day", "month", "ever"]


def allowance(value: Any, scale: int = 1) -> Any:
    """``1M/day``, ``60/min``, ``500k`` (once and for all).

    >>> allowance("1.5k/day"), allowance("20/month", NANO).amount
    (Allowance(amount=1500, window='day'), 20000000000)
    """
    if not isinstance(value, str | int):
        return value
    shape = rf"\s*[$€£]?(\d+(?:\.\d+)?)([kMB]?)(?:\s*/\s*({'|'.join(WINDOWS)}))?\s*"
    found = re.fullmatch(shape, str(value))
    if not found or not float(found[1]):
        raise ValueError(f"expected such as 1M/day, 60/min or 500k; windows: {', '.join(WINDOWS)}, found '{value}'")
    return Allowance(amount=round(float(found[1]) * MULTIPLES[found[2]] * scale), window=found[3] or "ever")  # type: ignore[arg-type]


def told(one: Allowance, scale: int = 1) -> str:
    """
    >>> told(Allowance(amount=1_500_000, window="day")), told(Allowance(amount=20 * NANO, window="ever"), NANO)
    ('1500000/day', '20/ever')
    """
    number = one.amount // scale if one.amount % scale == 0 else one.amount / scale
    return f"{number}/{one.window}"


Count = Annotated[Allowance, BeforeValidator(allowance), PlainSerializer(told, return_type=str)]
Money = Annotated[
    Allowance,
    BeforeValidator(lambda value: allowance(value, NANO)),
    PlainSerializer(lambda one: told(one, NANO), return_type=str),
]


class Budget(Record):
    """What may be spent; what is left out is not limited."""

    tokens: Count | None = Field(default=None, description="of prompts and answers, such as 1M/day")
    money: Money | None = Field(default=None, description="by the prices of the variants, such as 20/month")
    requests: Count | None = Field(default=None, description="such as 60/min")

    @property
    def limits(self) -> dict[str, Allowance]:
        named = {"tokens": self.tokens, "money": self.money, "requests": self.requests}
        return {unit: one for unit, one in named.items() if one is not None}


class PriceConfig(Record):
    """What a million tokens cost, in whatever money you count in."""

    prompt: PerMillion = Field(description="of the prompt, such as 0.50/M")
    answer: PerMillion = Field(description="of the answer, such as 1.50/M")


class ServedConfig(Record):
    """What answers for one variant: a server, or an artifact that this process opens."""

    endpoint: EndpointConfig | None = Field(
        default=None, description="an OpenAI-compatible server, or the command that starts one"
    )
    artifact: str | None = Field(default=None, description="folder or GGUF file that this process opens")
    dialect: Literal["openai", "vllm", "llamacpp", "sglang"] = Field(
        default="openai", description="how the server is told what answers are held to"
    )
    weights: str | None = Field(
        default=None, description="digest of what it serves, where no registry says so: it stands in every answer"
    )
    price: PriceConfig | None = Field(default=None, description="for budgets in money")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.endpoint is not None and self.artifact is not None:
            raise ValueError("names both 'endpoint' and 'artifact'; a server answers for it or this process, not both")
        return self


class LiveConfig(Record):
    """Which variant gets which requests, where no registry says so."""

    baseline: str = Field(description="the full-precision variant: answers that fail are asked again there")
    stable: str | None = Field(default=None, description="who gets all other traffic; left out, the baseline")
    canary: str | None = Field(default=None, description="the variant on trial")
    share: float = Field(default=0.0, ge=0, le=1, description="of sessions, for the canary")
    holdback: float = Field(default=0.0, ge=0, le=0.5, description="of sessions, that stay on the baseline")


class When(Record):
    """Features of a request; all that are written must fit, and nothing written fits every request."""

    route: Literal["chat", "completions", "responses"] | None = Field(default=None, description="by its path")
    model: str | None = Field(default=None, description="the model's name in the request, as a regular expression")
    structured: bool | None = Field(default=None, description="whether it asks for JSON, by a schema or without")
    tools: bool | None = Field(default=None, description="whether it offers tools")
    tool: str | None = Field(default=None, description="a tool that it offers, by name")
    stream: bool | None = Field(default=None, description="whether the answer is to be streamed")
    prompt_over: int | None = Field(
        default=None, ge=0, description="tokens that the prompt has more of, at 4 bytes of the request a token"
    )
    prompt_under: int | None = Field(default=None, ge=1, description="tokens that it has fewer of")
    keys: tuple[str, ...] = Field(default=(), description="ids of API keys, any of them")
    headers: dict[str, str] = Field(
        default={}, description="headers of the request, each with a regular expression for its whole value"
    )

    @field_validator("headers")
    @classmethod
    def _lower(cls, value: dict[str, str]) -> dict[str, str]:
        if "authorization" in {name.lower() for name in value}:
            raise ValueError("names the header 'authorization', which holds a secret; name the key's id under 'keys'")
        return {name.lower(): _expression(text) for name, text in value.items()}

    @field_validator("model")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        return value if value is None else _expression(value)

    @model_validator(mode="after")
    def _fits_something(self) -> Self:
        if self.prompt_over is not None and self.prompt_under is not None and self.prompt_over >= self.prompt_under:
            raise ValueError(f"no prompt is over {self.prompt_over} and under {self.prompt_under} tokens")
        return self


class PolicyRule(Record):
    """Which variant answers the requests that fit; they are chosen, not drawn, and part of no comparison."""

    name: str = Field(description="it stands in every exchange that the rule placed", min_length=1, max_length=64)
    when: When = Field(default=When(), description="features of the request")
    variant: str = Field(description="baseline, stable or canary, or the name of a variant", min_length=1)


class RouteConfig(Record):
    """What the answers of some requests are held to; the first route that fits counts."""

    name: str = Field(description="for messages", min_length=1, max_length=64)
    when: When = Field(default=When(), description="features of the request")
    stream: Literal["passthrough", "holdback", "window", "buffer"] = Field(
        default="holdback",
        description="what of a stream leaves when: passthrough as soon as its prefix is checked; holdback not before "
        "the first content; window all but the newest tokens; buffer nothing before the whole answer is checked",
    )
    window: int = Field(default=16, ge=1, le=4096, description="tokens that 'window' holds back")
    corrections: int = Field(default=1, ge=0, le=3, description="turns in which the variant may mend its answer")
    escalate: bool = Field(default=True, description="whether the baseline is asked when the variant's answer fails")
    validators: dict[str, dict[str, JsonValue]] = Field(
        default={},
        description="what else answers must pass: name and settings, such as {secrets: {}}; under 'canary' what is "
        "stricter while a canary answers",
    )
    confirm: Rules | None = Field(default=None, description="tool calls that a person must approve")
    budgets: dict[str, Seconds] = Field(
        default={}, description=f"how long a stage may take, such as {{queue: 200ms}}; stages: {', '.join(STAGES)}"
    )
    keep_alive: Seconds = Field(default=10.0, gt=0, description="a comment into a stream that is silent for so long")

    @field_validator("budgets")
    @classmethod
    def _known_stages(cls, value: dict[str, float]) -> dict[str, float]:
        for name, limit in value.items():
            if name not in STAGES:
                raise ValueError(f"'{name}' is no stage; {hint(name, STAGES)}")
            if limit <= 0:
                raise ValueError(f"'{name}: {limit:g}s' leaves no time; write more than nothing")
        return value


class LimitsConfig(Record):
    """What a request may cost the gateway before anybody is asked."""

    size: Bytes = Field(default=8 * 2**20, description="of a request, such as 8MiB")
    depth: int = Field(default=64, ge=4, le=500, description="of its JSON")
    in_flight: int = Field(default=1024, ge=1, description="requests at once; more get 503")
    per_variant: int = Field(default=256, ge=1, description="asked at once of one variant")
    waiting: int = Field(default=1024, ge=0, description="for one variant; more get 503")
    answer_tokens: int = Field(
        default=1024, ge=1, description="reserved where a caller with a budget names no maximum, and its maximum then"
    )
    timeout: Seconds = Field(default=600.0, gt=0, description="of a whole request")
    grace: Seconds = Field(default=30.0, ge=0, description="for answers in flight when the gateway ends")


class ShadowConfig(Record):
    """Copies of requests to a variant whose answers nobody hears; they are dropped first and bill nobody."""

    variant: str = Field(description="who gets them", min_length=1)
    share: float = Field(default=0.01, gt=0, le=1, description="of sessions")
    concurrency: int = Field(default=2, ge=1, le=256, description="copies asked at once")
    queue: int = Field(default=64, ge=1, le=65536, description="copies that wait; more are dropped and counted")
    timeout: Seconds = Field(default=120.0, gt=0, description="for one copy")
    budget: Budget = Field(default=Budget(), description="of all copies together, such as {tokens: 1M/day}")


class ExchangesConfig(Record):
    """What becomes of each request, for the watch. No text of prompts or answers, unless 'keep_text' says so."""

    url: str | None = Field(default=None, description="a database; left out, exchanges.db in the data folder")
    days: int = Field(default=30, ge=1, le=3650, description="they are kept for")
    queue: int = Field(default=20_000, ge=500, description="that wait to be written; more are dropped and counted")
    keep_text: bool = Field(default=False, description="keeps prompts and answers as well")


class ServeConfig(Record):
    """What is served, to whom, under which guards. Without it, `quantgate serve` serves the built-in model."""

    target: str = Field(
        default="local", description="whose releases are served, and the model's name for clients", min_length=1
    )
    registry: str | None = Field(default=None, description="the registry's database, such as sqlite:///quantgate.db")
    model: str = Field(
        default="quantgate/reference", description="the baseline's model, where this process opens it or an artifact"
    )
    variants: dict[str, ServedConfig] = Field(
        default={}, description="what answers for each variant; of those left out this process opens the artifact"
    )
    live: LiveConfig | None = Field(default=None, description="instead of a registry: who gets which requests")
    names: tuple[str, ...] = Field(default=(), description="more model names that clients may ask for")
    host: str = Field(default="127.0.0.1", description="anything but this machine demands keys")
    port: int = Field(default=8000, ge=0, le=65535, description="0 takes a free one")
    workers: int = Field(default=1, ge=1, le=64, description="processes on one port; only in front of servers")
    data: str = Field(default=".quantgate", description="folder of secrets, last known releases, ledger, exchanges")
    database: str | None = Field(default=None, description="of keys and ledger; left out, state.db in the data folder")
    rules: tuple[PolicyRule, ...] = Field(default=(), description="requests that go to a named variant")
    pinners: tuple[str, ...] = Field(default=(), description="ids of keys that may ask for a variant by name")
    routes: tuple[RouteConfig, ...] = Field(default=(), description="what answers are held to")
    limits: LimitsConfig = Field(default=LimitsConfig(), description="of requests")
    shadow: ShadowConfig | None = Field(default=None, description="copies to a variant nobody hears")
    exchanges: ExchangesConfig = Field(default=ExchangesConfig(), description="the record of every request")
    watch: WatchConfig = Field(
        default=WatchConfig(), description="live evidence on what is released, and what follows from it"
    )
    telemetry: bool = Field(
        default=True, description="OpenTelemetry to where its own variables name a collector; needs quantgate[otel]"
    )
    admin: bool = Field(default=True, description="routes of operators under /admin; they demand a key of scope admin")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.registry is not None and self.live is not None:
            raise ValueError("names both 'registry' and 'live'; the registry says what is live, or this file, not both")
        if self.registry is None and self.live is None and self.variants:
            raise ValueError("names 'variants' and not which is live; add 'registry', or 'live: {baseline: NAME}'")
        for role in ("baseline", "stable", "canary"):
            name = self.live and getattr(self.live, role)
            if name and name not in self.variants:
                raise ValueError(f"'live.{role}' is '{name}', which is none of 'variants'; {hint(name, self.variants)}")
        if len({one.name for one in self.routes}) < len(self.routes):
            raise ValueError("two of 'routes' bear one name; give each its own")
        alone = all(one.endpoint is not None and one.endpoint.url for one in self.variants.values())
        if self.workers > 1 and not (self.variants and alone):
            raise ValueError("'workers' over 1 would open or launch models several times; write 'endpoint: {url: ...}'")
        return self


def read_config(path: Path) -> ServeConfig:
    """Files that it names are seen from where it lies. Raises UsageError with one sentence."""
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; name a serve.yaml, or leave --config out") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as broken:
        raise UsageError(f"{path}: cannot be read ({' '.join(str(broken).split())})") from None
    config = parse(ServeConfig, {} if data is None else data, where=str(path))
    return _relative_to(config, path.parent)


def _relative_to(config: ServeConfig, folder: Path) -> ServeConfig:
    def seen(name: str | None) -> str | None:
        return str(folder / name) if name and not Path(name).is_absolute() and not is_address(name) else name

    variants = {name: one.model_copy(update={"artifact": seen(one.artifact)}) for name, one in config.variants.items()}
    model = str(folder / config.model) if (folder / config.model).exists() else config.model
    watch = config.watch.model_copy(update={"classifier": seen(config.watch.classifier)})
    return config.model_copy(update={"variants": variants, "model": model, "data": seen(config.data), "watch": watch})


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as broken:
        raise ValueError(f"'{text}' is no regular expression ({broken})") from None
    return text
