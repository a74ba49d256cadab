"""Names that a shell completes: ``--on h100<TAB>``. Each is asked for at the press of a key, so all are cheap.

``quantgate --install-completion`` sets a shell up.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from quantgate.release.store import Registry


def on(incomplete: str) -> list[str]:
    """HARDWARE[:runtime], after the last comma.

    >>> on("h100"), on("t4,l40"), on("h100-sxm:v")
    (['h100-pcie', 'h100-sxm'], ['t4,l40s'], ['h100-sxm:vllm'])
    """
    from quantgate.hardware import HERE, names, runtimes

    before, comma, last = incomplete.rpartition(",")
    device, colon, runtime = last.partition(":")
    if colon:
        return [f"{before}{comma}{device}:{one}" for one in runtimes() if one.startswith(runtime)]
    return [f"{before}{comma}{one}" for one in (*names(), HERE) if one.startswith(device)]


def scheme(incomplete: str) -> list[str]:
    """
    >>> scheme("FP8_")
    ['FP8_BLOCK', 'FP8_DYNAMIC']
    """
    from quantgate.formats import scheme_names

    return [one for one in scheme_names() if one.startswith(incomplete)]


def suite(incomplete: str) -> list[str]:
    """
    >>> suite("mat")
    ['math']
    """
    from quantgate import plugins

    return [one for one in plugins.names("suites") if one.startswith(incomplete)]


def arrivals(incomplete: str) -> list[str]:
    """
    >>> arrivals("b")
    ['bursts']
    """
    return [one for one in ("poisson", "constant", "bursts") if one.startswith(incomplete)]


def target(context: typer.Context, incomplete: str) -> list[str]:
    """Targets of the registry that the command line, the environment or the default names."""
    from quantgate.errors import QuantgateError

    try:
        return [one for one in _registry(context).targets() if one.startswith(incomplete)]
    except QuantgateError:
        return []


def variant(context: typer.Context, incomplete: str) -> list[str]:
    """Variants that were decided for the target that stands before them."""
    from quantgate.errors import QuantgateError

    try:
        registry = _registry(context)
        told = context.params.get("target")
        known = dict.fromkeys(one.name for one in registry.variants(told))
        return [one for one in known if one.startswith(incomplete)]
    except QuantgateError:
        return []


def _registry(context: typer.Context) -> Registry:
    from quantgate.release.database import DEFAULT_URL
    from quantgate.release.store import Registry

    return Registry.open(context.params.get("registry") or os.environ.get("QUANTGATE_REGISTRY") or DEFAULT_URL)


def kv_cache(incomplete: str) -> list[str]:
    """
    >>> kv_cache("q8")
    ['q8_0']
    """
    from typing import get_args

    from quantgate.hardware.targets import KvCache

    return [one for one in get_args(KvCache) if one.startswith(incomplete)]


def training_option(incomplete: str) -> list[str]:
    """
    >>> training_option("learn"), training_option("precision=f")
    (['learning_rate='], ['precision=float32'])
    """
    from typing import get_args

    from quantgate.train.options import SHAPE, DistillOptions, QatOptions

    fields = {**DistillOptions.model_fields, **QatOptions.model_fields}
    key, mark, begun = incomplete.partition("=")
    if not mark:
        return [f"{name}=" for name in fields if name.startswith(key) and name not in SHAPE]
    known = get_args(fields[key].annotation) if key in fields else ()
    return [f"{key}={one}" for one in known if isinstance(one, str) and one.startswith(begun)]
