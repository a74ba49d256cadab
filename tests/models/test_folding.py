"""Where channel scales can be hidden is found by trying, for architectures that name and build things differently."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from quantgate.models import OpenedModel, open_model
from quantgate.models.folding import Fold, find_folds
from quantgate.models.random import save_random

CPU = torch.device("cpu")


def folds_of(model: OpenedModel) -> list[Fold]:
    with model.block(0, CPU) as block:
        return find_folds(block, model.linears(0), probe_of(model))


def probe_of(model: OpenedModel, tokens: int = 8) -> torch.Tensor:
    return torch.randn(1, tokens, model.config.hidden_size, generator=torch.Generator().manual_seed(0))


def short(fold: Fold) -> tuple[str, str, str, int]:
    last = fold.group[0].rpartition(".")[2]
    return last, fold.source.rpartition(".")[2], fold.kind, fold.repeat


LLAMA = [
    ("q_proj", "input_layernorm", "norm", 1),
    ("o_proj", "v_proj", "linear", 2),
    ("gate_proj", "post_attention_layernorm", "norm", 1),
    ("down_proj", "up_proj", "linear", 1),
]


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_llama_and_its_kin(tmp_path: Path, kind: str) -> None:
    folder = save_random(tmp_path, kind=kind, head_dim=32)
    assert [short(fold) for fold in folds_of(open_model(folder))] == LLAMA


def test_a_norm_that_multiplies_by_one_plus_its_weight(tmp_path: Path) -> None:
    found = [short(fold) for fold in folds_of(open_model(save_random(tmp_path, kind="gemma", head_dim=32)))]
    offset = [(group, source, "offset norm" if kind == "norm" else kind, n) for group, source, kind, n in LLAMA]
    assert found == offset


def test_without_shared_heads_nothing_is_repeated(tmp_path: Path) -> None:
    found = {short(fold) for fold in folds_of(open_model(save_random(tmp_path, kv_heads=4)))}
    assert ("o_proj", "v_proj", "linear", 1) in found


def test_the_block_is_left_as_it_was(tmp_path: Path) -> None:
    model = open_model(save_random(tmp_path))
    with model.block(0, CPU) as block:
        before = {name: tensor.clone() for name, tensor in block.module.state_dict().items()}
        find_folds(block, model.linears(0), probe_of(model))
        after = block.module.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_shared_channels_get_the_geometric_mean() -> None:
    fold = Fold(("o_proj",), "v_proj", "linear", channels=4, repeat=2, head=2)
    scales = torch.tensor([1.0, 2.0, 4.0, 8.0, 1.0, 1.0, 1.0, 9.0])  # 2 key heads, 2 query heads each
    assert torch.allclose(fold.gather(scales), torch.tensor([2.0, 4.0, 1.0, 3.0]))
    assert fold.expand(torch.tensor([2.0, 4.0, 1.0, 3.0])).tolist() == [2, 4, 2, 4, 1, 3, 1, 3]


def test_what_is_clipped_on_the_way_is_no_place_for_scales(tmp_path: Path) -> None:
    """OLMo may clip q, k and v; a fold through the clipping shows to be wrong on tokens that reach it."""
    model = open_model(save_random(tmp_path, kind="olmo", clip_qkv=4.0))
    with model.block(0, CPU) as block:
        weight = block.linear("model.layers.0.self_attn.v_proj").weight
        weight.data = weight.data * 8
        found = find_folds(block, model.linears(0), probe_of(model, 64))
    assert "o_proj" not in {short(fold)[0] for fold in found}
