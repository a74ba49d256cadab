"""A small random model, and suites whose right answers are what its full-precision baseline says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from quantgate.engines import Prompt
from quantgate.engines.torch import open_engine
from quantgate.evaluate.scorers.exact import normal
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize import baseline

CASES = 60
BUDGET = 3  # tokens of an answer


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_suite(path: Path, prompts: list[str], answers: list[str]) -> None:
    rows: list[dict[str, object]] = [
        {"id": f"{path.stem}-{at}", "prompt": prompt, "scorer": "exact", "reference": answer, "max_tokens": BUDGET}
        for at, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]
    write_lines(path, rows)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model/``, ``traffic.jsonl`` and the suites ``echo``, ``count``, and ``lost``, which the baseline cannot do."""
    folder = tmp_path_factory.mktemp("place")
    save_random(folder / "model", hidden=64, feed_forward=64, layers=1, heads=2, kv_heads=1, tied=False)
    model = open_model(folder / "model")  # not tied: it would only repeat itself
    engine = open_engine(model, baseline(model))
    for name in ("echo", "count"):
        prompts = [f"{name} {at * at}" for at in range(CASES + 20)]
        asked = [Prompt(turns=(("user", prompt),), max_tokens=BUDGET) for prompt in prompts]
        texts = [answer.text for answer in engine.generate(asked)]  # type: ignore[union-attr]
        kept = [at for at, text in enumerate(texts) if normal(text)][:CASES]
        assert len(kept) == CASES
        write_suite(folder / f"{name}.jsonl", [prompts[at] for at in kept], [texts[at] for at in kept])
    write_suite(folder / "lost.jsonl", [f"lost {at}" for at in range(CASES)], ["never said"] * CASES)
    write_lines(folder / "traffic.jsonl", [{"prompt": f"tell me about {at}", "completion": "no"} for at in range(12)])
    return folder


Release = Callable[..., Path]


@pytest.fixture
def release(place: Path, tmp_path: Path) -> Release:
    """Write a release.yaml about the small model; keywords replace whole keys, ``None`` leaves one out."""

    def write(**changes: object) -> Path:
        settings: dict[str, object] = {
            "model": str(place / "model"),
            "calibration": {"traffic": str(place / "traffic.jsonl"), "samples": 8, "max_tokens": 32},
            "capabilities": {
                name: {"suite": str(place / f"{name}.jsonl"), "margin": "20%"} for name in ("echo", "count")
            },
            "variants": ["W8A16", {"scheme": "W2A16", "group_size": 32, "method": "rtn"}],
            "drift_cases": 0,
            "out": str(tmp_path / "run"),
        } | changes
        path = tmp_path / "release.yaml"
        path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
        return path

    return write
