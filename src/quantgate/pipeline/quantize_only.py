"""A model and variants become artifacts, without judging them: what ``quantgate quantize`` runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantgate.errors import Stopped, UsageError
from quantgate.models import open_model
from quantgate.pipeline.cases import calibration_of
from quantgate.pipeline.lock import alone_in
from quantgate.pipeline.two_models import Progress
from quantgate.pipeline.variants import recipes_of
from quantgate.records import parse
from quantgate.release_config import ReleaseConfig

if TYPE_CHECKING:
    from quantgate.quantize import Artifact
    from quantgate.quantize.forecast import Forecast
    from quantgate.quantize.predict import Predicted
    from quantgate.quantize.reuse import Reuse

FORM = "SCHEME[:method][~rotation][@kv_cache][+container]"
SHORT = re.compile(
    r"(?P<scheme>[^:~@+\s]+)(?::(?P<method>\w+))?(?:~(?P<rotation>\w+))?(?:@(?P<kv_cache>\w+))?(?:\+(?P<container>\w+))?"
)


def short_variant(text: str) -> dict[str, Any]:
    """``W4A16``, ``W4A16-g64:awq@fp8``, ``W3A16:gptq~hadamard+gptq_v2``: scheme, method, rotation, KV cache, container.

    >>> short_variant("W4A16:gptq+awq")
    {'scheme': 'W4A16', 'method': 'gptq', 'container': 'awq'}
    """
    found = SHORT.fullmatch(text)
    if found is None:
        raise UsageError(f"variant '{text}': expected {FORM}, such as W4A16:awq@fp8 or W3A16:gptq~hadamard")
    return {key: value for key, value in found.groupdict().items() if value is not None}


def _config(
    model: str,
    variants: Sequence[str | dict[str, Any]],
    keep: Sequence[str],
    calibration: dict[str, Any],
    outside: Mapping[str, Any],
) -> ReleaseConfig:
    more = {"keep": list(keep), **outside}
    data = {
        "model": model,
        "variants": [short_variant(one) | more if isinstance(one, str) else one for one in variants],
        "capabilities": {"chat": {}},  # a release names at least one; none is asked here
        "calibration": calibration,
    }
    return parse(ReleaseConfig, data, where="quantize")


def predict(
    model: str, variants: Sequence[str | dict[str, Any]], *, keep: Sequence[str] = (), **outside: Any
) -> list[Predicted]:
    """Sizes of the artifacts that ``quantize`` would write. Raises UsageError, FormatError and ModelError."""
    from quantgate.quantize.predict import predict as sizes

    config = _config(model, variants, keep, {}, outside)
    return sizes(open_model(model), recipes_of(config.variants), calibrated=True)


def forecast(
    model: str,
    variants: Sequence[str | dict[str, Any]],
    *,
    keep: Sequence[str] = (),
    traffic: Path | str | None = None,
    samples: int = 256,
    max_tokens: int = 512,
    seed: int = 0,
    **outside: Any,
) -> Forecast:
    """Disk, peak memory and time of the same call of ``quantize``; draws its calibration set and writes nothing.

    Raises what ``quantize`` raises before anything slow.
    """
    from quantgate.quantize.forecast import forecast as foretell

    calibration: dict[str, Any] = {"samples": samples, "max_tokens": max_tokens, "seed": seed}
    calibration |= {} if traffic is None else {"traffic": str(traffic)}
    config = _config(model, variants, keep, calibration, outside)
    opened, recipes = open_model(model), recipes_of(config.variants)
    return foretell(opened, recipes, calibration_of(config, opened).ids)


def quantize(
    model: str,
    variants: Sequence[str | dict[str, Any]],
    *,
    out: Path | str = Path("artifacts"),
    keep: Sequence[str] = (),
    traffic: Path | str | None = None,
    samples: int = 256,
    max_tokens: int = 512,
    seed: int = 0,
    progress: Progress | None = None,
    reuse: Reuse | None = None,
    **outside: Any,
) -> list[Artifact]:
    """Make every variant in one pass; ``out`` gets a folder for each.

    ``variants`` are short forms (``W4A16:awq+gptq_v2``), all with the layers ``keep`` left alone and with what
    ``outside`` says of ``lm_head``, ``embeddings`` and ``untie``, or what release.yaml has in their place. The
    calibration set is the ``traffic`` file, or the built-in suites' calibrate split. ``reuse`` holds finished blocks of
    earlier sweeps, and is told what was taken over. A stopped or killed call goes on
    where it was. Raises UsageError, FormatError, ModelError, DataError and ArtifactError (a foreign folder in the way)
    before anything slow, Stopped on Ctrl-C.
    """
    from quantgate.quantize.sweep import sweep

    calibration: dict[str, Any] = {"samples": samples, "max_tokens": max_tokens, "seed": seed}
    calibration |= {} if traffic is None else {"traffic": str(traffic)}
    config = _config(model, variants, keep, calibration, outside)
    opened, recipes = open_model(model), recipes_of(config.variants)
    chosen = calibration_of(config, opened)

    def tell(stage: str, done: int, total: int) -> None:
        if progress is not None:
            progress("quantize", done, total, stage)

    try:
        with alone_in(Path(out)):
            return sweep(opened, chosen.ids, recipes, out, progress=tell, seed=seed, reuse=reuse)
    except KeyboardInterrupt:
        raise Stopped(
            f"stopped; the finished blocks are kept in {out}, and the same command goes on from there"
        ) from None
