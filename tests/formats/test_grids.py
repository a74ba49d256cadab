"""Grids and schemes: what they hold, what they refuse, how many bytes they take."""

from __future__ import annotations

import pytest

from quantgate.errors import FormatError, RecordError, UnknownName, UsageError
from quantgate.formats import FloatGrid, IntGrid, Scheme, scheme, scheme_names, stored_bytes
from quantgate.records import parse


def test_group_that_does_not_divide_is_refused_in_one_sentence() -> None:
    with pytest.raises(FormatError) as refused:
        IntGrid(bits=4, strategy="group", group_size=16).check_shape(8, 60, "up_proj")
    assert str(refused.value) == (
        "up_proj: 60 input columns do not divide into groups of 16; "
        "choose a group that divides 60, or list 'up_proj' under keep"
    )


@pytest.mark.parametrize("bad", [{"strategy": "group"}, {"strategy": "channel", "group_size": 32}])
def test_group_size_and_strategy_belong_together(bad: dict[str, object]) -> None:
    with pytest.raises(RecordError, match="group_size belongs to the strategies 'group' and 'block'"):
        parse(IntGrid, {"bits": 4, **bad}, where="grid", error=RecordError)


@pytest.mark.parametrize(("bits", "low", "high"), [(2, -2, 1), (3, -4, 3), (4, -8, 7), (8, -128, 127)])
def test_codes_span_two_to_the_bits(bits: int, low: int, high: int) -> None:
    grid = IntGrid(bits=bits)
    assert (grid.low, grid.high) == (low, high)


@pytest.mark.parametrize("name", scheme_names())
def test_scheme_label_names_the_same_scheme(name: str) -> None:
    assert scheme(scheme(name).label) == scheme(name)


@pytest.mark.parametrize(
    ("made", "label"),
    [
        (scheme("W4A16"), "W4A16"),
        (scheme("w4a16", group_size=128), "W4A16"),
        (scheme("W4A16", group_size=64), "W4A16-g64"),
        (scheme("W4A16", group_size=-1), "W4A16-channel"),
        (scheme("W4A16", group_size="channel", symmetric=False), "W4A16-channel-asym"),
        (scheme("W8A16", group_size=32), "W8A16-g32"),
        (scheme("W8A16"), "W8A16"),
        (scheme("W3A16", symmetric=False), "W3A16-asym"),
        (scheme("W4A8", group_size=128), "W4A8"),
        (scheme("W4A8", group_size="channel"), "W4A8-channel"),
        (scheme("W4A4", group_size=128), "W4A4"),
        (scheme("W4A4", group_size=64), "W4A4-g64"),
        (scheme("W4A4", group_size=-1), "W4A4-channel"),
    ],
)
def test_scheme_label_tells_what_differs_from_the_defaults(made: Scheme, label: str) -> None:
    assert made.label == label
    assert scheme(label) == made


def test_schemes_have_the_formats_their_names_say() -> None:
    assert scheme("W4A16").weights == IntGrid(bits=4, strategy="group", group_size=128)
    assert scheme("W8A8").weights == IntGrid(bits=8)
    assert scheme("W8A8").activations == IntGrid(bits=8, strategy="token")
    assert scheme("FP8_DYNAMIC").weights == FloatGrid()
    assert scheme("W4A8").weights == scheme("W4A16").weights
    assert scheme("W4A8").activations == scheme("W8A8").activations
    assert scheme("W4A4").weights == scheme("W4A16").weights
    assert scheme("W4A4").activations == IntGrid(bits=4, strategy="token")
    assert scheme("BF16").weights is None
    packed = {name: scheme(name).packed for name in ("W4A16", "W8A16", "W4A4", "W8A8", "W4A8")}
    assert packed == {"W4A16": True, "W8A16": True, "W4A4": True, "W8A8": False, "W4A8": False}


def test_unknown_scheme_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"release.yaml: unknown scheme 'W4A17'; did you mean 'W4A16'\?"):
        scheme("W4A17", where="release.yaml")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("W8A8", {"group_size": 64}),
        ("FP8_DYNAMIC", {"symmetric": False}),
        ("W4A16", {"group_size": 0}),
        ("W4A16-g64", {"group_size": 32}),
        ("W4A16-asym", {"symmetric": True}),
        ("W4A8", {"symmetric": False}),
        ("W4A4", {"symmetric": False}),
    ],
)
def test_scheme_refuses_options_it_cannot_have(name: str, options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        scheme(name, **options)  # type: ignore[arg-type]


def test_scheme_survives_its_canonical_form() -> None:
    for name in scheme_names():
        assert Scheme.model_validate(scheme(name).body()) == scheme(name)


@pytest.mark.parametrize(
    ("grid", "packed", "bits"),
    [
        (IntGrid(bits=4, strategy="group", group_size=128), True, 4 + 16 / 128),
        (IntGrid(bits=3, strategy="group", group_size=32), True, 3 + 16 / 32),
        (IntGrid(bits=4, strategy="group", group_size=32, symmetric=False), True, 4 + 16 / 32 + 4 / 32),
        (IntGrid(bits=8), False, 8 + 16 / 768),
        (FloatGrid(strategy="tensor"), False, 8 + 16 / (256 * 768)),
        (None, False, 16),
    ],
)
def test_bits_per_weight_count_scales_and_zeros(grid: IntGrid | FloatGrid | None, packed: bool, bits: float) -> None:
    assert stored_bytes(256, 768, grid, packed=packed).bits_per_weight == pytest.approx(bits, rel=1e-12)


def test_packed_bytes_are_those_of_the_tensors() -> None:
    stored = stored_bytes(10, 40, IntGrid(bits=3, strategy="group", group_size=20, symmetric=False))
    # 40 codes of 3 bits take 4 words a row; 10 zero points of 3 bits take 1 word a column
    assert (stored.codes_bytes, stored.scales_bytes, stored.zeros_bytes, stored.shape_bytes) == (160, 40, 8, 16)
    assert stored.total_bytes == 224
