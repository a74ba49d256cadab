"""Calibration: the samples that quantization may see, from the user's traffic or from conversations of a caller.

    traffic.jsonl -> lines -> conversations without secrets -> slices -> a choice that covers them -> token ids

``traffic`` reads files line by line, ``conversation`` reads one line, ``secrets`` masks (``kinds`` says what),
``slices`` says what a conversation is a sample of, ``scan`` goes through the files, ``select`` chooses, ``audit`` tells
what became of the traffic, ``render`` makes token ids, ``folder`` keeps a set on disk.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from quantgate.calibrate.audit import Audit
from quantgate.calibrate.conversation import ROLES, Conversation, Turns
from quantgate.calibrate.folder import Kept, is_folder, read_folder
from quantgate.calibrate.render import ids_of
from quantgate.calibrate.scan import Rules, Tell
from quantgate.calibrate.select import Selection, select
from quantgate.calibrate.traffic import json_lines, read_traffic
from quantgate.models import OpenedModel
from quantgate.records import Record

__all__ = [
    "ROLES",
    "Audit",
    "CalibrationSet",
    "Chosen",
    "Conversation",
    "Kept",
    "Rules",
    "Selection",
    "Tell",
    "Turns",
    "choose",
    "chosen_of",
    "from_traffic",
    "json_lines",
    "read_traffic",
    "select",
]


class CalibrationSet(Record):
    """What was chosen: one digest per sample, over its turns, in the order used."""

    source: str
    samples: tuple[str, ...]
    tokens: int
    cut: int  # samples shortened to the token limit
    asked: int  # samples asked for
    audit: Audit | None = Field(default=None, exclude_if=lambda audit: audit is None)
    """How it came out of traffic; sets of a caller's conversations have none."""


@dataclass(frozen=True)
class Chosen:
    record: CalibrationSet
    turns: list[Turns]
    ids: list[list[int]]
    conversations: list[Conversation] = field(default_factory=list)  # with tools and forms, as they were sent


def choose(
    model: OpenedModel, conversations: Sequence[Turns], *, source: str, samples: int, max_tokens: int, seed: int
) -> Chosen:
    """A seeded choice of ``samples`` conversations, rendered with the model's chat template and cut to ``max_tokens``
    or to what the model's context holds.

    Fewer conversations than asked for are all used; the record says how many were asked.
    """
    drawn = random.Random(f"calibrate/{seed}").sample(range(len(conversations)), min(samples, len(conversations)))
    some = [_of_turns(conversations[index]) for index in sorted(drawn)]
    return chosen_of(model, some, source=source, asked=samples, max_tokens=max_tokens)


def from_traffic(model: OpenedModel, path: Path, rules: Rules, *, max_tokens: int, tell: Tell | None = None) -> Chosen:
    """The calibration set of raw traffic, chosen by ``rules``, or of a folder that was chosen before, taken whole.

    Raises what ``select`` and ``read_folder`` raise.
    """
    if is_folder(path):
        kept, samples = read_folder(path)
        source, asked, audit = kept.source, kept.asked, kept.audit
    else:
        found = select(model, [path], rules, tell)
        source, asked, audit, samples = path.name, rules.samples, found.audit, found.samples
    return chosen_of(model, samples, source=source, asked=asked, max_tokens=max_tokens, audit=audit)


def chosen_of(
    model: OpenedModel,
    samples: Sequence[Conversation],
    *,
    source: str,
    asked: int,
    max_tokens: int,
    audit: Audit | None = None,
) -> Chosen:
    """These conversations as token ids, each cut to ``max_tokens`` or to what the model's context holds."""
    ids = [ids_of(model, one) for one in samples]
    limit = min(max_tokens, model.context)
    record = CalibrationSet(
        source=source,
        samples=tuple(one.digest for one in samples),
        tokens=sum(min(len(one), limit) for one in ids),
        cut=sum(len(one) > limit for one in ids),
        asked=asked,
        audit=audit,
    )
    return Chosen(record, [one.turns for one in samples], [one[:limit] for one in ids], list(samples))


def _of_turns(turns: Turns) -> Conversation:
    return Conversation(tuple({"role": role, "content": content} for role, content in turns))
