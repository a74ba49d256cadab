"""Exchanges and talks of tests, with what a good answer has; a test changes what it is about."""

from __future__ import annotations

from typing import Any

from quantgate.serve import Exchange
from quantgate.watch import Talk
from quantgate.watch.signals import Signal, get

GOOD: dict[str, Any] = {
    "id": "req_2", "at": 1000.0, "target": "laptop", "variant": "W4A16", "artifact": "sha256:c",
    "answered_by": "W4A16", "cohort": "canary", "share": 0.05, "side": "trial", "odds": 0.05, "against": "sha256:b",
    "revision": 3, "route": "chat", "key": "k_ann", "session": "5e55", "told_session": True, "stream": True,
    "structured": True, "status": 200, "finish": "stop", "step": "passed", "prompt_tokens": 100, "answer_tokens": 101,
    "stages": {"decode": 2.0}, "ttft_s": 0.2, "total_s": 2.3,
}  # fmt: skip


def exchange(**changed: Any) -> Exchange:
    return Exchange.model_validate(GOOD | changed)


def said(*answers: Any, **more: Any) -> Talk:
    """A talk whose answers are these: texts, or whole messages."""
    messages = [{"role": "assistant", "content": one} if isinstance(one, str) else one for one in answers]
    return Talk(prompt=[{"role": "user", "content": "Which train leaves Ulm?"}], answers=messages, **more)


def calling(name: str = "find_train", arguments: Any = '{"from": "Ulm"}') -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}


def marked(name: str, talk: Talk) -> float | None:
    mark = signal(name).mark
    assert mark is not None
    return mark(talk)


def read(name: str, *before: Exchange, **changed: Any) -> float | None:
    return signal(name).read(exchange(**changed), before)


def signal(name: str) -> Signal:
    return get(name)
