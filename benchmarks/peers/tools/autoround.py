"""AutoRound: signed gradient descent on rounding and clipping, with its default number of steps."""

from __future__ import annotations

import torch
from auto_round import AutoRound
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.peers.tools.contract import Facts, Job, Work, copy_tokenizer, one_by_one


def make(work: Work, job: Job) -> Facts:
    """Its loader drops rows shorter than ``seqlen``: all rows are of one length."""
    rows = work.rows()
    settings = (
        {"scheme": "INT8"} if job.inputs8 else {"bits": job.bits, "group_size": job.group or -1, "sym": job.symmetric}
    )
    rounder = AutoRound(
        AutoModelForCausalLM.from_pretrained(work.model, dtype="auto"),
        AutoTokenizer.from_pretrained(work.model),
        dataset=[{"input_ids": (ids := torch.tensor([row])), "attention_mask": torch.ones_like(ids)} for row in rows],
        nsamples=len(rows),
        seqlen=min(map(len, rows)),
        device_map="cpu",
        **settings,
        **job.options,
    )
    out = work.folder(job)
    rounder.quantize_and_save(str(out), format="llm_compressor" if job.inputs8 else "auto_round")
    if not (out / "config.json").is_file():  # it makes a folder in the folder, named after the model and its bits
        (inner,) = (one for one in out.iterdir() if one.is_dir())
        for file in inner.iterdir():
            file.replace(out / file.name)
        inner.rmdir()
    copy_tokenizer(work.model, out)
    return {}


if __name__ == "__main__":
    one_by_one(make, ("auto-round", "torch", "transformers"))
