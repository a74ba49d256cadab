"""From traffic to a folder that quantization takes: what ``quantgate calibrate`` runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantgate import calibrate
from quantgate.calibrate import Kept
from quantgate.calibrate.folder import write_folder
from quantgate.capability_config import CalibrationConfig
from quantgate.errors import Stopped, UsageError
from quantgate.models import open_model
from quantgate.pipeline.adequacy import measure
from quantgate.pipeline.cases import rules_of
from quantgate.pipeline.lock import alone_in
from quantgate.pipeline.quantize_only import short_variant
from quantgate.pipeline.two_models import Progress
from quantgate.pipeline.variants import recipes_of
from quantgate.records import parse, write_whole
from quantgate.release_config import ReleaseConfig
from quantgate.report.calibrations import CalibrationReport, calibration_page


def calibrate_traffic(
    traffic: Sequence[Path | str],
    *,
    model: str,
    out: Path | str = Path("calibration"),
    samples: int = 256,
    max_tokens: int = 512,
    seed: int = 0,
    secrets: str = "mask",
    broken: float | str = 0.01,
    require: Mapping[str, int] | None = None,
    adequacy: str | None = None,
    progress: Progress | None = None,
) -> CalibrationReport:
    """Choose a calibration set, and with ``adequacy`` (a short variant) measure whether it is enough.

    Writes samples.jsonl, held-out.jsonl, calibration.json, report.json and report.html to ``out``. A stopped call keeps
    what it has measured. Raises UsageError, DataError and ModelError before anything slow.
    """
    settings: dict[str, Any] = {"samples": samples, "max_tokens": max_tokens, "seed": seed, "secrets": secrets}
    settings |= {"broken": broken, "require": dict(require or {})}
    wanted = parse(CalibrationConfig, settings, where="calibrate")
    if not traffic:
        raise UsageError("calibrate: no traffic; name at least one JSONL file")
    recipes = _recipes(adequacy)
    opened, folder, paths = open_model(model), Path(out), [Path(one) for one in traffic]
    told = progress or (lambda *_: None)
    try:
        with alone_in(folder):
            found = calibrate.select(
                opened, paths, rules_of(wanted), lambda what, done, total: told(what, done, total, "")
            )
            source = ", ".join(path.name for path in paths)
            chosen = calibrate.chosen_of(
                opened, found.samples, source=source, asked=samples, max_tokens=max_tokens, audit=found.audit
            )
            kept = Kept(source=source, seed=seed, asked=samples, samples=chosen.record.samples, audit=found.audit)
            write_folder(folder, kept, found.samples, found.held_out)
            measured = None
            if recipes:
                measured = measure(opened, chosen, found.held_out, recipes[0], folder, max_tokens, seed, told)
            report = CalibrationReport(model=model, weights=opened.weights_digest, set=chosen.record, adequacy=measured)
            report.save(folder / "report.json")
            write_whole(folder / "report.html", calibration_page(report).encode())
    except KeyboardInterrupt:
        raise Stopped(f"stopped; what is finished is kept in {folder}, and the same command goes on from it") from None
    return report


def _recipes(adequacy: str | None) -> list[Any]:
    if adequacy is None:
        return []
    data = {"variants": [short_variant(adequacy)], "capabilities": {"chat": {}}}
    return recipes_of(parse(ReleaseConfig, data, where="calibrate").variants)
