"""Quality: mean KL to the baseline at equal bits, every tool on the same model, rows and held-out text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.peers.children import Bench, Made
from benchmarks.peers.entries import AUTO, CHANNEL, GROUPED, MIXED, W8A8, Entry, Format, Mixed, entries, shown
from benchmarks.peers.inputs import Subject
from benchmarks.peers.judge import Judge
from benchmarks.peers.scores import Against, Score, against, best, comparable
from benchmarks.peers.tools.contract import Job
from benchmarks.tables import Table
from quantgate.errors import QuantgateError
from quantgate.models import OpenedModel
from quantgate.quantize.mix import linears

COLUMNS = ("format", "tool", "setting", "bits", "mean KL", "seconds", "over the best peer", "goal", "")
WORDS = {True: "met", False: "missed", None: ""}

Entries = Callable[[Format], Sequence[Entry]]
Scores = dict[str, list[Score]]  # format -> scores


def compare(bench: Bench, subject: Subject, settings: Entries = entries, *, quick: bool = False) -> Table:
    """Every setting of every tool on one subject: the rows of a table."""
    formats = formats_of(subject.model)
    wanted = [(format, _hurried(entry) if quick else entry) for format in formats for entry in settings(format)]
    mixed = MIXED if any(format.name == MIXED.like for format in formats) else None
    made = make(bench, subject, wanted, mixed)
    judge = Judge(subject)
    bench.say(f"judging {len(made)} artifacts of {subject.name} at {judge.tokens} positions")
    scores = judged(bench, subject, judge, wanted, made)
    rows = [row for format in formats for row in rows_of(format.name, format.goal, scores[format.name])]
    if mixed is not None:
        own = score(bench, subject, judge, AUTO, mixed_job(mixed), made[AUTO.tool, mixed_job(mixed).name])
        peers = [one for one in scores[mixed.like] if one.peer]
        rows += rows_of(f"{mixed.bits:g} bits", mixed.goal, [own, *peers])[:1]
    rows_told = f"{len(subject.rows)} rows of {len(subject.rows[0])} tokens"
    note = f"{subject.name}: {rows_told}, {subject.about} ({judge.tokens} positions). Embeddings and head are kept."
    return Table(COLUMNS, tuple(rows), f"Quality, {subject.name}", (note,))


def formats_of(model: OpenedModel) -> tuple[Format, ...]:
    """Groups where they divide every layer's columns, else a scale per output channel."""
    columns = {model.files.entry(f"{layer}.weight").shape[1] for group in linears(model) for layer in group}
    divides = all(width % (format.group or 1) == 0 for format in GROUPED for width in columns)
    return (*(GROUPED if divides else CHANNEL), W8A8)


def _hurried(entry: Entry) -> Entry:
    """AutoRound with 2 steps instead of 200, where only the way matters."""
    return replace(entry, options={"iters": 2}) if entry.tool == "autoround" and not entry.options else entry


def mixed_job(mixed: Mixed) -> Job:
    return Job(f"auto-{mixed.bits:g}", 4, None, method="auto", options={"bits": mixed.bits})


def make(
    bench: Bench, subject: Subject, wanted: Sequence[tuple[Format, Entry]], mixed: Mixed | None = None
) -> dict[tuple[str, str], Made]:
    """What became of every job, by tool and job name; one process a tool, and one for the mixture."""
    ids, made = subject.ids(bench.cache), dict[tuple[str, str], Made]()
    for tool in dict.fromkeys(entry.tool for _, entry in wanted):
        jobs = [entry.job(format) for format, entry in wanted if entry.tool == tool]
        found = bench.run(tool, subject.model.path, ids, jobs, subject.name)
        made |= {(tool, name): one for name, one in found.items()}
    if mixed is not None:
        own = bench.run(AUTO.tool, subject.model.path, ids, [mixed_job(mixed)], f"{subject.name}-mixed")
        made |= {(AUTO.tool, name): one for name, one in own.items()}
    return made


def judged(
    bench: Bench,
    subject: Subject,
    judge: Judge,
    wanted: Sequence[tuple[Format, Entry]],
    made: dict[tuple[str, str], Made],
) -> Scores:
    found: Scores = {}
    for format, entry in wanted:
        job = entry.job(format)
        one = score(bench, subject, judge, entry, job, made[entry.tool, job.name])
        found.setdefault(format.name, []).append(one)
    return found


def score(bench: Bench, subject: Subject, judge: Judge, entry: Entry, job: Job, made: Made) -> Score:
    """Judge one artifact. One that was not made, or that cannot be read, is a score that says why."""
    name = f"{subject.name}-mixed" if entry is AUTO else subject.name
    folder: Path = bench.folder(entry.tool, name) / job.name
    told = Score(
        entry.tool,
        entry.setting,
        seconds=made.seconds,
        together=made.together,
        note=str(made.facts.get("note", "")),
        peer=entry.peer,
    )
    if made.failed:
        return replace(told, failed=made.failed)
    try:
        if made.facts.get("plain"):
            drift = judge.plain(folder, inputs8=bool(made.facts.get("inputs8")))
            bits = float(str(made.facts["bits"]))
        else:
            drift, bits = judge.artifact(folder)
    except QuantgateError as problem:
        return replace(told, failed=f"not opened: {problem}")
    return replace(told, bits=bits, kl=drift.kl_mean)


def rows_of(name: str, goal: float, scores: Sequence[Score]) -> list[tuple[str, ...]]:
    """Rows of one format: ours first with their ratios, then the peers.

    The goal stands beside our first setting, which is what a user gets by default, and beside our best one. Marked are
    the peer that the first is held against, and those that take more bits.
    """
    own = [one for one in scores if not one.peer]
    peers = [one for one in scores if one.peer]
    if not own:
        return [_peer_row(name, one, "") for one in peers]
    default, top = own[0], best(own)
    rows = [_row(name, one, against(one, peers, goal), one is default or one is top) for one in own]
    champion, equals = against(default, peers, goal).peer, comparable(default, peers)
    for one in peers:
        mark = "best peer" if one is champion else "more bits" if one.kl is not None and one not in equals else ""
        rows.append(_peer_row(name, one, mark))
    return rows


def _peer_row(name: str, one: Score, mark: str) -> tuple[str, ...]:
    return (name, shown(one.tool), one.setting, *_measured(one), "", "", mark)


def _row(name: str, one: Score, found: Against, told: bool) -> tuple[str, ...]:
    ratio = "" if found.ratio is None or found.peer is None else f"{found.ratio:.2f}x of {_called(found.peer)}"
    if found.ratio is None and not one.failed:
        ratio = "no peer at these bits"
    goal = f"at most {found.goal:g}x" if told else ""
    return (name, shown(one.tool), one.setting, *_measured(one), ratio, goal, WORDS[found.met] if told else "")


def _called(peer: Score) -> str:
    return f"{shown(peer.tool)} {peer.setting}"


def _measured(one: Score) -> tuple[str, str, str]:
    if one.failed:
        return "", f"none: {one.failed}", ""
    seconds = f"{one.seconds:.1f}" + (f" for {one.together}" if one.together > 1 else "")
    return f"{one.bits:.3f}", f"{one.kl:.3g}" + (f" ({one.note})" if one.note else ""), seconds
