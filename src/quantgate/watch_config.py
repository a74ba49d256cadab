"""``watch:`` of serve.yaml: every key, its type, its default and what it means."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from quantgate.capability_config import Fraction as Share
from quantgate.endpoint_config import Seconds
from quantgate.records import Record


class SignalConfig(Record):
    """What is asked of one signal; left out, what its own file says."""

    off: bool = Field(default=False, description="not read at all")
    weight: float | None = Field(default=None, gt=0, description="of the error rate, beside the other signals")
    margin: float | None = Field(
        default=None, gt=1, description="how many times worse a promotion must have excluded, such as 1.25"
    )
    floor: Share | None = Field(default=None, description="a rate so low that a promotion asks no more, such as 0.5%")
    promotes: bool | None = Field(default=None, description="whether a promotion waits for it")

    @model_validator(mode="before")
    @classmethod
    def _off_is_a_key(cls, given: Any) -> Any:
        """YAML reads a plain ``off`` as false, also where it is a key."""
        return {"off" if key is False else key: one for key, one in given.items()} if isinstance(given, dict) else given


class StepConfig(Record):
    """One step of a ramp."""

    share: Share = Field(gt=0, le=1, description="of sessions")
    margin: float = Field(gt=1, description="how many times worse must have been excluded before the next step")
    least: int = Field(default=200, ge=1, description="sessions on each side before the next step")
    stay: Seconds = Field(default=600.0, ge=0, description="the shortest time before the next step")


class WebhookConfig(Record):
    """Where alarms are told."""

    url: str = Field(description="gets a POST with the verdict as JSON", pattern="^https?://")
    alarms: tuple[str, ...] = Field(default=("rollback", "promote"), description="rollback, promote, hold")
    secret_env: str | None = Field(
        default=None, description="variable of the environment that holds the key of its HMAC signature"
    )
    timeout: Seconds = Field(default=5.0, gt=0, description="for an answer; it is tried again for ten minutes")

    @field_validator("alarms")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if one not in ("rollback", "promote", "hold"):
                raise ValueError(f"'{one}' is told by nobody; choose from rollback, promote, hold")
        return value


STEPS = (
    StepConfig(share=0.01, margin=3.0),
    StepConfig(share=0.05, margin=2.0),
    StepConfig(share=0.25, margin=1.5),
    StepConfig(share=1.0, margin=1.25),
)


class WatchConfig(Record):
    """Live evidence on what is released: what takes it back, and what gives it more."""

    enabled: bool = Field(default=True, description="false: nobody watches, and nothing goes back by itself")
    alpha: Share = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="how often one that is no worse is taken back, in a whole trial or period",
    )
    beta: Share = Field(
        default=0.05, gt=0, lt=1, description="how often a ramp goes on with one that is worse than its margin"
    )
    ratio: float = Field(
        default=1.0, ge=1, description="how many times as many bad events are allowed; beyond it, back it goes"
    )
    period: Seconds = Field(
        default=30 * 86400.0, gt=0, description="after a promotion: the time that 'alpha' is for, renewed for ever"
    )
    rollback: bool = Field(default=True, description="false: alarms only, a person rolls back")
    ramp: bool = Field(default=False, description="true: a canary gets more by itself, step by step")
    steps: tuple[StepConfig, ...] = Field(default=STEPS, description="of the ramp", min_length=1)
    holdback: Share = Field(default=0.02, ge=0, le=0.5, description="of sessions, for the baseline when a ramp is done")
    late: Seconds = Field(default=300.0, gt=0, description="an exchange that is older when it arrives counts no more")
    signals: dict[str, SignalConfig] = Field(default={}, description="by name; quantgate watch --signals lists them")
    bounds: dict[str, Share] = Field(
        default={},
        description="signal -> share of sessions that may go bad in it, such as 2%: what a variant without a holdback "
        "is held against",
    )
    classifier: str | None = Field(
        default=None,
        description="folder of a transformers model that tells refusals, in safetensors; left out, rules tell them",
    )
    webhooks: tuple[WebhookConfig, ...] = Field(default=(), description="who is told of alarms")
    database: str | None = Field(
        default=None, description="of the evidence; left out, where the exchanges are: replicas share both"
    )

    @field_validator("bounds")
    @classmethod
    def _inside(cls, value: dict[str, float]) -> dict[str, float]:
        for name, rate in value.items():
            if not 0.0 < rate < 1.0:
                raise ValueError(f"the bound of '{name}' is {rate:.2%}; give more than 0 % and less than 100 %")
        return value

    @model_validator(mode="after")
    def _upwards(self) -> Self:
        shares = [one.share for one in self.steps]
        if shares != sorted(set(shares)):
            raise ValueError("the shares of 'steps' must grow; sort them, and name none twice")
        return self
