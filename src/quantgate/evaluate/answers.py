"""Answers on disk: every completion under a key that holds all it depends on, so nothing stale is ever replayed.

One JSON-lines file per engine identity (weights digest, tokenizer, template, runtime flags, sampling); one line per case
digest. A line is appended and flushed once per batch; a killed run leaves at most one broken last line, which is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from quantgate.engines import Completion, Engine, Failure, Identity, Prompt
from quantgate.evaluate.suites import Case
from quantgate.records import canonical, disk_errors, parse


class Answers:
    """The journal of one engine identity, in memory and on disk."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.path = folder / f"{identity.key[7:39]}.jsonl"
        self.held: dict[str, Completion] = {}
        self.asked = 0  # cases that the engine really answered in this process
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._read()
        else:
            self._append([{"identity": identity.body()}])

    def _read(self) -> None:
        whole = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # the last batch was cut off by a kill or a full disk
                whole += len(line)
                row = json.loads(line)
                if "case" in row:
                    self.held[row["case"]] = parse(Completion, row["completion"], where=str(self.path))
        if whole < self.path.stat().st_size:
            os.truncate(self.path, whole)

    def _append(self, rows: Sequence[object]) -> None:
        whole = self.path.stat().st_size if self.path.exists() else 0
        try:
            with disk_errors(self.path), self.path.open("ab") as file:
                file.write(b"".join(canonical(row) + b"\n" for row in rows))
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            if self.path.exists():
                os.truncate(self.path, whole)
            raise

    def of(self, engine: Engine, cases: Sequence[Case]) -> list[Completion | Failure]:
        """Answers to one batch of cases, from the journal or from the engine.

        A batch is answered whole or not at all: what a row computes may depend in its last bits on the batch it sits in,
        so a resumed run must see the same batches as an unbroken one. Failures are never kept.
        """
        keys = [case.digest for case in cases]
        if all(key in self.held for key in keys):
            return [self.held[key] for key in keys]
        answers = engine.generate([prompt_of(case) for case in cases])
        self.asked += len(cases)
        fresh = {
            key: answer
            for key, answer in zip(keys, answers, strict=True)
            if isinstance(answer, Completion) and key not in self.held
        }
        self._append([{"case": key, "completion": answer.body()} for key, answer in fresh.items()])
        self.held |= fresh
        return answers


def prompt_of(case: Case) -> Prompt:
    turns = tuple((message.role, message.content) for message in case.messages)
    return Prompt(turns=turns, max_tokens=case.max_tokens)
