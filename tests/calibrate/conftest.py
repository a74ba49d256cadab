"""Traffic by hand, and a small random model whose tokens are bytes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantgate.models import open_model
from quantgate.models.random import save_random

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("models") / "small"
    return open_model(save_random(folder, hidden=32, layers=1, feed_forward=32, max_position_embeddings=4096))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows (JSON values, or text as it is) to a file; packed where its name ends with .gz."""

    def write(rows: list[Any], name: str = "traffic.jsonl") -> Path:
        lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
        raw = b"".join(line + b"\n" for line in lines)
        (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return tmp_path / name

    return write
