"""torchao: plain rounding of weights, and of inputs for W8A8. Saved dequantized in float32."""

from __future__ import annotations

from typing import Any

import torch
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerAxis, PerGroup
from torchao.quantization.quant_primitives import MappingType
from transformers import AutoModelForCausalLM

from benchmarks.peers.tools.contract import Facts, Job, Work, copy_tokenizer, one_by_one


def make(work: Work, job: Job) -> Facts:
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype="auto")
    quantize_(model.model, _config(job))
    stored = weights = 0.0
    for layer in (one for one in model.model.modules() if isinstance(one, torch.nn.Linear)):
        held: Any = layer.weight
        codes, scale = held.qdata, held.scale
        weights += codes.numel()
        stored += codes.numel() * job.bits / 8 + scale.numel() * scale.element_size()
        layer.weight = torch.nn.Parameter(_decoded(codes, scale), requires_grad=False)
    out = work.folder(job)
    model.float().save_pretrained(out)
    copy_tokenizer(work.model, out)
    note = "" if job.inputs8 else f"it keeps {job.bits}-bit codes in bytes; counted as if packed"
    return {"plain": True, "bits": 8 * stored / weights, "inputs8": job.inputs8, "note": note}


def _decoded(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """float32 [out, in] of symmetric int8 ``codes`` [out, in] and ``scale`` [out, in / group]."""
    groups = scale.numel() // len(codes)
    return (codes.float().reshape(len(codes), groups, -1) * scale.float().reshape(len(codes), groups, 1)).reshape(
        codes.shape
    )


def _config(job: Job) -> Any:
    if job.inputs8:
        return Int8DynamicActivationInt8WeightConfig()
    return IntxWeightOnlyConfig(
        weight_dtype=getattr(torch, f"int{job.bits}"),
        granularity=PerGroup(job.group) if job.group else PerAxis(0),
        mapping_type=MappingType.SYMMETRIC,
    )


if __name__ == "__main__":
    one_by_one(make, ("torchao", "torch", "transformers"))
