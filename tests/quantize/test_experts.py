"""Experts are quantized by the tokens they were given, and one that was given few is told apart."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from quantgate.errors import UsageError
from quantgate.models import open_model
from quantgate.models.families import MIXTURES, save_family
from quantgate.quantize import Recipe, load_dequantized
from quantgate.quantize.statistics import Statistics, batches
from quantgate.quantize.sweep import sweep

GATE = {"mixtral": "w1", "qwen3_moe": "gate_proj"}
MANY = 10**6  # more tokens than any expert here is given


@pytest.fixture(scope="module", params=MIXTURES)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind, tmp_path_factory):
    return open_model(save_family(tmp_path_factory.mktemp(kind), kind))


def recipe(method="gptq", scheme="W4A16", **options):
    return Recipe(scheme=scheme, group_size=32 if scheme == "W4A16" else None, method=method, options=options)


def notes(artifact, event):
    return {note.tensor: note for note in artifact.manifest.ledger if note.event == event}


def input_scales(artifact, layers):
    return {float(artifact.linear(layer).input_scale) for layer in layers}


def experts_of(model):
    with model.block(0) as block:
        return [home[0] for group in model.linears(0) if (home := block.experts(group[0]))][::2]


@torch.no_grad()
def routed(model, samples):
    """What transformers' own fused experts of block 0 are given: rows [tokens, hidden], experts [tokens, per token]."""
    whole = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32).eval()
    seen = []
    whole.model.layers[0].mlp.experts.register_forward_pre_hook(lambda _experts, given: seen.append(given[:2]))
    for sample in samples:
        whole(torch.tensor([sample]))
    return torch.cat([rows for rows, _ in seen]), torch.cat([chosen for _, chosen in seen])


def test_statistics_come_from_the_tokens_that_were_routed_to_the_expert(kind, model, samples):
    rows, chosen = routed(model, samples)
    cut = batches(samples, 300, 512, 200)  # several batches, padded
    with model.block(0) as block:
        statistics = Statistics(block, model.linears(0))
        for hidden, batch in zip(model.embed([one.ids for one in cut]), cut, strict=True):
            statistics.forward(hidden, batch)
        statistics.close()
    for at, expert in enumerate(experts_of(model)):
        mine = rows[(chosen == at).any(dim=1)]
        stats = statistics.take(f"{expert}.{GATE[kind]}")
        assert stats.tokens == len(mine) > 0
        assert torch.allclose(stats.hessian, mine.T @ mine / len(mine), atol=1e-4)
        assert stats.absmax is not None
        assert torch.allclose(stats.absmax, mine.abs().amax(dim=0), atol=1e-4)
    assert sum(map(len, samples)) == len(rows) == statistics.take(model.linears(0)[0][0]).tokens


def test_the_ledger_counts_every_experts_tokens(model, samples, tmp_path):
    (artifact,) = sweep(model, samples, [recipe(min_expert_tokens=1)], tmp_path)
    _, chosen = routed(model, samples)
    counted = notes(artifact, "expert_tokens")
    for at, expert in enumerate(experts_of(model)):
        assert counted[expert].value == int((chosen == at).sum())
        assert counted[expert].detail.endswith(f" of {len(chosen)} calibration tokens")
    assert not notes(artifact, "starved_expert")


def test_a_starved_expert_is_rounded_and_the_record_says_why(model, samples, tmp_path):
    rounded = recipe("rtn", clip="mse")
    starved, plain = sweep(model, samples, [recipe(min_expert_tokens=MANY), rounded], tmp_path)
    fates = {fate.name: fate for fate in starved.manifest.fates}
    with model.block(0) as block:
        of_experts = [layer for group in model.linears(0) for layer in group if block.experts(layer)]
    for layer in of_experts:
        assert (fates[layer].facts["asked"], fates[layer].facts["method"]) == ("gptq", "rtn")
        assert fates[layer].because.endswith(f"calibration tokens, fewer than {MANY}")
        assert fates[layer].got == fates[layer].asked == "int4 g32"
        assert fates[layer].error is None
        assert torch.equal(starved.linear(layer).codes, plain.linear(layer).codes)
    attention = fates[model.linears(0)[0][0]]
    assert attention.facts["method"] == "gptq"
    assert set(notes(starved, "starved_expert")) == set(notes(starved, "expert_tokens")) >= set(experts_of(model))
    assert set(of_experts) <= set(notes(starved, "fallback"))


