"""Profiles of products: rules to start from, which the user sees and can change. One file each, with reasons.

A target's own word goes before its profile's, and the profile's before the release's margins.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from quantgate.errors import RecordError, UnknownName
from quantgate.records import Record, parse

FOLDER = Path(__file__).parent


class Margin(Record):
    margin: str  # as release.yaml has it: "3%"
    because: str


class Rule(Record):
    value: Any = Field(description="as release.yaml has it")
    because: str


class Product(Record):
    """One profile. Keys of ``rules`` are those of a target."""

    name: str
    title: str
    margins: dict[str, Margin]  # by capability, or by the suite that it names
    otherwise: str  # margin of every other capability
    rules: dict[str, Rule]

    def margin(self, capability: str, suite: str | None) -> str:
        """What the profile allows a capability to lose."""
        found = self.margins.get(capability) or self.margins.get(suite or "")
        return found.margin if found else self.otherwise


def names() -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in FOLDER.glob("*.yaml")))


@cache
def product(name: str) -> Product:
    """Raises UnknownName with the nearest known profile."""
    if name not in names():
        raise UnknownName("profile", name, names())
    file = FOLDER / f"{name}.yaml"
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    return parse(Product, {"name": name, **data}, where=str(file), error=RecordError)


def with_product(target: Mapping[str, Any], capabilities: Mapping[str, str | None]) -> dict[str, Any]:
    """A target as written, with every rule of its profile that it does not say itself.

    ``capabilities``: those of the release, each with the suite that it names. Raises UnknownName.
    """
    chosen = product(str(target["profile"]))
    needed = target.get("capabilities")
    named = dict.fromkeys(needed) if isinstance(needed, list) else needed
    if named is None:
        named = dict.fromkeys(capabilities)
    if not isinstance(named, Mapping):
        return dict(target)  # refused where it is read
    margins = {
        name: chosen.margin(name, capabilities.get(name)) if told is None else told for name, told in named.items()
    }
    rules = {key: rule.value for key, rule in chosen.rules.items()}
    return {**rules, **target, "capabilities": margins}
