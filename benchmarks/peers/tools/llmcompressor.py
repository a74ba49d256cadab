"""llm-compressor: GPTQ, AWQ and SmoothQuant with its own defaults, and the recipes that its examples recommend."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from compressed_tensors.quantization import QuantizationScheme, QuantizationStrategy, preset_name_to_scheme
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.core import reset_session
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.peers.tools.contract import Facts, Job, Work, copy_tokenizer, one_by_one


def make(work: Work, job: Job) -> Facts:
    if not torch.accelerator.is_available():  # its AWQ pins memory for copies to a GPU, which fails where there is none
        IntermediatesCache.pin_memory = lambda *_args, **_names: None
    reset_session()
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(work.model)
    rows = work.rows()
    data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})
    out = work.folder(job)
    with torch.no_grad():
        oneshot(
            model=model,
            tokenizer=tokenizer,
            dataset=data,
            recipe=_recipe(job),
            num_calibration_samples=len(rows),
            max_seq_length=max(map(len, rows)),
            shuffle_calibration_samples=False,
            output_dir=str(out),
        )
    copy_tokenizer(work.model, out)
    return {}


def _recipe(job: Job) -> list[Any]:
    told = {"config_groups": {"group_0": _scheme(job)}, "ignore": ["lm_head"]}
    gptq, plain = GPTQModifier(**deepcopy(told)), QuantizationModifier(**deepcopy(told))
    recipes = {
        "gptq": [gptq],
        "rtn": [plain],
        "awq": [AWQModifier(duo_scaling="both"), plain],
        "awq+gptq": [AWQModifier(duo_scaling="both"), gptq],
        "smoothquant+gptq": [SmoothQuantModifier(smoothing_strength=0.8), gptq],
    }
    return recipes[job.method]


def _scheme(job: Job) -> QuantizationScheme:
    """The preset of that many bits, with the group size and zero points of the job."""
    found = preset_name_to_scheme("W8A8" if job.inputs8 else f"W{job.bits}A16", ["Linear"])
    if not job.inputs8:
        found.weights.symmetric = job.symmetric
        found.weights.strategy = QuantizationStrategy.GROUP if job.group else QuantizationStrategy.CHANNEL
        found.weights.group_size = job.group
    return found


if __name__ == "__main__":
    one_by_one(make, ("llmcompressor", "compressed-tensors", "torch", "transformers"))
