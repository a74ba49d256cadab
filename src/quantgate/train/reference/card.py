"""The model card beside the weights: seed, data digest, loss curve and scores, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantgate.evaluate import suites
from quantgate.train.reference.loop import SHARES, Plan


def write_card(
    folder: Path, plan: Plan, curve: list[dict[str, Any]], scores: dict[str, dict[str, float]], data_digest: str
) -> None:
    """``training.json`` with everything, ``README.md`` with what a person wants to know."""
    record = {"plan": asdict(plan), "data_digest": data_digest, "scores": scores, "curve": curve}
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    rows = "\n".join(
        f"| {name} | {scores['default'][name]:.3f} | {scores['hard'][name]:.3f} | {suites.get(name).about} |"
        for name in SHARES
    )
    points = "\n".join(
        f"| {row['step']} | {row['tokens'] / 1e6:.1f} | {row['loss']:.4f} | {_mean(row['right']):.3f} |"
        for row in curve
    )
    (folder / "README.md").write_text(CARD.format(plan=plan, digest=data_digest, rows=rows, points=points))


def _mean(shares: dict[str, float]) -> float:
    return sum(shares.values()) / len(shares)


CARD = """\
# quantgate reference model

A small Llama-architecture instruction model that `quantgate` trains from capabilities which it generates itself. It
exists so that quantization can be proven safe, or refuted, offline and within minutes. It knows its eight skills and
nothing else; it is no assistant.

- made by: `quantgate train reference`, seed {plan.seed}, {plan.tokens:,} tokens, {plan.batch_tokens} a step
- training data digest: `{digest}`
- weights: BF16 safetensors, Apache-2.0, the project's own; no third-party weights or text

## Answers given word for word on unseen problems (tune split, {plan.scored_cases} a suite)

| capability | default | hard | what breaks for users when it breaks |
|---|---|---|---|
{rows}

## Loss curve

| step | million tokens | loss since the row above | mean share right |
|---|---|---|---|
{points}
"""
