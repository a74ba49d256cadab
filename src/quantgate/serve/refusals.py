"""What a caller is told when there is no answer: one typed error, and what every other error becomes.

A ``Refused`` is OpenAI's error object with its HTTP status. ``retry`` says whether the same request may do better
later: official clients ask again by themselves unless ``x-should-retry: false`` forbids it, which doubles the load for
nothing where an answer was invalid or a budget is spent.
"""

from __future__ import annotations

import math
import re
from typing import Any

from quantgate.errors import ApprovalRefused, InvalidAnswer, QuantgateError, SchemaRefused
from quantgate.serve import LedgerClosed, OverBudget, UpstreamFault

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}
CODES = {
    "refused": ("upstream_unreachable", 502),
    "timeout": ("upstream_timeout", 504),
    "cut": ("upstream_cut", 502),
    "malformed": ("upstream_malformed", 502),
    "error_event": ("upstream_error", 502),
    "status": ("upstream_error", 502),
    "overloaded": ("overloaded", 503),
}
"""By the kind of an UpstreamFault: the code that the caller reads, and the status."""
WORD = re.compile(r"[\w.-]{1,64}", re.ASCII)
PASSED_ON = (400, 404, 409, 413, 422, 429)  # of an upstream: the caller's own doing, or for the caller to wait for


class Refused(QuantgateError):
    """No answer; ``status`` is HTTP's. Any room of the gateway may raise it, and the caller gets it as it is."""

    def __init__(
        self,
        status: int,
        code: str,
        sentence: str,
        *,
        param: str | None = None,
        type: str = "",
        retry: bool | None = None,
        after_s: float | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        counted: str = "",
    ) -> None:
        """``retry`` None: as the client's own rule has it; ``after_s``: when it may do better; ``counted``: the code
        that it is counted under, where its own may be anything."""
        super().__init__(sentence)
        self.counted = counted or code
        self.status, self.code, self.param = status, code, param
        self.type = type or TYPES.get(status, "server_error")
        self.retry = retry if retry is not None else (False if status < 500 and status not in (408, 409, 429) else None)
        self.after_s, self.more = after_s, headers

    def body(self) -> dict[str, Any]:
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> list[tuple[bytes, bytes]]:
        """``x-should-retry``, ``retry-after`` (seconds) and ``retry-after-ms``, where there is something to say."""
        found = list(self.more)
        if self.retry is not None:
            found.append((b"x-should-retry", b"true" if self.retry else b"false"))
        if self.after_s is not None:
            wait = max(0.0, self.after_s)
            found.append((b"retry-after", b"%d" % math.ceil(wait)))
            found.append((b"retry-after-ms", b"%d" % math.ceil(wait * 1000)))
        return found


class StageTimeout(Refused):
    """A stage took longer than its budget."""

    def __init__(self, stage: str, budget_s: float) -> None:
        super().__init__(
            504, "stage_timeout", f"{stage}: not done within its {budget_s * 1000:.0f} ms", type="timeout_error"
        )
        self.stage = stage


def bad(param: str | None, sentence: str, code: str = "invalid_value") -> Refused:
    """A request that no retry mends.

    >>> bad("n", "n: expected 1 to 128, found 0").body()["error"]["param"]
    'n'
    """
    return Refused(400, code, sentence, param=param)


def of(error: BaseException) -> Refused:
    """What the caller is told of an error of any room. What nobody foresaw is told without its text."""
    match error:
        case Refused():
            return error
        case SchemaRefused():
            return bad(error.param, str(error), "invalid_schema")
        case InvalidAnswer():
            return Refused(422, error.code, str(error), type="invalid_answer_error", retry=False)
        case ApprovalRefused():
            return Refused(403, error.code, str(error))
        case OverBudget():
            again = error.retry_after_s
            return Refused(429, "budget_exceeded", str(error), type="insufficient_quota", retry=False, after_s=again)
        case LedgerClosed():
            return Refused(503, "ledger_unreachable", str(error), retry=False)
        case UpstreamFault():
            return _of_upstream(error)
        case _:
            return Refused(500, "internal_error", "the gateway failed at this request; its log tells how", retry=False)


def _of_upstream(fault: UpstreamFault) -> Refused:
    code, status = CODES[fault.kind]
    if fault.kind == "status" and fault.status in PASSED_ON:
        told = (fault.body or {}).get("error")
        said = told if isinstance(told, dict) else {}
        return Refused(
            fault.status,
            word(said.get("code")) or "upstream_error",
            str(said.get("message") or fault)[:500],
            param=said["param"][:200] if isinstance(said.get("param"), str) else None,
            type=word(said.get("type")),
            counted="upstream_error",
        )
    return Refused(status, code, str(fault), type="upstream_error", after_s=1.0 if status == 503 else None)


def word(told: Any) -> str:
    """A code of an upstream's, a type or a reason, where it is one: what is kept of its words.

    >>> word("context_length_exceeded"), word(400), word("no\\nword"), word([])
    ('context_length_exceeded', '400', '', '')
    """
    return str(told) if isinstance(told, str | int) and WORD.fullmatch(str(told)) else ""