def test_a_starved_expert_may_be_kept_instead(model, samples, tmp_path):
    (artifact,) = sweep(model, samples, [recipe(min_expert_tokens=MANY, starved="keep")], tmp_path)
    ignored = json.loads((artifact.path / "config.json").read_text())["quantization_config"]["ignore"]
    fates = {fate.name: fate for fate in artifact.manifest.fates}
    with model.block(0) as block:
        of_experts = [layer for group in model.linears(0) for layer in group if block.experts(layer)]
    for layer in of_experts:
        assert (fates[layer].asked, fates[layer].got) == ("int4 g32", "f32")
        assert fates[layer].because.startswith("its expert was given ")
        assert torch.equal(artifact.files.read(f"{layer}.weight"), model.files.read(f"{layer}.weight"))
        assert layer in ignored
    assert {note.detail.partition(": ")[2] for note in notes(artifact, "starved_expert").values()} == {
        "left at full precision"
    }
    assert load_dequantized(artifact)(torch.arange(8)[None]).logits.isfinite().all()


@pytest.mark.parametrize("method", ["gptq", "awq", "rtn"])
def test_experts_that_were_given_no_token_at_all_are_no_obstacle(method, model, tmp_path):
    (artifact,) = sweep(model, [[5]], [recipe(method, min_expert_tokens=1)], tmp_path)
    counted = {name: note.value for name, note in notes(artifact, "expert_tokens").items()}
    assert sorted(counted[expert] for expert in experts_of(model)) == [0, 0, 1, 1]
    assert set(notes(artifact, "starved_expert")) == {name for name, count in counted.items() if count == 0}
    assert load_dequantized(artifact)(torch.arange(8)[None]).logits.isfinite().all()


def test_other_containers_hold_the_same_codes(kind, samples, tmp_path):
    model = open_model(save_family(tmp_path / "model", kind, dtype="bfloat16"))
    plain = recipe(min_expert_tokens=1)
    ours, theirs = sweep(model, samples, [plain, plain.model_copy(update={"container": "gptq"})], tmp_path / "out")
    assert ours.quantized == theirs.quantized
    assert all(torch.equal(ours.linear(layer).codes, theirs.linear(layer).codes) for layer in ours.quantized)
    assert f"{experts_of(model)[1]}.{GATE[kind]}.qweight" in theirs.files.entries
    routers = json.loads((theirs.path / "config.json").read_text())["quantization_config"]["dynamic"]
    assert any("gate" in pattern for pattern in routers)


def test_without_a_calibration_set_nothing_is_counted(model, tmp_path):
    (artifact,) = sweep(model, None, [recipe("rtn")], tmp_path)
    assert artifact.manifest.ledger == ()


def test_the_experts_of_a_block_share_the_number_that_activations_are_rounded_with(kind, model, samples, tmp_path):
    fed, starved = sweep(
        model, samples, [recipe("rtn", "FP8", min_expert_tokens=1), Recipe(scheme="FP8", label="starved")], tmp_path
    )
    rows, _ = routed(model, samples)
    gates = [f"{expert}.{GATE[kind]}" for expert in experts_of(model)]
    assert [*input_scales(fed, gates)] == [pytest.approx(float(rows.abs().max()) / 448, rel=0.01)]
    assert input_scales(starved, gates) == input_scales(fed, gates)


def test_starved_experts_take_no_channel_scales(kind, model, samples, tmp_path):
    (artifact,) = sweep(model, samples, [recipe("awq", min_expert_tokens=MANY)], tmp_path)
    told = notes(artifact, "not_scaled")
    for expert in experts_of(model):
        assert told[f"{expert}.{GATE[kind]}"].detail.endswith(f"fewer than {MANY}")


def test_the_router_is_kept_and_the_record_says_why(kind, model, samples, tmp_path):
    (artifact,) = sweep(model, samples, [recipe(min_expert_tokens=1)], tmp_path)
    (router,) = [fate for fate in artifact.manifest.fates if fate.name.endswith(".gate") and ".0." in fate.name]
    assert (router.asked, router.got, router.because) == ("keep", "f32", "chooses or weighs experts")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"starved": "drop"}, "'starved': "),
        ({"min_expert_tokens": 0}, "'min_expert_tokens': "),
        ({"min_expert_token": 5}, "unknown key 'min_expert_token'"),
    ],
)
def test_a_wrong_option_is_told_before_anything_slow(model, options, sentence, samples, tmp_path):
    with pytest.raises(UsageError, match=sentence):
        sweep(model, samples, [recipe(**options)], tmp_path)


def test_a_dense_model_has_no_experts_to_give_rules_for(tiny, samples, tmp_path):
    with pytest.raises(UsageError, match="has no experts; remove 'starved' from its options"):
        sweep(tiny, samples, [recipe(starved="keep")], tmp_path)
