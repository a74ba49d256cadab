"""hqq: no data, a float zero point per group. Saved dequantized in float32; its bits are those of its own tensors."""

from __future__ import annotations

import torch
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
from transformers import AutoModelForCausalLM

from benchmarks.peers.tools.contract import Facts, Job, Work, copy_tokenizer, one_by_one


def make(work: Work, job: Job) -> Facts:
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype=torch.float32)
    stored = weights = 0
    for layer in (one for one in model.model.modules() if isinstance(one, torch.nn.Linear)):
        config = BaseQuantizeConfig(nbits=job.bits, group_size=job.group, axis=1)
        made = HQQLinear(layer, config, device="cpu", del_orig=False)
        layer.weight.data = made.dequantize().reshape(layer.weight.shape).float()
        stored += sum(one.numel() * one.element_size() for one in (made.W_q, made.meta["scale"], made.meta["zero"]))
        weights += layer.weight.numel()
    out = work.folder(job)
    model.save_pretrained(out)
    copy_tokenizer(work.model, out)
    return {"plain": True, "bits": 8 * stored / weights}


if __name__ == "__main__":
    one_by_one(make, ("hqq", "torch", "transformers"))
