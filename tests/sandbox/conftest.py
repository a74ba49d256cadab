"""Boxes of every tier that this machine allows, and of an ordinary user where the tests run as root."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quantgate.sandbox import Tier
from quantgate.sandbox.box import Box, Refused


def box_or_skip(tier: Tier) -> Box:
    try:
        return Box(tier)
    except Refused as reason:
        pytest.skip(f"this machine does not allow tier {tier}: {reason.why}")


@pytest.fixture(scope="session", params=[1, 2], ids=["tier1", "tier2"])
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    made = box_or_skip(request.param)
    yield made
    made.close()


@pytest.fixture(scope="session")
def any_box() -> Iterator[Box]:
    """The best tier there is, for what does not depend on it."""
    try:
        made = Box(1)
    except Refused:
        made = box_or_skip(2)
    yield made
    made.close()
