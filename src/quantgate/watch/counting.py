"""Evidence in memory and its place in the journal: as it was saved, and everything that came since, in its order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from quantgate.errors import QuantgateError
from quantgate.serve.exchanges import Batch, Reader
from quantgate.watch.fold import Fold
from quantgate.watch.store import Evidence
from quantgate.watch.troubles import Troubles
from quantgate.watch_config import WatchConfig

if TYPE_CHECKING:
    from quantgate.watch.signals import Signal

log = logging.getLogger("quantgate.watch")
BATCH = 200  # rows at once: the gateway of this process gets its turns between
AGAIN = 1000  # at once of those that are only remembered, which costs a tenth: some 0.7 s for all 20,000


class Counting:
    """``number``: everything up to it in the journal was folded; ``fresh``: rows folded since that was set to 0."""

    def __init__(
        self,
        kept: Evidence,
        reader: Reader,
        config: WatchConfig,
        target: str,
        signals: Sequence[Signal] | None,
        troubles: Troubles,
    ) -> None:
        self._reader, self._target, self._tell = reader, target, troubles.tell
        self._new: Callable[[], Fold] = lambda: Fold(config, target, signals)
        self.number, self.fresh = kept.number, 0
        found, broken = None, kept.broken
        if kept.state is not None:
            try:
                found = Fold.of(kept.state, config, target, signals)
            except (QuantgateError, LookupError, TypeError, ValueError) as problem:
                broken = str(problem) or type(problem).__name__
        if broken:
            troubles.tell("evidence", f"the evidence of {target} cannot be read ({broken}); it begins anew")
        self.fold = found or self._new()

    @property
    def evidence(self) -> Evidence:
        trial = self.fold.trial
        return Evidence(self.number, self.fold.state(), trial.digest if trial is not None else "")

    def remember(self, alive: Callable[[], bool]) -> None:
        """Read again what short memories of sessions need of rows that were counted; while ``alive``."""
        at = min(self.fold.rebuild_from - 1, self.number)
        while at < self.number and alive():
            batch = self._reader.batch(at, target=self._target, most=AGAIN)
            for place, exchange in batch.rows:
                if place <= self.number:
                    self.fold.remember(place, exchange)
            if batch.whole:
                return
            at = batch.number

    def more(self) -> Batch:
        """Read and fold what comes next. Raises QuantgateError, with nothing folded then."""
        batch = self._reader.batch(self.number, target=self._target, most=BATCH)
        if 0 < batch.last < self.number:
            self._tell("journal", "the exchanges' table is another than before; the evidence begins anew")
            self.fold = self._new()  # its numbers are of the other table
            batch = self._reader.batch(0, target=self._target, most=BATCH)
        for sentence in batch.broken:
            self._tell("row", sentence)
        for number, exchange in batch.rows:
            try:
                self.fold.add(number, exchange)
            except Exception as problem:  # one row that a signal stumbles over must not end the watch
                log.exception("exchange %d cannot be counted", number)
                self._tell("row", f"exchange {number} cannot be counted ({type(problem).__name__}: {problem})")
        self.number = batch.number
        self.fresh += len(batch.rows)
        return batch
