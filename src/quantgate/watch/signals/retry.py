"""retry: the same was asked again at once, by the client's library or by a person who presses "regenerate".

Only of sessions that the client named: they stay with one variant, so the answer that was not good enough was its own.
A session that nobody named is drawn anew with each request. Regenerated means: the same last turn (``prompt_hash``) of
a prompt of the same length, at most a minute after an earlier answer had ended. Requests side by side (several drafts
at once) are none, and an agent's next step is none: its prompt has grown, and its last turn is a tool's.
"""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.serve import Exchange
from quantgate.watch.signals import Signal

SOON_S = 60.0
SLACK_S = 0.25  # by which an answer may seem to end after the next request began: clocks are read at both ends


def read(exchange: Exchange, before: Sequence[Exchange]) -> float | None:
    """None: nobody named the session."""
    if not exchange.told_session:
        return None
    return float(exchange.retry > 0 or any(again(exchange, earlier) for earlier in before))


def again(exchange: Exchange, earlier: Exchange) -> bool:
    """Whether ``exchange`` asks what ``earlier`` asked, after it and soon."""
    if exchange.prompt_hash is None or exchange.prompt_hash != earlier.prompt_hash or earlier.shadow:
        return False
    lengths = (exchange.prompt_tokens, earlier.prompt_tokens)
    if None not in lengths and lengths[0] != lengths[1]:
        return False
    after_s = exchange.at - (earlier.at + earlier.total_s)
    return -SLACK_S <= after_s <= SOON_S


SIGNAL = Signal(
    name="retry",
    about="sessions that asked the same again at once",
    kind="event",
    read=read,
    weight=4.0,
)
