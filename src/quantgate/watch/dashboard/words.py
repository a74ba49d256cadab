"""Numbers and times as the pages write them."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from quantgate.watch.explaining import digits

NOTHING = "\u2013"
MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0


def share(part: float | None) -> str:
    """Of 1, in percent, with the digits that a person needs.

    >>> share(0.0123), share(0.05), share(1.0), share(0.00004), share(None)
    ('1.23 %', '5 %', '100 %', '0.004 %', '–')
    """
    if part is None:
        return NOTHING
    percent = 100.0 * part
    digits = 0 if percent >= 100 else 1 if percent >= 10 else 2 if percent >= 0.1 else 4
    text = f"{percent:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + " %"


def times(ratio: float | None) -> str:
    """
    >>> times(3.94), times(0.5), times(12.0), times(1.016), times(None)
    ('3.9×', '0.5×', '12×', '1.02×', '–')
    """
    if ratio is None or math.isnan(ratio):
        return NOTHING
    if math.isinf(ratio):
        return "∞"
    return f"{digits(ratio)}×"


def seconds(took: float | None) -> str:
    """
    >>> seconds(0.0000033), seconds(0.00021), seconds(0.0421), seconds(1.234), seconds(75), seconds(None)
    ('3.3 µs', '0.21 ms', '42.1 ms', '1.23 s', '75 s', '–')
    """
    if took is None:
        return NOTHING
    if 0 < took < 0.0001:
        return f"{took * 1e6:.3g} µs"
    if took < 1.0:
        return f"{took * 1000:.3g} ms"
    return f"{took:.3g} s"


def span(took: float) -> str:
    """
    >>> span(4), span(100), span(5000), span(200000)
    ('4 s', '1 min', '1 h 23 min', '2 days')
    """
    took = max(0.0, took)
    if took < MINUTE_S:
        return f"{took:.0f} s"
    if took < HOUR_S:
        return f"{took // MINUTE_S:.0f} min"
    if took < 2 * DAY_S:
        return f"{took // HOUR_S:.0f} h {took % HOUR_S // MINUTE_S:.0f} min"
    return f"{took // DAY_S:.0f} days"


def odds(log_e: float) -> str:
    """An e-value out of its logarithm, as a person would say it.

    >>> odds(0.0), odds(4.605), odds(9.3), odds(30.0), odds(-2.3)
    ('1', '100', '10,900', '10^13', '0.1')
    """
    if log_e > 18:
        return f"10^{log_e / math.log(10):.0f}"
    found = math.exp(log_e)
    if found >= 10:
        return f"{float(f'{found:.3g}'):,.0f}"
    return f"{found:.1g}" if found < 1 else f"{found:.2g}"


def weighed(log_e: float, threshold: float) -> str:
    """How much evidence an e-value is, in words, beside what it takes to decide.

    >>> weighed(-1.0, 4.6), weighed(2.0, 4.6), weighed(4.0, 4.6), weighed(5.0, 4.6)
    ('no evidence', 'little evidence', 'strong evidence', 'decisive evidence')
    """
    if log_e <= 0.7:
        return "no evidence"
    return (
        "decisive evidence" if log_e >= threshold else "little evidence" if log_e < threshold / 2 else "strong evidence"
    )


def moment(at: float) -> str:
    """
    >>> moment(0)
    '1970-01-01 00:00:00'
    """
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"


def machine_moment(at: float) -> str:
    """For a ``time`` element."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def seconds_of(at: str) -> float:
    """Seconds since 1970 of a registry's ISO 8601.

    >>> seconds_of("1970-01-01T00:01:00+00:00")
    60.0
    """
    found = datetime.fromisoformat(at)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def short(digest: str) -> str:
    """
    >>> short("sha256:0123456789abcdef")
    '0123456789ab'
    """
    return digest.removeprefix("sha256:")[:12]


def count(number: float) -> str:
    """
    >>> count(22910)
    '22,910'
    """
    return f"{number:,.0f}"
