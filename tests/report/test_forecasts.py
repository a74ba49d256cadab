"""The dry run's table, and the sentence for a machine that is too small."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from quantgate.quantize.duration import Duration
from quantgate.quantize.footprint import Footprint
from quantgate.quantize.forecast import Forecast
from quantgate.quantize.predict import Predicted
from quantgate.quantize.workload import Tokens
from quantgate.report.forecasts import advice, show_forecast, span

MEMORY = Footprint(400_000_000, 8_000_000, 3_000_000, 4_000_000, 0, 85_000_000, "forward")
VARIANT = Predicted("W4A16", "int4 g128", "gptq", 24, 0, 2_500_000, 4.13, ("lm_head: kept as bf16",))
TIME = Duration(check=1, forward=60, statistics=40, factor=20, scales=10, solve=40, finish=8, write=1)
TOLD = Forecast((VARIANT,), MEMORY, TIME, Tokens(9000, 9200, 4096, 256), free=2_000_000_000)


def shown(told: Forecast) -> str:
    console = Console(file=io.StringIO(), width=100)
    show_forecast(told, Path("artifacts"), console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_disk_memory_and_time_stand_in_one_table() -> None:
    text = shown(TOLD)
    for part in (
        "int4 g128, by gptq",
        "W4A16: lm_head: kept as bf16",
        "2.5 MB",
        "500.0 MB",
        "process 400.0",
        "3 min (1.5 to 6)",
        "9,000 calibration",
    ):
        assert part in text
    assert "solved layers" not in text
    assert "are free" not in text


def test_too_little_memory_is_told_with_what_to_do() -> None:
    text = " ".join(shown(replace(TOLD, free=50_000_000)).split())
    assert "100.0 MB more than now are needed and 50.0 MB are free; free some memory" in text


@pytest.mark.parametrize(
    ("memory", "variants", "do"),
    [
        (replace(MEMORY, hidden=10**9), 1, "fewer or shorter calibration samples"),
        (replace(MEMORY, moment="solve"), 4, "fewer variants at once"),
        (replace(MEMORY, moment="factor"), 1, "keep the widest layers"),
        (MEMORY, 1, "a machine with more"),
    ],
)
def test_the_advice_fits_what_takes_most(memory: Footprint, variants: int, do: str) -> None:
    assert do in advice(replace(TOLD, memory=memory, variants=(VARIANT,) * variants))


def test_nobody_telling_what_is_free_is_no_shortage() -> None:
    assert replace(TOLD, free=None).fits
    assert not replace(TOLD, free=99_000_000).fits


@pytest.mark.parametrize(
    ("factor", "text"),
    [(0.01, "1.8 s (0.9 to 3.6)"), (0.4, "72 s (36 to 144)"), (1, "3 min (1.5 to 6)"), (90, "4.5 h")],
)
def test_a_time_is_a_range(factor: float, text: str) -> None:
    assert span(Duration(*(factor * one for one in vars(TIME).values()))).startswith(text)
