"""A propagated variant is solved for what its own blocks give; a corrected one makes up for what they lost."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from quantgate.errors import UsageError
from quantgate.models import open_model
from quantgate.models.families import MIXTURES, save_family
from quantgate.quantize import Recipe, load_dequantized
from quantgate.quantize.drift import Drift, Inputs, both
from quantgate.quantize.journal import Journal
from quantgate.quantize.load import load_with_paths
from quantgate.quantize.methods._correction import output_error
from quantgate.quantize.plan import plan
from quantgate.quantize.propagate import Streams
from quantgate.quantize.solve import solve
from quantgate.quantize.statistics import Statistics, batches
from quantgate.quantize.sweep import Sweep, sweep
from quantgate.records import digest_file


def recipe(label="", scheme="W3A16", **options):
    return Recipe(
        scheme=scheme, group_size=None if scheme == "W8A8" else 32, method="gptq", options=options, label=label
    )


def stepped(model, samples, recipes, out):
    """Two blocks, walked as a sweep does: every LayerStats that the streams solved, by (variant, block, layer)."""
    variants = plan(model, recipes, calibrated=True)
    cut = batches(samples, 256, 512, 200)  # several batches, padded
    run = Sweep(model, variants, cut, None, torch.device("cpu"), 0, lambda *_: None)
    hidden, journal, seen = model.embed([one.ids for one in cut]), Journal(out, "sha256:0"), {}
    streams = Streams(run, variants, hidden)
    journal.open()

    def noted(pieces, block, group, stats):
        seen.update({(variant.name, block.index, group[0]): copy.copy(stats) for variant in pieces.variants})
        solve(pieces, block, group, stats)

    for index in range(2):
        with model.block(index) as block:
            statistics = Statistics(block, model.linears(index))
            before, hidden = hidden, [statistics.forward(*one) for one in zip(hidden, cut, strict=True)]
            statistics.close()
            held = {group[0]: statistics.take(group[0]) for group in model.linears(index)}
            journal.begin(index)
            for pieces in streams.solve(block, model.linears(index), before, held, noted):
                for variant in pieces.variants:
                    journal.write(index, variant.name, pieces.tensors[variant.name], pieces.piece(variant))
            streams.advance(block, journal)
    return streams, seen


@torch.no_grad()
def given_to(network, layers, samples):
    """[tokens, in] of each of the ``layers`` of a transformers model, the samples one by one."""
    rows: dict[str, list[torch.Tensor]] = {layer: [] for layer in layers}

    def note(to, args):
        to.append(args[0].reshape(-1, args[0].shape[-1]))

    hooks = [
        network.get_submodule(layer).register_forward_pre_hook(lambda _layer, args, to=to: note(to, args))
        for layer, to in rows.items()
    ]
    for sample in sorted(samples, key=len):
        network(torch.tensor([sample]))
    for hook in hooks:
        hook.remove()
    return {layer: torch.cat(found) for layer, found in rows.items()}


def firsts(model, index):
    return [group[0] for group in model.linears(index)]


@pytest.mark.parametrize(("scheme", "steps"), [("W3A16", "block"), ("W3A16", "layer"), ("W8A8", "block")])
def test_statistics_are_those_of_a_model_whose_earlier_layers_are_quantized(tiny, samples, tmp_path, scheme, steps):
    wanted = recipe("own", scheme, propagate="corrected", steps=steps)
    (artifact,) = sweep(tiny, samples, [wanted], tmp_path / "swept")
    _, seen = stepped(tiny, samples, [wanted], tmp_path / "stepped")
    original = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32).eval()
    replaced, paths = load_with_paths(artifact, torch.float32)  # rounds inputs where the scheme does
    for layer in artifact.quantized:
        replaced.get_submodule(paths[layer]).weight.data.copy_(artifact.linear(layer).dequantized().float())
    if steps == "block":
        replaced.model.layers[1] = original.model.layers[1]
    layers = firsts(tiny, 1)
    own, model = given_to(replaced, layers, samples), given_to(original, layers, samples)
    for layer in layers:
        stats = seen["own", 1, layer]
        mine, true = own[layer], model[layer]
        assert stats.tokens == len(mine) == sum(map(len, samples))
        hessian = mine.T @ mine / len(mine)
        assert torch.allclose(stats.hessian, hessian, atol=1e-5 + 1e-4 * float(hessian.abs().max()))
        drift = (true - mine).T @ mine / len(mine)
        # an input on the border of two of its 255 steps falls on either side, by the order in which a machine adds up
        assert float((stats.drift - drift).norm() / drift.norm()) < (0.02 if scheme == "W8A8" else 1e-4)
        assert torch.allclose(stats.wanted, true.T @ true / len(true), atol=1e-4)
        assert float(drift.abs().max()) > 0.0
        at = {fate.name: fate for fate in artifact.manifest.fates}[layer]
        stored = artifact.linear(layer).dequantized().float()
        weight = original.get_submodule(layer).weight.detach()
        assert at.facts["output_error"] == pytest.approx(
            float((mine @ stored.T - true @ weight.T).square().sum() / (true @ weight.T).square().sum()), rel=1e-2
        )


def test_measured_once_a_block_the_first_one_has_not_drifted(tiny, samples, tmp_path):
    made = sweep(tiny, samples, [recipe("plain"), recipe("own", propagate="corrected", steps="block")], tmp_path)
    plain, own = made
    for group in tiny.linears(0):
        for layer in group:
            assert torch.equal(plain.linear(layer).codes, own.linear(layer).codes)
    assert any(
        not torch.equal(plain.linear(layer).codes, own.linear(layer).codes)
        for group in tiny.linears(1)
        for layer in group
    )


def test_the_first_block_drifts_from_its_second_input_on(tiny, samples, tmp_path):
    _, seen = stepped(tiny, samples, [recipe("own", propagate="corrected")], tmp_path)
    first, *rest = (seen["own", 0, layer] for layer in firsts(tiny, 0))
    assert float(first.drift.abs().max()) == 0.0
    assert all(float(one.drift.abs().max()) > 0.0 for one in rest)


@pytest.mark.parametrize("steps", ["block", "layer"])
def test_corrected_layers_give_more_of_the_models_output_than_plain_ones(tiny, samples, tmp_path, steps):
    """By the geometric mean, and in all layers but one: what two bits round away in one may be more than the gain."""
    own = {"propagate": "corrected", "steps": steps}
    made = sweep(tiny, samples, [recipe("plain", "W2A16"), recipe("own", "W2A16", **own)], tmp_path / "swept")
    _, seen = stepped(tiny, samples, [recipe("own", "W2A16", **own)], tmp_path / "stepped")
    kept = []
    with tiny.block(1) as block:
        for group in tiny.linears(1):
            for layer in group:
                stats, weight = seen["own", 1, group[0]], block.linear(layer).weight
                plain, mended = (output_error(weight, one.linear(layer).dequantized().float(), stats) for one in made)
                assert plain is not None
                assert mended is not None
                kept.append(mended / plain)
    assert sum(ratio < 1.0 for ratio in kept) >= len(kept) - 1
    assert math.prod(kept) ** (1 / len(kept)) < 0.95


def test_variants_beside_a_propagated_one_keep_their_bytes(tiny, samples, tmp_path):
    others = [recipe("plain"), Recipe(scheme="W8A8", method="smoothquant")]
    alone = sweep(tiny, samples, others, tmp_path / "alone")
    beside = sweep(tiny, samples, [*others, recipe("own", propagate="inputs")], tmp_path / "beside")
    for before, after in zip(alone, beside[:2], strict=True):
        for file in before.path.iterdir():
            assert digest_file(file) == digest_file(after.path / file.name), file.name


def test_variants_of_another_container_share_a_stream(tiny, samples, tmp_path):
    own = recipe("own", propagate="inputs")
    stored = own.model_copy(update={"label": "stored", "container": "gptq"})
    other = recipe("other", propagate="corrected")
    streams, _ = stepped(tiny, samples, [own, stored, other], tmp_path / "stepped")
    assert [[one.name for one in stream.variants] for stream in streams.streams] == [["own", "stored"], ["other"]]
    first, second, _ = sweep(tiny, samples, [own, stored, other], tmp_path / "swept")
    for layer in first.quantized:
        assert torch.equal(first.linear(layer).codes, second.linear(layer).codes)


def test_layers_that_are_kept_run_as_they_are(tiny, samples, tmp_path):
    kept = recipe("own", propagate="corrected", steps="block").model_copy(update={"keep": ("layers.0",)})
    _, seen = stepped(tiny, samples, [kept], tmp_path)
    for layer in firsts(tiny, 1):
        assert float(seen["own", 1, layer].drift.abs().max()) == 0.0


def test_the_error_on_record_is_against_the_true_weight_on_the_models_inputs(tiny, samples, tmp_path):
    (made,) = sweep(tiny, samples, [recipe("own", propagate="corrected")], tmp_path)
    original = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32).eval()
    inputs = given_to(original, made.quantized, samples)
    for fate in made.manifest.quantized:
        weight = original.get_submodule(fate.name).weight.detach()
        change = made.linear(fate.name).dequantized().float() - weight
        rows = inputs[fate.name]
        assert fate.error == pytest.approx(
            float((rows @ change.T).square().sum() / (rows @ weight.T).square().sum()), rel=1e-2
        )
        assert fate.facts["propagated"] == "corrected"


def test_only_a_method_with_propagation_takes_the_option(tiny, samples, tmp_path):
    wanted = Recipe(scheme="W4A16", method="awq", options={"propagate": "inputs"})
    with pytest.raises(UsageError, match="unknown key 'propagate'"):
        sweep(tiny, samples, [wanted], tmp_path)


@pytest.mark.parametrize("kind", MIXTURES)
@pytest.mark.parametrize("steps", ["block", "layer"])
def test_experts_learn_from_the_tokens_that_both_routers_sent_them(kind, steps, samples, tmp_path):
    model = open_model(save_family(tmp_path / kind, kind))
    wanted = recipe("own", "W2A16", propagate="corrected", steps=steps, min_expert_tokens=1)
    (made,) = sweep(model, samples, [wanted], tmp_path / "swept")
    assert load_dequantized(made)(torch.arange(8)[None]).logits.isfinite().all()
    cut = batches(samples, 256, 512, 200)
    hidden = model.embed([one.ids for one in cut])
    own = [one + 0.3 * torch.randn(one.shape, generator=torch.Generator().manual_seed(1)) for one in hidden]
    groups, rerouted = model.linears(0), 0
    with model.block(0) as block:
        twin = block.copy()
        inputs, drift, mirror = Inputs(block, groups), Drift(twin, groups), Inputs(twin, groups)
        expected = {first: torch.zeros(()) for first in drift.sums}
        for one, mine, batch in zip(hidden, own, cut, strict=True):
            given = inputs.of(one, batch)
            drift.expect(batch)
            seen = mirror.of(mine, batch)
            drift.add(given)
            for first, (rows, tokens) in seen.items():
                models = zip(given[first][1].tolist(), given[first][0], strict=True) if first in given else ()
                known = dict(models)
                for token, row in zip(tokens.tolist(), rows, strict=True):
                    rerouted += token not in known
                    if token in known:
                        expected[first] = expected[first] + torch.outer(known[token] - row, row)
    assert rerouted > 0
    for first, found in drift.sums.items():
        assert torch.allclose(found, expected[first].expand_as(found), atol=1e-3)


@given(a=st.sets(st.integers(0, 30)), b=st.sets(st.integers(0, 30)))
def test_what_two_lists_have_in_common_is_found_in_both(a, b):
    left, right = (torch.tensor(sorted(one), dtype=torch.long) for one in (a, b))
    here, there = both(left, right)
    assert set(left[here].tolist()) == set(right[there].tolist()) == a & b
    assert torch.equal(left[here], right[there])
