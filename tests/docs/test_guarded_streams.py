"""The page about streams: its example is a configuration whose guards fire."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from quantgate import plugins
from quantgate.guard import validators
from quantgate.guard.admission import admit
from quantgate.guard.selftest import Guarded, prove
from quantgate.records import parse
from quantgate.serve_config import RouteConfig

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guarded-streams.md"


def test_every_guard_of_the_example_fires() -> None:
    block = re.search(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert block
    routes = [parse(RouteConfig, one, where=PAGE.name) for one in yaml.safe_load(block[1])["routes"]]
    guarded = [
        Guarded(
            one.name,
            one.stream,
            validators=validators.build(one.validators, canary=False),
            canary_validators=validators.build(one.validators, canary=True),
            confirm=one.confirm,
        )
        for one in routes
    ]
    assert {"payments: confirm delete_account", "support: forbidden"} <= {one.guard for one in prove(admit, guarded)}


def test_every_validator_and_every_setting_of_it_is_on_the_page() -> None:
    page = PAGE.read_text("utf-8")
    for name in validators.names():
        row = re.search(rf"^\| `{name}` \|.*$", page, re.MULTILINE)
        assert row, name
        settings = plugins.get("validators", name).settings.model_fields
        assert all(f"`{one}`" in row[0] for one in settings), name
