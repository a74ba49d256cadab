"""Devices as dated data: every one whole, found by any of its names, and unknown ones answered with the nearest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quantgate.errors import RecordError, UnknownName, UsageError
from quantgate.hardware import HERE, Profile, names, nearest, profile
from quantgate.hardware.profiles import normal


@pytest.mark.parametrize("name", names())
def test_every_device_has_a_source_a_date_and_a_plausible_bandwidth(name: str) -> None:
    found = profile(name)
    assert found.source and re.fullmatch(r"\d{4}(-\d\d)?(-\d\d)?", found.date)
    assert 10e9 < found.bandwidth < 20e12
    assert found.memory_bytes is None or 4e9 < found.memory_bytes < 1e12
    assert found.unit == "cpu" or found.memory_bytes
    assert found.vendor != "nvidia" or found.compute_capability
    assert "http" not in found.source


@pytest.mark.parametrize("name", names())
def test_narrower_numbers_are_never_slower_where_both_rates_are_published(name: str) -> None:
    rates = profile(name).rates
    for wide, narrow in (("fp32", "bf16"), ("bf16", "int8"), ("bf16", "fp8"), ("fp8", "fp4"), ("int8", "int4")):
        if wide in rates and narrow in rates:
            assert rates[narrow] >= rates[wide]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("H100", "h100-sxm"), ("NVIDIA H100 80GB HBM3", "h100-sxm"), ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("Tesla T4", "t4"), ("NVIDIA A100-SXM4-80GB", "a100-80"), ("rtx_5090", "rtx-5090"), ("laptop", "cpu-avx512"),
    ],
)  # fmt: skip
def test_a_device_is_found_by_what_people_and_drivers_call_it(written: str, name: str) -> None:
    assert profile(written).name == name


def test_known_figures() -> None:
    h100, t4 = profile("h100-sxm"), profile("t4")
    assert (h100.memory_bytes, h100.bandwidth, h100.rates["fp8"]) == (80_000_000_000, 3.35e12, 1.979e15)
    assert (h100.compute_capability, t4.compute_capability) == (9.0, 7.5)
    assert "bf16" not in t4.rates and not t4.has("fp8")  # a rate that does not exist is absent, not zero


SHEETS: dict[str, tuple[float | None, float, dict[str, float]]] = {  # GB, GB/s, dense tera-operations, off the sheets
    "t4": (16, 320, {"fp16": 65, "int8": 130}),
    "a10": (24, 600, {"bf16": 125, "int8": 250}),
    "l4": (24, 300, {"bf16": 121, "fp8": 242.5}),
    "l40s": (48, 864, {"bf16": 362.05, "fp8": 733}),
    "a100-40": (40, 1555, {"bf16": 312, "int8": 624}),
    "a100-80": (80, 2039, {"bf16": 312, "int8": 624}),
    "h100-sxm": (80, 3350, {"bf16": 989.5, "fp8": 1979, "int8": 1979}),
    "h100-pcie": (80, 2000, {"bf16": 756, "fp8": 1513}),
    "h200": (141, 4800, {"bf16": 989.5, "fp8": 1979}),
    "b200": (180, 8000, {"bf16": 2250, "fp8": 4500, "fp4": 9000}),
    "rtx-3090": (24, 936, {"bf16": 71, "int8": 284}),
    "rtx-4090": (24, 1008, {"bf16": 165.2, "fp8": 330.3, "int8": 660.6}),
    "rtx-5090": (32, 1792, {"bf16": 209.5, "fp8": 419, "fp4": 1676}),
    "mi300x": (192, 5300, {"bf16": 1307.4, "fp8": 2614.9}),
    "gaudi3": (128, 3700, {"bf16": 1835, "fp8": 1835}),
    "m4-max": (128, 546, {}),
    "m1": (16, 68.25, {"fp32": 2.6}),
    "graviton3": (None, 307.2, {"fp32": 5.3248}),
    "graviton4": (None, 536.7, {}),
    "cpu-avx2": (None, 51.2, {"fp32": 0.9728}),
    "cpu-avx512": (None, 83.2, {"bf16": 1.9456, "int8": 3.8912}),
    "cpu-amx": (None, 307.2, {"bf16": 114.688, "int8": 229.376}),
    "phone": (12, 84.8, {}),
    "edge-npu": (32, 136.5, {"int8": 48}),
}  # fmt: skip


@pytest.mark.parametrize("name", SHEETS)
def test_every_device_class_has_the_figures_of_its_sheet_and_no_price(name: str) -> None:
    memory, bandwidth, rates = SHEETS[name]
    found = profile(name)
    assert found.memory_bytes == (None if memory is None else memory * 1e9)
    assert found.bandwidth == bandwidth * 1e9
    assert {one: found.rates.get(one) for one in rates} == {one: rate * 1e12 for one, rate in rates.items()}  # type: ignore[call-overload]
    assert not any("price" in field or "cost" in field for field in type(found).model_fields)


@pytest.mark.parametrize(
    ("name", "features"),
    [("cpu-avx2", {"avx2"}), ("cpu-avx512", {"avx512_vnni", "avx512_bf16"}), ("cpu-amx", {"amx"}),
     ("graviton3", {"i8mm", "sve"})],
)  # fmt: skip
def test_processors_are_classes_by_instruction_set(name: str, features: set[str]) -> None:
    assert features <= set(profile(name).features)


def test_a_rate_that_is_not_published_falls_to_the_next_wider_type_and_then_to_unknown() -> None:
    assert profile("a100").rate("fp8") == profile("a100").rates["bf16"]
    assert profile("m4-max").rate("int8") is None


def test_an_unknown_device_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"^--on: unknown hardware 'h100-sx'; did you mean 'h100-sxm'\?"):
        profile("h100-sx", where="--on")


def test_here_is_what_doctor_saved_and_says_so_where_it_was_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"hardware 'here' was not measured.*run: quantgate doctor --save"):
        profile(HERE, saved=tmp_path / "here.json")
    measured = profile("cpu-avx2").model_copy(update={"name": HERE, "measured": True, "bandwidth": 2e10})
    measured.save(tmp_path / "here.json")
    assert profile("here", saved=tmp_path / "here.json") == measured


def test_a_saved_profile_that_was_edited_is_refused(tmp_path: Path) -> None:
    path = profile("cpu-avx2").save(tmp_path / "here.json")
    path.write_text(path.read_text().replace("51200000000", "99200000000"))
    with pytest.raises(RecordError, match="does not match its digest"):
        profile(HERE, saved=path)


def test_nearest_is_the_same_device_for_a_published_one() -> None:
    for name in ("h100-sxm", "cpu-amx", "cpu-avx2", "m4-max", "graviton3"):
        assert nearest(profile(name)).name == name


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="leave out what is not known"):
        Profile(
            name="x", title="x", vendor="other", unit="gpu", bandwidth=1.0, rates={"fp8": 0.0}, source="x", date="2026"
        )


def test_names_are_normal_already() -> None:
    assert [normal(name) for name in names()] == list(names())
