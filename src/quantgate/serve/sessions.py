"""What names the session of a request, as a keyed hash: who it was stays unknown to every record.

The client names it by a header, or by one of the keys that OpenAI's API has for it. Two callers who both write
``user: "1"`` have two sessions. Where nothing names one the request is a session of its own; a retry of it (by its
``x-stainless-retry-count`` or ``idempotency-key``) gets the session of the first try, so that it meets the same
variant.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from time import monotonic
from typing import Any

import orjson

from quantgate.serve import Caller

HEADERS = ("x-session-id", "x-litellm-session-id")
KEYS = ("user", "safety_identifier", "prompt_cache_key")
REMEMBERED = 8192  # requests without a session whose retries are known
REMEMBERED_S = 600.0  # openai-python's longest wait between two tries is 60 s, of a few tries


class SessionNames:
    """See ``settings.Sessions``. The hash is keyed with a secret of the gateway's data folder."""

    def __init__(self, secret: bytes, *, clock: Callable[[], float] = monotonic) -> None:
        self._keyed = blake2b(digest_size=16, key=blake2b(secret, digest_size=32, person=b"sessions").digest())
        self._clock = clock
        self._untold: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def name(self, body: Mapping[str, Any], headers: Mapping[str, str], caller: Caller, id: str) -> tuple[str, bool]:
        """The session, 32 hex digits, and whether the client named one."""
        for source, told in told_by(body, headers):
            return self._hash(source, caller.key, told), True
        again = headers.get("idempotency-key")
        if again:
            return self._hash("idempotency", caller.key, again), False
        return self._of_retry(body, headers, caller, id), False

    def _of_retry(self, body: Mapping[str, Any], headers: Mapping[str, str], caller: Caller, id: str) -> str:
        """Of a request that nothing names. First tries are remembered by their body, for the retries of it."""
        now = self._clock()
        same = blake2b(orjson.dumps(body), digest_size=16, key=caller.key.encode()[:64]).digest()
        known = self._untold.get(same)
        if known is not None and _is_retry(headers) and now - known[1] < REMEMBERED_S:
            return known[0]
        session = self._hash("request", caller.key, id)
        self._untold[same] = (session, now)
        self._untold.move_to_end(same)
        if len(self._untold) > REMEMBERED:
            self._untold.popitem(last=False)
        return session

    def _hash(self, source: str, caller: str, text: str) -> str:
        keyed = self._keyed.copy()
        keyed.update(f"{len(source)},{len(caller)},{source}{caller}{text}".encode("utf-8", "surrogatepass"))
        return keyed.hexdigest()


def told_by(body: Mapping[str, Any], headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Every name that the client gave its session, with what it stands in, the strongest first.

    >>> list(told_by({"user": "u1", "metadata": {"session_id": "s1"}}, {}))
    [('session', 's1'), ('user', 'u1')]
    """
    for name in HEADERS:
        if headers.get(name):
            yield "session", headers[name]
    metadata = body.get("metadata")
    if isinstance(metadata, Mapping) and _is_name(metadata.get("session_id")):
        yield "session", str(metadata["session_id"])
    for name in KEYS:
        if _is_name(body.get(name)):
            yield name, str(body[name])
    talk = body.get("conversation")
    if isinstance(talk, Mapping):
        talk = talk.get("id")
    if _is_name(talk):
        yield "conversation", str(talk)
    if _is_name(body.get("previous_response_id")):
        yield "response", str(body["previous_response_id"])


def _is_name(value: Any) -> bool:
    return (isinstance(value, str) and bool(value)) or (isinstance(value, int) and not isinstance(value, bool))


def _is_retry(headers: Mapping[str, str]) -> bool:
    return headers.get("x-stainless-retry-count", "0").strip() not in ("", "0")
