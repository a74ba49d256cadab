"""The watch's database in SQLite and in PostgreSQL: the same tests run on both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.serve.databases import url

from quantgate.serve._ledger_sql import connect
from quantgate.watch.store import Store

__all__ = ["store", "url"]


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    made = Store(connect(url))
    made.create()
    yield made
    made.close()
