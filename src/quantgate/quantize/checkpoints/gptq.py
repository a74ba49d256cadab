"""gptq: the layout that AutoGPTQ made common, read by vLLM, SGLang, ExLlama, TGI and transformers. Symmetric codes."""

from __future__ import annotations

from quantgate.quantize.checkpoints._gptq import Gptq

CHECKPOINT = Gptq("gptq", 1)
