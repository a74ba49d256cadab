"""Products of 16-bit numbers in float32: the same numbers rounded once, few rows left to torch, tied weights kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quantgate.engines._products import ROWS, WideLinear, linear, widen
from quantgate.hardware import products

CPU = torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["native", "widened"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A CPU with and one without such instructions."""
    monkeypatch.setitem(products.NATIVE, torch.bfloat16, request.param)
    return bool(request.param)


@pytest.mark.parametrize("rows", [1, ROWS - 1, ROWS, 70])
@pytest.mark.parametrize("biased", [True, False])
def test_products_are_those_of_float32_rounded_once(native: bool, rows: int, biased: bool) -> None:
    made = torch.Generator().manual_seed(rows)
    x, weight = (torch.randn(*shape, generator=made).bfloat16() for shape in ((rows, 96), (40, 96)))
    bias = torch.randn(40, generator=made).bfloat16() if biased else None
    found = linear(x.view(1, rows, 96), weight, bias)[0]
    exact = x.double() @ weight.double().t() + (0 if bias is None else bias.double())
    assert found.dtype is torch.bfloat16 and found.shape == (rows, 40)
    if not native and rows >= ROWS:  # the nearest number, unless float32's own rounding tips a tie
        assert (found == exact.bfloat16()).float().mean() > 0.995
    torch.testing.assert_close(found.double(), exact, rtol=2**-7, atol=2**-7)


def test_plain_layers_are_made_wide_in_place_and_a_tied_table_stays_tied(native: bool) -> None:
    table, head = nn.Embedding(12, 8), nn.Linear(8, 12, bias=False)
    head.weight = table.weight
    network = nn.Sequential(table, head).bfloat16()
    assert widen(network, torch.bfloat16, CPU) is not native
    assert isinstance(network[1], WideLinear) is not native and network[1].weight is table.weight
    assert network(torch.arange(12)).dtype is torch.bfloat16


def test_float32_and_other_devices_are_left_alone(native: bool) -> None:
    network = nn.Sequential(nn.Linear(4, 4))
    assert not widen(network, torch.float32, CPU)
    assert not widen(network, torch.bfloat16, torch.device("meta"))
    assert type(network[0]) is nn.Linear
