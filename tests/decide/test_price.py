"""A price has a unit."""

from __future__ import annotations

from typing import Any

import pytest

from quantgate.decide.price import PriceConfig
from quantgate.errors import UsageError
from quantgate.records import parse
from quantgate.release_config import ReleaseConfig


def priced(price: Any) -> PriceConfig | None:
    data = {"capabilities": ["chat"], "variants": ["W8A16"], "price": price}
    return parse(ReleaseConfig, data, where="release.yaml").price


def test_price_by_the_hour_and_by_the_token() -> None:
    hourly, million, thousand = (
        priced("2.50/h"),
        priced({"prompt": "0.15/M", "completion": "0.60/M"}),
        priced({"prompt": "0.00015/k", "completion": "0.0006 / k"}),
    )
    assert hourly and million and thousand
    assert hourly.of(1e9, 1e9, 1800) == 1.25
    assert hourly.of(1e9, 1e9, None) is None
    assert million.of(2_000_000, 1_000_000, None) == pytest.approx(0.9)
    assert thousand == million


@pytest.mark.parametrize("price", [2.5, "2.50", "2.50/M", "cheap", "2.50/d", {"prompt": 0.15, "completion": "0.60/M"}])
def test_price_without_its_unit_is_refused(price: Any) -> None:
    with pytest.raises(UsageError, match="a price needs its unit; expected a number with /"):
        priced(price)


@pytest.mark.parametrize("price", [{}, {"prompt": "0.15/M"}, {"hour": "1/h", "completion": "0.60/M"}])
def test_half_a_price_is_refused(price: Any) -> None:
    with pytest.raises(UsageError, match=r"expected either 2.50/h, or both of"):
        priced(price)


def test_configuration_without_a_price_keeps_its_digest() -> None:
    config = parse(ReleaseConfig, {"capabilities": ["chat"], "variants": ["W8A16"]}, where="release.yaml")
    assert "price" not in config.body()
    assert "allow_overlap" not in config.body()["calibration"]
