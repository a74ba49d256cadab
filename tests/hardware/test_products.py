"""Products of int8 numbers are exact, with instructions for them and without."""

from __future__ import annotations

import pytest
import torch

from quantgate.hardware import products


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("inner", [16, products.EXACT, 3 * products.EXACT + 8])
def test_products_of_integers_are_exact(native: bool, inner: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(products.NATIVE, torch.int8, native)
    made = torch.Generator().manual_seed(inner)
    left, right = (
        torch.randint(-128, 128, size, dtype=torch.int8, generator=made) for size in ((5, inner), (inner, 8))
    )
    left[0], right[:, 0] = -128, -128  # the largest sum there is
    found = products.integers(left, right)
    assert found.dtype is torch.int32 and torch.equal(found.long(), left.long() @ right.long())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("native", [True, False])
def test_a_square_times_itself_keeps_its_kind(native: bool, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(products.NATIVE, kind, native)
    found = products.square(torch.ones(16, 16, dtype=kind))
    assert found.dtype is (torch.int32 if kind is torch.int8 else kind) and bool((found == 16).all())
