"""The torch engine answers as its own network does token by token, for architectures built otherwise than Llama."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from quantgate.engines import Completion, Prompt
from quantgate.engines.torch import open_engine
from quantgate.models import open_model
from quantgate.models.families import FAMILIES, save_family
from quantgate.quantize import Recipe, load_dequantized
from quantgate.quantize.sweep import sweep

PROMPTS = [
    Prompt(turns=(("user", text),), max_tokens=10) for text in ("hi", "a longer prompt than the window", "one more")
]


@pytest.mark.parametrize("kind", FAMILIES)
@torch.no_grad()
def test_a_variant_answers_as_its_network_does_token_by_token(kind: str, tmp_path: Path) -> None:
    model = open_model(save_family(tmp_path / "model", kind))
    rng = random.Random(0)
    samples = [[rng.randrange(256) for _ in range(16)] for _ in range(4)]
    (artifact,) = sweep(model, samples, [Recipe(scheme="W4A16", group_size=32, method="rtn")], tmp_path / "out")
    engine = open_engine(model, artifact, dtype="float32", device="cpu")
    assert sum(path.linears for path in engine.kernels) == len(artifact.quantized)
    network = load_dequantized(artifact, torch.float32)
    for prompt, answer in zip(PROMPTS, engine.generate(PROMPTS), strict=True):
        ids = list(engine.encode(prompt.turns))
        began = len(ids)
        while len(ids) - began < prompt.max_tokens:
            token = int(network(torch.tensor([ids])).logits[0, -1].argmax())
            if token in engine.stops:
                break
            ids.append(token)
        assert isinstance(answer, Completion)
        assert answer.text == model.tokenizer.decode(ids[began:], skip_special_tokens=True)
        assert answer.tokens == len(ids) - began


@pytest.mark.parametrize("kind", ["gpt_neox", "opt", "mixtral", "qwen3_moe"])
def test_low_bit_kernels_run_in_bfloat16(kind: str, tmp_path: Path) -> None:
    model = open_model(save_family(tmp_path / "model", kind, dtype="bfloat16"))
    (artifact,) = sweep(model, None, [Recipe(scheme="W4A16", group_size=32, method="rtn")], tmp_path / "out")
    engine = open_engine(model, artifact, device="cpu")
    assert {path.got.partition(",")[0] for path in engine.kernels} == {"int4 packed kernel"}
    ids = torch.arange(20)[None] * 7 % 256
    with torch.no_grad():
        near = load_dequantized(artifact, torch.float32)(ids).logits
    assert torch.corrcoef(torch.stack([engine.logits(ids).flatten(), near.flatten()]))[0, 1] > 0.99
