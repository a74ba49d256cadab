"""One small random model with untied embeddings (its answers vary), and one sweep over it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from quantgate.engines import Prompt
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize import Recipe
from quantgate.quantize.sweep import sweep

RECIPES = [
    Recipe(scheme="W4A16", method="rtn"),
    Recipe(scheme="W4A16", group_size=32, method="rtn"),
    Recipe(scheme="W4A16", group_size=64, method="rtn"),
    Recipe(scheme="W4A16", group_size=16, method="rtn"),
    Recipe(scheme="W4A16", group_size="channel", method="rtn"),
    Recipe(scheme="W4A16", group_size=32, symmetric=False, method="rtn"),
    Recipe(scheme="W3A16", group_size=64, method="rtn"),
    Recipe(scheme="W2A16", group_size=32, method="rtn"),
    Recipe(scheme="W8A16", method="rtn"),
    Recipe(scheme="W8A8", method="rtn"),
    Recipe(scheme="FP8_DYNAMIC", method="rtn"),
]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: Any) -> Any:
    """Llama, hidden 128, feed-forward 384, 2 blocks, context 256, BF16."""
    folder = tmp_path_factory.mktemp("engines") / "tiny"
    return open_model(save_random(folder, feed_forward=384, tied=False, max_position_embeddings=256))


@pytest.fixture(scope="session")
def swept(tiny: Any, tmp_path_factory: Any) -> Any:
    """Recipe name -> artifact."""
    rng = random.Random(0)
    samples = [[rng.randrange(256) for _ in range(32)] for _ in range(4)]
    return {made.name: made for made in sweep(tiny, samples, RECIPES, tmp_path_factory.mktemp("swept"))}


@pytest.fixture(scope="session")
def prompts() -> list[Prompt]:
    """Twenty-four prompts of 3 to 49 tokens with budgets of 1 to 24."""
    rng = random.Random(1)
    return [
        Prompt(
            turns=(("user", "".join(chr(rng.randrange(97, 123)) for _ in range(1 + 2 * at))),), max_tokens=1 + at % 24
        )
        for at in range(24)
    ]
