"""The folder is the registry: ``quantize/methods/gptq.py`` is the method ``gptq``; its last line is ``METHOD = ...``.

A room is a package; its plug-ins are the modules in it whose names do not start with an underscore, plus what installed
packages offer under the entry-point group ``quantgate.<room>``. Only the chosen file is imported, so it may import its
optional package at the top; a missing one becomes a sentence that names the extra to install.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import re
from functools import cache
from typing import Any

from quantgate.errors import MissingExtra, UnknownName

ROOMS = {
    "methods": ("quantgate.quantize.methods", "METHOD"),
    "checkpoints": ("quantgate.quantize.checkpoints", "CHECKPOINT"),
    "engines": ("quantgate.engines", "ENGINE"),
    "suites": ("quantgate.evaluate.suites", "SUITE"),
    "published": ("quantgate.evaluate.published", "PUBLISHED"),
    "tailored": ("quantgate.evaluate.tailored", "TAILORED"),
    "scorers": ("quantgate.evaluate.scorers", "SCORER"),
    "validators": ("quantgate.guard.validators", "VALIDATOR"),
    "signals": ("quantgate.watch.signals", "SIGNAL"),
}


@cache
def names(room: str) -> tuple[str, ...]:
    """The plug-ins of a room, sorted; importing none of them."""
    package = importlib.import_module(ROOMS[room][0])
    own = {module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")}
    return tuple(sorted(own | {point.name for point in _entry_points(room)}))


def get(room: str, name: str, *, where: str = "") -> Any:
    """The plug-in object ``name`` of ``room``. Raises UnknownName (nearest name), MissingExtra (the extra)."""
    if name not in names(room):
        raise UnknownName(room.removesuffix("s"), name, names(room), where=where)
    package, attribute = ROOMS[room]
    for point in _entry_points(room):
        if point.name == name:
            return point.load()
    try:
        module = importlib.import_module(f"{package}.{name}")
    except ModuleNotFoundError as missing:
        root = (missing.name or "").partition(".")[0]
        if root == "quantgate":
            raise
        raise MissingExtra(
            f"{room.removesuffix('s')} '{name}' needs the package '{root}', which is not installed; "
            f"run: pip install '{_extra_for(root)}'"
        ) from None
    return getattr(module, attribute)


@cache
def _entry_points(room: str) -> tuple[importlib.metadata.EntryPoint, ...]:
    return tuple(importlib.metadata.entry_points(group=f"quantgate.{room}"))


def _extra_for(module: str) -> str:
    """``quantgate[extra]`` for the extra whose requirements bring ``module``, else the bare package name."""
    try:
        requirements = importlib.metadata.requires("quantgate") or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []
    for requirement in requirements:
        package = re.split(r"[^A-Za-z0-9_.-]", requirement)[0].replace("-", "_").lower()
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        if extra and module.lower().startswith(package.removesuffix("_python")):
            return f"quantgate[{extra.group(1)}]"
    return module
