"""repeated_prompt: the user asks nearly the same again within ten minutes, because the answer was of no use.

Held against the hashes of what the same session asked before (``_simhash``); no text is kept. What another session
asks is nobody's repetition, however many programs poll with one prompt. A request that an SDK sends again by itself,
and a question whose answer never came, are ``retry`` and ``error``.
"""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.serve import Exchange
from quantgate.watch.signals import Signal
from quantgate.watch.signals._simhash import distance

NEAR = 3  # bits of 64
WITHIN_S = 600.0


def read(exchange: Exchange, before: Sequence[Exchange]) -> float | None:
    asked = exchange.prompt_hash
    if asked is None or exchange.retry or not exchange.told_session:
        return None
    return float(any(_same(exchange, one) and distance(asked, one.prompt_hash or 0) <= NEAR for one in before))


def _same(now: Exchange, earlier: Exchange) -> bool:
    """Whether ``earlier`` was answered, in the same session, and not long ago; a clock set back tells nothing."""
    asked = earlier.prompt_hash is not None and earlier.session == now.session and earlier.id != now.id
    answered = bool(earlier.answered_by) and earlier.status < 400 and not earlier.error
    return asked and answered and 0 <= now.at - earlier.at <= WITHIN_S


SIGNAL = Signal(
    name="repeated_prompt",
    about="users who ask the same again within ten minutes",
    kind="event",
    read=read,
    weight=5.0,
)
