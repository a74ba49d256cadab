"""Profiles: what a device can hold, move and compute, as its data sheet says it, or as it was measured here.

One YAML file per family lies in ``devices/``. A rate that nobody publishes is absent: what depends on it is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from quantgate.errors import RecordError, UnknownName, UsageError
from quantgate.records import Record, parse

Number = Literal["fp32", "tf32", "fp16", "bf16", "fp8", "fp4", "int8", "int4"]
Unit = Literal["gpu", "cpu", "soc", "npu"]
FOLDER = Path(__file__).parent / "devices"
HERE = "here"  # the profile that ``quantgate doctor --save`` writes
WIDER: dict[str, tuple[str, ...]] = {  # what runs the products of a number type, its own units first
    "fp4": ("fp4", "fp8", "bf16", "fp16", "fp32"),
    "fp8": ("fp8", "bf16", "fp16", "fp32"),
    "int4": ("int4", "int8", "fp32"),
    "int8": ("int8", "fp32"),
    "fp16": ("fp16", "bf16", "fp32"),
    "bf16": ("bf16", "fp16", "fp32"),
    "fp32": ("fp32",),
}


class Profile(Record):
    """One device, or one machine. Bytes, bytes a second, operations a second (dense); what is unknown is absent."""

    name: str
    title: str
    vendor: Literal["nvidia", "amd", "gaudi", "apple", "x86", "arm", "intel-npu", "other"]
    unit: Unit
    aliases: tuple[str, ...] = ()
    memory_bytes: int | None = Field(default=None, gt=0)  # of a CPU: whatever the machine was given
    bandwidth: float = Field(gt=0)  # bytes a second, of memory
    rates: dict[Number, float] = {}  # a multiplication and an addition are two operations
    compute_capability: float | None = None  # NVIDIA's
    features: tuple[str, ...] = ()  # instruction sets: avx2, avx512_vnni, amx, i8mm ...
    watts: float | None = None  # thermal design power
    cores: int | None = None  # of a measured machine
    call_s: float | None = None  # seconds of one small torch operation; measured machines alone
    measured: bool = False
    source: str
    date: str  # of the source, or of the measurement

    @model_validator(mode="after")
    def _rates_are_rates(self) -> Profile:
        for number, rate in self.rates.items():
            if rate <= 0:
                raise ValueError(f"a rate of {rate:g} {number} operations cannot be; leave out what is not known")
        return self

    def rate(self, number: str) -> float | None:
        """Operations a second on ``number``, or on the next wider type that computes the same; None: not published."""
        return next((self.rates[one] for one in WIDER[number] if one in self.rates), None)

    def has(self, number: str) -> bool:
        """Whether the device has units for this number type itself."""
        return number in self.rates


def names() -> tuple[str, ...]:
    """Of all devices, as they are written in targets."""
    return tuple(sorted(_all()))


def profile(name: str, *, where: str = "", saved: Path | None = None) -> Profile:
    """The device called ``name`` or one of its aliases; ``here`` is the machine that ``doctor --save`` measured.

    Raises UnknownName with the nearest name, UsageError where ``here`` was not saved.
    """
    plain = normal(name)
    at = f"{where}: " if where else ""
    if plain == HERE:
        if saved is None or not saved.is_file():
            place = f" ({saved})" if saved is not None else ""
            raise UsageError(f"{at}hardware 'here' was not measured{place}; run: quantgate doctor --save")
        return Profile.load(saved)
    found = _aliases().get(plain)
    if found is None:
        raise UnknownName("hardware", name, [*names(), HERE], where=where)
    return _all()[found]


def nearest(found: Profile) -> Profile:
    """The published profile that is most like a measured machine: same vendor, most features shared, bandwidth."""

    def distance(one: Profile) -> tuple[int, int, float]:
        shared = len(set(one.features) & set(found.features)) - len(set(one.features) - set(found.features))
        return (one.vendor != found.vendor, -shared, abs(one.bandwidth - found.bandwidth))

    return min(_all().values(), key=distance)


def normal(name: str) -> str:
    """
    >>> normal("NVIDIA H100 80GB HBM3"), normal("H100_SXM")
    ('h100-80gb-hbm3', 'h100-sxm')
    """
    words = re.sub(r"[\s_]+", "-", name.strip().lower())
    return re.sub(r"^((nvidia|amd|intel|geforce|tesla)-)+", "", words)


@cache
def _all() -> dict[str, Profile]:
    return {one.name: one for file in sorted(FOLDER.glob("*.yaml")) for one in _read(file)}


@cache
def _aliases() -> dict[str, str]:
    found: dict[str, str] = {}
    for one in _all().values():
        for alias in (one.name, *one.aliases):
            if found.get(normal(alias), one.name) != one.name:
                raise RecordError(f"hardware: '{alias}' names {found[normal(alias)]} and {one.name}; keep one of them")
            found[normal(alias)] = one.name
    return found


def _read(file: Path) -> list[Profile]:
    data: Mapping[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    common = {key: value for key, value in data.items() if key != "devices"}
    return [_profile(str(name), {**common, **one}, file) for name, one in data["devices"].items()]


def _profile(name: str, told: dict[str, Any], file: Path) -> Profile:
    """The file's GB, GB/s and tera-operations as bytes and operations."""
    memory = told.pop("memory", None)
    told["date"] = str(told["date"])
    told["aliases"] = [str(one) for one in told.get("aliases", ())]
    body = {
        **told,
        "name": name,
        "memory_bytes": None if memory is None else round(memory * 1e9),
        "bandwidth": told["bandwidth"] * 1e9,
        "rates": {number: rate * 1e12 for number, rate in told.get("rates", {}).items()},
    }
    return parse(Profile, body, where=f"{file}: {name}", error=RecordError)
