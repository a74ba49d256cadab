"""The support matrix as dated data: which kernel of a runtime runs which scheme on which device, and what it is worth.

One YAML file per runtime lies in ``runtimes/``. A row is ``verified`` when this repository ran it, with versions and a
date, else ``documented`` with its source. Rows are tried from above and the first that fits is what runs.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, model_validator

from quantgate.errors import RecordError, UnknownName
from quantgate.formats import Scheme
from quantgate.formats.schemes import BLOCK_SCHEMES, scheme_names
from quantgate.hardware.profiles import Profile
from quantgate.records import Record, parse

FOLDER = Path(__file__).parent / "runtimes"
Status = Literal["verified", "documented"]
Rule = Literal["marlin", "groups", "fused", "fp8_block", "fp4", "torch_int4", "torch_int8"]
ANY, BLOCKS = "*", "ggml"
LEVELS = {"avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"}  # by which x86 kernels differ


class Row(Record):
    """What happens to some schemes on some devices: a kernel, a kernel that is a fallback, or a refusal."""

    schemes: tuple[str, ...]  # by name; ggml: every block scheme of GGUF; *: all
    containers: tuple[str, ...] = ()  # none: any
    vendors: tuple[str, ...] = ()  # none: any
    from_: float | None = Field(default=None, alias="from")  # least compute capability
    below: float | None = None  # compute capabilities from here on do not fit
    symmetric: bool | None = None  # None: either
    experts: bool | None = None  # whether the model has experts; None: either
    kernel: str = ""
    computes: Literal["", "fp32", "fp16", "bf16", "fp8", "fp4", "int8", "int4"] = ""  # type of the products
    decompressed: bool = False  # weights are held, and read, in 16 bits
    resident_bits: float | None = None  # of a code in memory, where it is not what is stored
    read_bits: float | None = None  # of a code as a decoded token reads it, likewise
    share: float = Field(default=1.0, gt=0, le=1)  # of the memory's bandwidth that the kernel reaches, where known
    repacks: tuple[str, ...] = ()  # block formats that are held a second time, in the order the kernel reads
    fallback: str = ""  # what is lost, where it runs another way than the scheme says
    needs: str = ""  # what must be made first
    refuse: str = ""  # why nothing runs
    rules: tuple[Rule, ...] = ()  # geometry that every shard must have
    status: Status = "documented"
    versions: str = ""  # of what was run
    with_: tuple[str, ...] = Field(default=(), alias="with")  # instruction sets of the machine that ran it
    source: str = ""
    date: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Row:
        known = {*scheme_names(), ANY, BLOCKS}
        if strange := [one for one in self.schemes if one not in known]:
            raise ValueError(f"'{strange[0]}' is no scheme")
        if bool(self.refuse) == bool(self.kernel and self.computes):
            raise ValueError("names a kernel and what it computes in, or says why it refuses: one of the two")
        if self.status == "verified" and not (self.versions and self.date and self.source and self.with_):
            raise ValueError("is verified and does not say with which versions and instruction sets, when and where")
        return self

    def ran_on(self, device: Profile) -> bool:
        """Whether it was run on a processor with just these instruction sets: others take other code paths."""
        return self.status == "verified" and set(self.with_) == set(device.features) & LEVELS

    def fits(self, scheme: Scheme, container: str, device: Profile, *, experts: bool) -> bool:
        """Whether the row speaks of this scheme, container and device."""
        named = ANY in self.schemes or scheme.name in self.schemes
        named = named or (BLOCKS in self.schemes and scheme.name in BLOCK_SCHEMES)
        weights = scheme.weights
        even = self.symmetric is None or (weights is not None and weights.symmetric == self.symmetric)
        capability = device.compute_capability
        least = self.from_ is None or (capability is not None and capability >= self.from_)
        most = self.below is None or (capability is not None and capability < self.below)
        return (
            named
            and even
            and least
            and most
            and (not self.containers or scheme.name == "BF16" or container in self.containers)
            and (not self.vendors or device.vendor in self.vendors)
            and (self.experts is None or self.experts == experts)
        )


class Runtime(Record):
    """One runtime: what it needs besides weights and cache, and its rows."""

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    utilization: float = Field(default=1.0, gt=0, le=1)  # of a device's memory that it takes
    chunk: int = Field(ge=0)  # tokens of a prompt that go through the network at once; 0: all
    process: int = Field(default=0, ge=0)  # MB that it holds before a model, where that was measured
    step_calls: int = Field(default=0, ge=0)  # what a step takes beside its arithmetic, in small torch operations
    block_calls: int = Field(default=0, ge=0)  # and what each decoder block takes
    opens_plain: bool = False  # the model is whole in 16 bits while it is opened
    kv_cache: tuple[str, ...]  # what keys and values may be cached in, the usual one first
    kv_rule: str
    kv_stored_bits: float | None = None  # of a cached number, where it is not what it was rounded to
    source: str
    date: str
    rows: tuple[Row, ...]


def runtimes() -> tuple[str, ...]:
    return tuple(sorted(_all()))


def runtime_name(name: str, *, where: str = "") -> str:
    """The runtime called ``name`` or an alias of it. Raises UnknownName with the nearest."""
    plain = name.strip().lower()
    for one in _all().values():
        if plain in (one.name, *one.aliases):
            return one.name
    raise UnknownName("runtime", name, runtimes(), where=where)


def runtime(name: str, *, where: str = "") -> Runtime:
    return _all()[runtime_name(name, where=where)]


@cache
def _all() -> dict[str, Runtime]:
    found = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        common = {"source": data["source"], "date": data["date"]}
        data["rows"] = [common | row for row in data["rows"]]
        one = parse(Runtime, data, where=str(file), error=RecordError)
        found[one.name] = one
    return found
