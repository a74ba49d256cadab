"""gptq_v2: GPTQModel's layout, which stores zero points as they are."""

from __future__ import annotations

from quantgate.quantize.checkpoints._gptq import Gptq

CHECKPOINT = Gptq("gptq_v2", 2)
