"""Has calibration seen what the gate asks? Checked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quantgate.calibrate import Turns
from quantgate.capability_config import CapabilityConfig
from quantgate.errors import UsageError
from quantgate.evaluate import overlap, suites
from quantgate.evaluate.overlap import Overlaps, Sample
from quantgate.evaluate.overlap.traffic import read_samples
from quantgate.evaluate.suites import Case
from quantgate.pipeline.cases import gate_cases
from quantgate.pipeline.two_models import named
from quantgate.records import parse
from quantgate.release_config import ReleaseConfig

FILE = "overlap.json"
ALL = 1_000_000  # cases of a file, when all of them are meant


def check(config: ReleaseConfig, turns: Sequence[Turns], cases: Sequence[Case], out: Path) -> Overlaps:
    """Compare the calibration set with the cases. Raises Overlap with the first pairs; ``out`` then gets all of them.

    Samples of the built-in suites' calibrate split cannot hold a problem of their gate split (decision 0002), so
    between these only the same text counts.
    """
    apart = set[str]()
    if config.calibration.traffic is None:
        apart = {name for name, one in config.capabilities.items() if one.suite is None and name in suites.names()}
    samples = (Sample(at, one) for at, one in enumerate(turns, 1))
    found = overlap.find(samples, cases, allowed=config.calibration.allow_overlap, apart=apart)
    overlap.refuse(found, str(found.save(out / FILE)) if found.items else "")
    return found


def compare(traffic: Path, suite: Sequence[str], *, cases: int, allowed: Sequence[str] = (), seed: int = 0) -> Overlaps:
    """What ``quantgate overlap`` runs: a traffic file against suites by name, or files of them.

    Raises DataError, UnknownName, and UsageError when two suites have one name.
    """
    found = dict[str, list[Case]]()
    for one in suite:
        name, more = named(one)
        if name in found:
            raise UsageError(f"suite '{one}': a suite called '{name}' is named already; keep one, or rename the file")
        asked = more | {"cases": cases if name in suites.names() and not more else ALL}
        found[name] = gate_cases(name, parse(CapabilityConfig, asked, where="overlap"), seed)[0]
    return overlap.find(read_samples(traffic), [case for group in found.values() for case in group], allowed=allowed)
