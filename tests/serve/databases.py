"""The gateway's own database in SQLite and in PostgreSQL: the same tests run on both."""

from __future__ import annotations

import pytest
from tests.postgres import Postgres

__all__ = ["url"]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path) -> str:
    """Of a database with nothing in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.url()
