"""What answers for an arm: ``http.py`` an OpenAI-compatible server, ``local.py`` an engine of this process.

The contract is ``serve.Upstream``. ``dialects.py`` knows what servers want otherwise than OpenAI.
"""

from __future__ import annotations

from contextvars import ContextVar

TRACE: ContextVar[str] = ContextVar("traceparent", default="")
"""The span of the request that this task answers (W3C Trace Context), for an upstream that makes its own below."""
