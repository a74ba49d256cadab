"""An inspection as a record, a table and a page of heatmaps: where precision matters, and for what."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console

from quantgate.quantize.depth import Growth, InputShape
from quantgate.records import Record
from quantgate.report.charts import curves
from quantgate.report.pages import rendered
from quantgate.report.tables import SHORT, plain_table

SHOWN = 12  # layers in the terminal's table


class LayerView(Record):
    """Linear layers that read one input."""

    shape: InputShape
    error: dict[str, float | None]  # variant -> largest share of a layer's output energy lost on the calibration set
    drift: dict[str, dict[str, float]]  # variant -> capability -> foreseen nats per answer token, where it is foreseen


class Inspection(Record):
    """Everything that ``quantgate inspect`` found; ``inspection.json`` is this record."""

    model: str
    weights: str  # digest
    variants: tuple[str, ...]
    labels: tuple[str, ...]  # their schemes
    capabilities: tuple[str, ...]
    layers: tuple[LayerView, ...]  # in the order of the model
    growth: tuple[Growth, ...]
    answer_tokens: dict[str, int]  # capability -> tokens that gradients were taken of


def name_of(layers: Sequence[str]) -> str:
    """``0.attn: q, k, v``: the block, the module, and the layers without their common ending.

    >>> name_of(("model.layers.3.mlp.gate_proj", "model.layers.3.mlp.up_proj"))
    '3.mlp: gate, up'
    """
    parent = layers[0].rpartition(".")[0].removeprefix("model.").removeprefix("layers.").replace("self_attn", "attn")
    return f"{parent}: {', '.join(layer.rpartition('.')[2].removesuffix('_proj') for layer in layers)}"


def short(value: float) -> str:
    """Few enough digits for a narrow column.

    >>> short(0.1234), short(12.34), short(5256.7)
    ('0.12', '12.3', '5257')
    """
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def worst(view: LayerView, variant: str) -> float:
    """The foreseen drift of the capability that the layer moves most; 0 where nothing is foreseen."""
    return max(view.drift.get(variant, {}).values(), default=0.0)


def show_inspection(found: Inspection, console: Console) -> None:
    """The layers that matter most under the smallest variant, and each variant's error behind the last block."""
    variant = max(found.variants, key=lambda name: sum(worst(view, name) for view in found.layers))
    ordered = sorted(found.layers, key=lambda view: -worst(view, variant))[:SHOWN]
    shown = f"the {SHOWN} most sensitive of {len(found.layers)} groups" if len(found.layers) > SHOWN else "all groups"
    console.print(f"{shown} of layers that read one input, under {variant}")
    inputs = plain_table("layers", ("outlier", "kurtosis", "error %"), "right")
    drift = plain_table("KL foreseen", [SHORT.get(one, one) for one in found.capabilities], "right")
    for view in ordered:
        name, error = name_of(view.shape.layers), view.error[variant]
        lost = "-" if error is None else short(100 * error)
        inputs.add_row(name, short(view.shape.max_over_median), short(view.shape.kurtosis), lost)
        drift.add_row(name, *(short(1000 * view.drift[variant][one]) for one in found.capabilities))
    console.print(inputs)
    console.print(
        "outlier: the largest |x| of a channel over that of the median channel; error: output energy lost", style="dim"
    )
    console.print(drift)
    console.print("in thousandths of a nat per answer token", style="dim")
    growth = plain_table("error behind block", [str(at) for at in _some(len(found.growth[0].error))], "right")
    for one in found.growth:
        growth.add_row(one.variant, *(f"{100 * one.error[at]:.2g}" for at in _some(len(one.error))))
    console.print(growth)
    console.print("percent of the hidden state's energy", style="dim")


def _some(blocks: int) -> list[int]:
    """At most eight blocks, the first and the last among them."""
    if blocks <= 8:
        return list(range(blocks))
    return sorted({round(at * (blocks - 1) / 7) for at in range(8)})


def inspection_page(found: Inspection) -> str:
    """One self-contained HTML page: a heatmap per variant, the inputs, and the growth of errors with depth."""
    return rendered(
        "inspection.html",
        found=found,
        title=Path(found.model).name if Path(found.model).is_absolute() else found.model,
        maps=[_heatmap(found, name, label) for name, label in zip(found.variants, found.labels, strict=True)],
        inputs=_inputs(found),
        growth=curves([(one.variant, one.error) for one in found.growth], "block", "error"),
        name_of=name_of,
    )


def _heatmap(found: Inspection, variant: str, label: str) -> dict[str, Any]:
    """Rows of (name, error cell, one cell a capability); colours by logarithm over two decades."""
    drifts = [one for view in found.layers for one in view.drift.get(variant, {}).values()]
    errors = [one for view in found.layers if (one := view.error[variant]) is not None]
    drift_heat, error_heat = _heat(max(drifts, default=0.0)), _heat(max(errors, default=0.0))
    rows = []
    for view in found.layers:
        error = view.error[variant]
        cells = [("-", "") if error is None else (f"{100 * error:.2g} %", error_heat(error))]
        moved = view.drift.get(variant)
        cells += [
            ("-", "") if moved is None else (f"{1000 * moved[one]:.2g}", drift_heat(moved[one]))
            for one in found.capabilities
        ]
        rows.append((name_of(view.shape.layers), cells))
    sums = [sum(view.drift.get(variant, {}).get(one, 0.0) for view in found.layers) for one in found.capabilities]
    return {"variant": variant, "label": label, "rows": rows, "totals": [f"{1000 * one:.2g}" for one in sums]}


def _inputs(found: Inspection) -> list[tuple[str, list[tuple[str, str]]]]:
    outlier = _heat(max(view.shape.max_over_median for view in found.layers))
    peaked = _heat(max(view.shape.kurtosis for view in found.layers))
    return [
        (
            name_of(view.shape.layers),
            [
                (f"{view.shape.channels}", ""),
                (f"{view.shape.max_over_median:.1f}", outlier(view.shape.max_over_median)),
                (f"{view.shape.largest}", ""),
                (f"{view.shape.kurtosis:.1f}", peaked(view.shape.kurtosis)),
            ],
        )
        for view in found.layers
    ]


def _heat(largest: float) -> Callable[[float], Markup]:
    """A cell's background: none at a hundredth of the largest, full at the largest."""

    def style(value: float) -> Markup:
        share = 0.0 if largest <= 0 or value <= 0 else max(0.0, 1 + math.log10(value / largest) / 2)
        return Markup(f"--heat: {share:.2f}")

    return style
