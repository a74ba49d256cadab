"""What became of the traffic: its lines and slices, what was left out and why, what it lacks, in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from quantgate.calibrate.conversation import MEND
from quantgate.calibrate.slices import CATALOGUE, check_requirement, count_of, lower_end
from quantgate.errors import DataError
from quantgate.records import Record

LISTED = 1000  # broken lines that a record names; all of them are counted
SHOWN = 3  # in a sentence


class BrokenLine(Record):
    file: str
    line: int  # from 1
    problem: str


class SliceRow(Record):
    """One slice: conversations of the traffic that have it, and samples that do."""

    name: str
    traffic: int
    samples: int


class Audit(Record):
    """How a calibration set came out of its traffic. No secret is in it, and no text of a conversation."""

    files: tuple[str, ...]  # names
    lines: int  # that are not blank
    conversations: int  # lines that could be read
    broken: int
    broken_lines: tuple[BrokenLine, ...]  # the first LISTED
    unfit: int  # conversations that the model's chat template refuses
    apart: int = Field(default=0, exclude_if=lambda apart: not apart)  # conversations kept for the cases of a suite
    repeated: int  # lines that say again what a candidate for a sample says
    near_duplicates: int  # candidates left out because another says nearly the same
    secrets_rule: str  # mask, drop or refuse
    secrets: dict[str, int]  # kind -> how many in the traffic, each once per conversation
    dropped: int  # conversations left out because they hold some
    masked: int  # samples in which some were masked
    longest: int  # tokens of the longest conversation
    slices: tuple[SliceRow, ...]
    required: dict[str, int] = Field(default={})
    held_out: tuple[str, ...] = ()  # digests of conversations set aside to measure on

    @property
    def missing(self) -> tuple[str, ...]:
        """One sentence for each slice that the traffic, or the samples, have nothing of."""
        rows = {row.name: row for row in self.slices}
        told = [
            f"no conversation has '{name}' ({wanted.about}): add {wanted.add}"
            for name, wanted in CATALOGUE.items()
            if name not in rows
        ]
        bare = [row for row in self.slices if row.traffic and not row.samples]
        told += [
            f"no sample is of '{row.name}', {row.traffic} of the traffic are: take more samples, or require it"
            for row in bare
            if not row.name.startswith("tool=")
        ]
        functions = sum(row.name.startswith("tool=") for row in bare)
        if functions:
            told.append(
                f"no sample is of {functions} of the functions in the traffic: take more samples, or require them"
            )
        return tuple(told)


def refuse_broken(broken: int, lines: int, allowed: float, first: list[BrokenLine]) -> None:
    """Raises DataError when more than the allowed share of the lines is broken; names the first ones."""
    if broken <= allowed * lines:
        return
    told = [f"{one.file}, line {one.line}: {one.problem.removesuffix(f'; {MEND}')}" for one in first[:SHOWN]]
    shown = "; ".join(told)
    more = f" and {broken - SHOWN} more" if broken > SHOWN else ""
    raise DataError(
        f"{broken} of {lines} lines of the traffic are broken, {100 * allowed:.3g} % of them may be: {shown}{more}; "
        "mend them, or allow more under calibration: broken"
    )


def refuse_unmet(required: Mapping[str, int], counts: Mapping[str, int], lengths: Mapping[int, int], held: str) -> None:
    """Raises DataError naming every requirement that is not met; ``held`` ("the traffic holds") says by what."""
    unmet = []
    for name, least in required.items():
        found = count_of(check_requirement(name), counts, lengths)
        if found < least:
            unmet.append(f"{name}: {least} required, {held} {found}")
    if unmet:
        name = next(iter(unmet)).partition(":")[0]
        add = CATALOGUE[name].add if name in CATALOGUE else f"conversations of '{name}'"
        do = "take more samples" if "room" in held else f"add {add}"
        raise DataError(f"calibration: require: {'; '.join(unmet)}; {do}, or require less")


def order(row: SliceRow) -> tuple[int, int, str]:
    """Catalogue first, then lengths, languages and functions, each from the most frequent on."""
    if row.name in CATALOGUE:
        return (list(CATALOGUE).index(row.name), 0, "")
    if row.name.startswith("json="):
        return (list(CATALOGUE).index("json"), 1, row.name)
    if row.name.startswith("length="):
        return (100, lower_end(row.name), "")
    return (200 if row.name.startswith("language=") else 300, -row.traffic, row.name)
