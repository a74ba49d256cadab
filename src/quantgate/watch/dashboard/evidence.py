"""The proof that a release stands on: the decision that let it through, and its run's report where that lies here.

A registry may name any folder, so of it only files of the names that a run writes are read, and only where the run's
own record speaks of exactly these bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantgate.errors import QuantgateError
from quantgate.release import Variant
from quantgate.release.history import Decided

PAGE = re.compile(r"(report|targets/[A-Za-z0-9_-]{1,90})\.html")
UP = 3  # folders above the artifact in which a run's report is looked for
MOST = 64 * 2**20  # bytes of a page, and of a record


@dataclass(frozen=True, slots=True)
class Line:
    verdict: str
    rule: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of one variant's proof."""

    variant: Variant
    decided: Decided | None
    lines: tuple[Line, ...]
    sentence: str  # of the whole decision
    report: bool  # whether the page of its run lies here


def proof_of(registry: Any, target: str, variant: Variant) -> Proof:
    """Raises ReleaseError."""
    if variant.is_baseline:
        return Proof(variant, None, (), "", False)
    decided = registry.decided(target, variant.artifact, variant.engine)
    here = folder_of(variant) is not None
    if decided is None:
        return Proof(variant, None, (), "", here)
    whole = next((one for one in registry.decisions(target) if one.digest == decided.decision), None)
    verdict = next((one for one in whole.verdicts if one.variant == decided.variant), None) if whole else None
    return Proof(variant, decided, tuple(_lines(verdict)), whole.sentence if whole else "", here)


def _lines(verdict: Any) -> list[Line]:
    """Of a target's decision its findings, of one without targets its capabilities."""
    if verdict is None:
        return []
    if hasattr(verdict, "findings"):
        return [Line(one.verdict, one.rule, one.sentence) for one in verdict.findings]
    return [Line(one.verdict, one.capability, one.sentence) for one in verdict.capabilities]


def folder_of(variant: Variant) -> Path | None:
    """Of the run that made it, on this machine; None elsewhere."""
    if not variant.location or "://" in variant.location:
        return None
    place = Path(variant.location)
    for folder in (place, *place.parents[:UP]):
        record = folder / "report.json"
        try:
            if (folder / "report.html").is_file() and record.is_file():
                small = record.stat().st_size <= MOST
                return folder if small and variant.artifact.encode() in record.read_bytes() else None
        except OSError:
            return None
    return None


def report_page(variant: Variant, name: str) -> str:
    """A page of the run's report. Raises QuantgateError where there is none."""
    folder = folder_of(variant)
    if folder is None or not PAGE.fullmatch(name):
        raise QuantgateError(f"{name[:100]}: the report of {variant.name}'s run does not lie on this machine")
    file = folder / name
    try:
        if (
            file.resolve().parent not in (folder.resolve(), (folder / "targets").resolve())
            or file.stat().st_size > MOST
        ):
            raise QuantgateError(f"{name}: is no page of a report")
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise QuantgateError(f"{name}: cannot be read ({problem.__class__.__name__})") from None
