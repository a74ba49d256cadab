"""What is compared: formats with their goals, our settings and the peers', and what each is called in the table.

To try another setting of ours, add an Entry to OURS; its ``options`` are fields of a Recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.peers.tools.contract import Job

SHOWN = {"llmcompressor": "llm-compressor", "autoround": "AutoRound"}


@dataclass(frozen=True)
class Format:
    """How weights are stored. ``goal``: our mean KL over the best peer's at equal bits, at most."""

    name: str
    bits: int
    group: int | None
    goal: float
    inputs8: bool = False


@dataclass(frozen=True)
class Entry:
    """One way of one tool, applied to every format of its kind."""

    tool: str
    method: str = ""
    symmetric: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    label: str = ""  # beyond tool and method
    peer: bool = False

    @property
    def setting(self) -> str:
        parts = [self.method or "default", "" if self.symmetric else "asymmetric", self.label]
        return ", ".join(part for part in parts if part)

    def job(self, format: Format) -> Job:
        slug = "-".join(f"{format.name} {self.setting}".replace(",", "").split())
        return Job(slug, format.bits, format.group, self.symmetric, format.inputs8, self.method, dict(self.options))


@dataclass(frozen=True)
class Mixed:
    """A budget in bits a weight that our mixture keeps; peers have it with one format for all layers."""

    bits: float
    like: str  # the format whose peers have as many bits
    goal: float = 1.0


GROUPED = (Format("W4 g128", 4, 128, 0.85), Format("W4 g32", 4, 32, 0.85), Format("W3 g128", 3, 128, 0.7))
CHANNEL = (Format("W4 channel", 4, None, 0.85), Format("W3 channel", 3, None, 0.7))
W8A8 = Format("W8A8", 8, None, 1.0, inputs8=True)
MIXED = Mixed(4.5, "W4 g32")

CORRECTED = {"propagate": "corrected", "correction_damping": 0.1}
OURS = (
    Entry("quantgate"),
    Entry("quantgate", "awq"),
    Entry("quantgate", "gptq", options={"options": {"descent": 8}}, label="descent 8"),
    Entry("quantgate", "gptq", symmetric=False),
    Entry("quantgate", "gptq", options={"options": {"propagate": "inputs"}}, label="own inputs"),
    Entry("quantgate", "gptq", options={"options": CORRECTED}, label="corrected"),
    Entry("quantgate", "gptq", symmetric=False, options={"options": CORRECTED}, label="corrected"),
)
AUTO = Entry("quantgate", "auto")
OURS_W8A8 = (Entry("quantgate"), Entry("quantgate", "gptq"), Entry("quantgate", "smoothquant"))

_peer = partial(Entry, peer=True)
THEIRS = (
    _peer("llmcompressor", "gptq"),
    _peer("llmcompressor", "gptq", symmetric=False),
    _peer("llmcompressor", "awq"),
    _peer("llmcompressor", "awq+gptq"),
    _peer("autoround"),
    _peer("hqq"),
    _peer("torchao", "rtn"),
)
THEIRS_W8A8 = (
    _peer("llmcompressor", "rtn"),
    _peer("llmcompressor", "gptq"),
    _peer("llmcompressor", "smoothquant+gptq"),
    _peer("autoround", "rtn", options={"iters": 0}),  # what it recommends for eight bits
    _peer("torchao", "rtn"),
)


def entries(format: Format) -> tuple[Entry, ...]:
    """Ours, then the peers'."""
    return (*OURS_W8A8, *THEIRS_W8A8) if format.inputs8 else (*OURS, *THEIRS)


def shown(tool: str) -> str:
    return SHOWN.get(tool, tool)
