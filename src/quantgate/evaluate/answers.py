"""Answers on disk: every completion under a key that holds all it depends on, so nothing stale is ever replayed.

One JSON-lines file per engine identity (weights digest, tokenizer, template, runtime flags, sampling). Its first line
is that identity, every other line one batch of answers, each under its case's digest. A line is appended and flushed
whole; a kill or a full disk leaves at most one cut last line, which is dropped, so a batch is kept whole or not at all.
That matters: what a row computes may depend in its last bits on the batch it sits in, and a resumed run must see the
batches of an unbroken one.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantgate.engines import Ask, Completion, Engine, Failure, Identity, Prompt
from quantgate.errors import EngineError, RecordError
from quantgate.evaluate.suites import Case
from quantgate.records import append_line, parse

LAYOUT = 1  # raised when the lines change their meaning


class Answers:
    """The journal of one engine identity, in memory and on disk.

    Raises RecordError when the file is broken before its last line, or belongs to another identity; DiskFull.
    """

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.path = folder / f"{identity.key[7:39]}.jsonl"
        self.identity = identity
        self.held: dict[str, Completion] = {}  # case digest -> answer
        self.failed: dict[str, Failure] = {}  # what this process was refused; never on disk, so a later run asks again
        self.alone = threading.Lock()  # two variants of the same bytes are two threads in one journal
        self.asked = 0  # cases that reached the engine in this process
        folder.mkdir(parents=True, exist_ok=True)
        self.size = self._read() if self.path.exists() else 0
        if not self.size:
            self._append(self._head)

    @property
    def _head(self) -> dict[str, Any]:
        return {"identity": self.identity.body(), "layout": LAYOUT}

    def _read(self) -> int:
        """Take in all whole lines, cut off the rest; the number of bytes that stay."""
        whole = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break  # the last batch was cut off by a kill or a full disk
                whole += len(line)
                self._take(line, number)
        if whole < self.path.stat().st_size:
            os.truncate(self.path, whole)
        return whole

    def _take(self, line: bytes, number: int) -> None:
        where = f"{self.path}, line {number}"
        try:
            row = json.loads(line)
            if number == 1:
                foreign = row != self._head
            else:
                found = {one["case"]: one["completion"] for one in row["answers"]}
        except (ValueError, TypeError, KeyError):
            sentence = f"{where}: not a line of a journal of answers; delete the file, its cases are asked again"
            raise RecordError(sentence) from None
        if number == 1:
            if foreign:
                raise RecordError(f"{where}: the answers of another engine; delete the file, its cases are asked again")
            return
        for case, body in found.items():
            self.held[case] = parse(Completion, body, where=where, error=RecordError)

    def _append(self, row: object) -> None:
        """One line, whole or not at all."""
        self.size += append_line(self.path, row, self.size)

    def missing(self, cases: Sequence[Case]) -> list[Case]:
        """Those of ``cases`` that have no answer yet, in their order."""
        return [case for case in cases if case.digest not in self.held and case.digest not in self.failed]

    def of(self, engine: Engine, cases: Sequence[Case]) -> list[Completion | Failure]:
        """Answers to one batch of cases, in order: from the journal where it has them, from the engine where not."""
        if engine.identity != self.identity:
            raise EngineError(f"{self.path}: keeps another engine's answers than the one asked; open its own journal")
        with self.alone:
            if missing := self.missing(cases):
                answers = engine.generate([prompt_of(case) for case in missing])
                self.asked += len(missing)
                self._keep({case.digest: answer for case, answer in zip(missing, answers, strict=True)})
        return self.known(cases)

    def known(self, cases: Sequence[Case]) -> list[Completion | Failure]:
        """Answers that are there."""
        return [self.held.get(case.digest) or self.failed[case.digest] for case in cases]

    def _keep(self, fresh: dict[str, Completion | Failure]) -> None:
        completions = {key: answer for key, answer in fresh.items() if isinstance(answer, Completion)}
        if completions:
            self._append({"answers": [{"case": key, "completion": one.body()} for key, one in completions.items()]})
        self.held |= completions
        self.failed |= {key: answer for key, answer in fresh.items() if isinstance(answer, Failure)}


def prompt_of(case: Case) -> Prompt:
    turns = tuple((message.role, message.content) for message in case.messages)
    return Prompt(turns=turns, **{name: getattr(case, name) for name in Ask.model_fields})
