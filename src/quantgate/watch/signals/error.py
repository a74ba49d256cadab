"""error: no answer came from the variant: refused, cut, too late, overloaded; also where the baseline then answered.

A request that another upstream would have refused as well says nothing of the variant, with one exception: a context
that is too long for it. What the gateway itself refused (a budget, a tool call without approval) is nobody's error, and
an answer that broke its contract is ``validation_failure``.
"""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.errors import InvalidAnswer
from quantgate.serve import Exchange
from quantgate.watch.signals import Signal

OWN = ("budget_exceeded", "ledger_unreachable")  # codes of the gateway before anybody is asked
SAME = (400, 401, 403, 413, 422)  # statuses that the other side would give, too
TOO_LONG = "context_length_exceeded"


def read(exchange: Exchange, _before: Sequence[Exchange]) -> float | None:
    """None: the client left before it could be known, or the request never came to a variant."""
    fell_over = exchange.answered_by not in ("", exchange.variant) and exchange.step != "escalated"
    if fell_over or exchange.error == TOO_LONG:
        return 1.0
    if exchange.error in OWN or (exchange.disconnected and not exchange.error):
        return None
    return float(exchange.error not in ("", InvalidAnswer.code) and exchange.status not in SAME)


SIGNAL = Signal(
    name="error",
    about="requests that the variant did not answer: cut, refused, timed out or overloaded",
    kind="event",
    read=read,
    weight=3.5,
)
