"""What asking costs: a price with its unit, by the machine's hour or by the token."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from quantgate.records import Record

SCALES = {"h": 1.0, "M": 1.0, "k": 1000.0}  # to what is kept: an hour, a million tokens


def _rate(*units: str) -> BeforeValidator:
    def read(value: Any) -> float:
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*/\s*(\w+)\s*", str(value))
        if not found or found[2] not in units:
            raise ValueError(f"a price needs its unit; expected a number with /{' or /'.join(units)}, found '{value}'")
        return float(found[1]) * SCALES[found[2]]

    return BeforeValidator(read)


def _hourly(value: Any) -> Any:
    return {"hour": value} if isinstance(value, str | int | float) else value


class PriceConfig(Record):
    """A price in whatever money; a number without its unit is refused."""

    hour: Annotated[float, _rate("h")] | None = Field(default=None, description="of the machine, such as 2.50/h")
    prompt: Annotated[float, _rate("M", "k")] | None = Field(
        default=None, description="of a prompt's tokens: 0.15/M for a million, or 0.00015/k for a thousand"
    )
    completion: Annotated[float, _rate("M", "k")] | None = Field(default=None, description="likewise of an answer's")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        by_token = [self.prompt, self.completion]
        if None in by_token if self.hour is None else by_token != [None, None]:
            raise ValueError("expected either 2.50/h, or both of {prompt: 0.15/M, completion: 0.60/M}")
        return self

    def of(self, prompt_tokens: float, answer_tokens: float, seconds: float | None) -> float | None:
        """The price of that much; None where it goes by the hour and nobody knows the time.

        >>> PriceConfig(prompt="0.15/M", completion="0.60/M").of(2e6, 1e6, None)
        0.9
        """
        if self.hour is not None:
            return None if seconds is None else self.hour * seconds / 3600
        return ((self.prompt or 0.0) * prompt_tokens + (self.completion or 0.0) * answer_tokens) / 1e6


Price = Annotated[PriceConfig, BeforeValidator(_hourly)]
