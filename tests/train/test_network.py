"""Networks: the numbers of the artifact, gradients to what is trained, and nothing else."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from quantgate.engines._greedy import Decoder
from quantgate.errors import TrainingError
from quantgate.formats.codec import decode, encode
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize import Recipe, baseline, load_dequantized
from quantgate.quantize.load import load_with_paths
from quantgate.quantize.sweep import sweep
from quantgate.train.network import open_fake_network, open_network

RECIPES = [
    Recipe(scheme="W4A16"),
    Recipe(scheme="W3A16", group_size=64, symmetric=False, method="rtn"),
    Recipe(scheme="W1A16", method="rtn"),
    Recipe(scheme="W8A8", method="rtn", label="W8A8"),
    Recipe(scheme="W4A4", method="rtn", label="W4A4"),
    Recipe(scheme="FP8"),
    Recipe(scheme="FP8_DYNAMIC"),
    Recipe(scheme="FP8_BLOCK", keep=("k_proj", "v_proj")),
    Recipe(scheme="NVFP4"),
    Recipe(scheme="MXFP4"),
    Recipe(scheme="W8A16", kv_cache="fp8", label="kv-fp8"),
    Recipe(scheme="W8A16", kv_cache="int8", label="kv-int8"),
    Recipe(scheme="W4A16", kv_cache="int4", method="rtn", label="kv-int4"),
    Recipe(scheme="W4A16", method="awq", label="awq"),
    Recipe(scheme="W8A8", method="smoothquant", label="smoothquant"),
    Recipe(scheme="W4A16", rotation="hadamard", method="rtn", label="rotated"),
    Recipe(scheme="W4A16", lm_head="W8A16", untie=True, label="ends", method="rtn"),
    Recipe(scheme="W4A16", lm_head="W4A16", embeddings="W4A16", label="table", method="rtn"),
    Recipe(scheme="W4A16", container="gptq", method="rtn", label="gptq-container"),
    Recipe(scheme="W4A16", method="rtn", symmetric=False, container="awq", label="awq-container"),
]
BLOCKS = ["Q4_0", "Q8_0", "Q4_K_M", "Q2_K", "IQ4_NL"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Llama, hidden 256, 2 blocks, tied embeddings, BF16."""
    return open_model(save_random(tmp_path_factory.mktemp("models") / "small", hidden=256, heads=4))


@pytest.fixture(scope="module")
def samples():
    rng = random.Random(0)
    return [[rng.randrange(256) for _ in range(rng.randrange(8, 48))] for _ in range(12)]


@pytest.fixture(scope="module")
def swept(model, samples, tmp_path_factory):
    made = sweep(model, samples, RECIPES, tmp_path_factory.mktemp("swept"))
    return {artifact.name: artifact for artifact in made}


@pytest.fixture(scope="module")
def ids():
    return torch.randint(0, 256, (3, 20), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def counted(ids):
    return torch.rand(ids.shape, generator=torch.Generator().manual_seed(2)) < 0.5


@torch.no_grad()
def of_runtime(artifact, ids, counted):
    """What the artifact's own numbers give in float32, each decoded in the type that its scales are stored in."""
    network, paths = load_with_paths(artifact, torch.float32)
    for name in artifact.quantized:
        network.get_submodule(paths[name]).weight.copy_(artifact.linear(name).dequantized())
    return Decoder(network, [1], torch.device("cpu"), artifact.kv_cache()).whole(ids)[counted]


def loss_of(network, ids, counted):
    return F.cross_entropy(network.logits(ids, counted), ids.roll(-1, 1)[counted])


def one_step(network, ids, counted, rate=0.003):
    with network.step():
        loss_of(network, ids, counted).backward()
    with torch.no_grad():
        for group in network.groups():
            for parameter in group.parameters.values():
                parameter -= rate * parameter.grad.sign()


def gradients(network):
    return {name: one.grad for group in network.groups() for name, one in group.parameters.items()}


def assert_learns(network, ids, counted):
    """Steps against the gradient lower the loss, and what would be stored is what the network computed with."""
    with network.still():
        before = loss_of(network, ids, counted)
    for _ in range(3):
        one_step(network, ids, counted, 0.001)
    with network.still():
        assert loss_of(network, ids, counted) < before
        for name, one in network.trained().items():
            again = decode(encode(one.weight, one.grid, one.scales, one.zeros), one.grid, one.scales, one.zeros)
            assert torch.equal(again, network.layers[name].weight), name


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_training_begins_with_the_artifacts_own_logits_and_learns(swept, model, recipe, ids, counted):
    artifact = swept[recipe.name]
    network = open_fake_network(model, artifact)
    with network.still():
        torch.testing.assert_close(
            network.logits(ids, counted), of_runtime(artifact, ids, counted), rtol=1e-4, atol=1e-3
        )
    assert set(network.layers) == set(artifact.quantized) - {model.walker.table}
    assert_learns(network, ids, counted)


def test_blocks_of_a_gguf_file_are_trained_as_the_file_holds_them(model, samples, tmp_path, ids, counted):
    pytest.importorskip("gguf")
    made = sweep(model, samples, [Recipe(scheme=name, method="rtn") for name in BLOCKS], tmp_path)
    for artifact in made:
        network = open_fake_network(model, artifact)
        with network.still():
            torch.testing.assert_close(
                network.logits(ids, counted), of_runtime(artifact, ids, counted), rtol=1e-4, atol=1e-3
            )
        assert_learns(network, ids, counted)


def test_batches_of_a_step_add_up_to_one_batch_of_all(swept, model, ids, counted):
    network = open_fake_network(model, swept["W4A16"])
    rows = [slice(0, 1), slice(1, 3)]
    with network.step():
        for one in rows:
            (loss_of(network, ids[one], counted[one]) * counted[one].sum()).backward()
    apart = gradients(network)
    with network.step():
        (loss_of(network, ids, counted) * counted.sum()).backward()
    for name, together in gradients(network).items():
        torch.testing.assert_close(apart[name], together, rtol=1e-3, atol=1e-4)


def test_gradients_do_not_pile_up_over_steps(swept, model, ids, counted):
    network = open_fake_network(model, swept["W8A8"])
    found = []
    for _ in range(2):
        with network.step():
            loss_of(network, ids, counted).backward()
        found.append(gradients(network))
    for name, one in found[0].items():
        assert torch.equal(one, found[1][name])


@pytest.mark.parametrize("name", ["W4A4", "FP8", "kv-fp8", "kv-int4"])
def test_checkpointing_gives_the_same_gradients(swept, model, name, ids, counted):
    found = []
    for checkpointing in (False, True):
        network = open_fake_network(model, swept[name], checkpointing=checkpointing)
        with network.step():
            loss_of(network, ids, counted).backward()
        found.append(gradients(network))
    assert found[0].keys() == found[1].keys()
    for name, one in found[0].items():
        torch.testing.assert_close(one, found[1][name], rtol=1e-5, atol=1e-6)


def test_layers_that_runtimes_fuse_learn_one_scale_of_their_input(swept, model, ids, counted):
    network = open_fake_network(model, swept["FP8"])
    one_step(network, ids, counted, 0.01)
    block = "model.layers.1"
    for group in (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj")):
        scales = [one for leaf in group if (one := network.trained()[f"{block}.{leaf}"].input_scale) is not None]
        assert len(scales) == len(group) and all(torch.equal(one, scales[0]) for one in scales)
        moved = network.layers[f"{block}.{group[0]}"].input_log_scale
        assert moved is not None and float(moved.detach().abs()) > 0
    names = [name for group in network.groups() for name in group.parameters if name.endswith("input_log_scale")]
    assert len(names) == 2 * 4  # of each block: attention's input and output, the MLP's two


def test_checkpointing_keeps_less(swept, model, ids, counted):
    """Numbers that wait for the way back, counted by torch's own hooks."""

    def kept(checkpointing):
        sizes: list[int] = []

        def count(x):
            sizes.append(x.numel())
            return x

        network = open_fake_network(model, swept["W4A16"], checkpointing=checkpointing)
        counting = torch.autograd.graph.saved_tensors_hooks(count, lambda x: x)
        with network.step(), counting:
            loss_of(network, ids, counted)
        return sum(sizes)

    assert kept(True) < kept(False) / 3


def test_adapters_are_trained_in_the_place_of_weights(swept, model, ids, counted):
    artifact = swept["W4A16"]
    network = open_fake_network(model, artifact, adapters=4, norms=False)
    with network.still():
        torch.testing.assert_close(
            network.logits(ids, counted), of_runtime(artifact, ids, counted), rtol=1e-4, atol=1e-3
        )
    assert [group.name for group in network.groups()] == ["adapters", "scales"]
    before = {name: layer.latent.clone() for name, layer in network.layers.items()}
    assert_learns(network, ids, counted)
    for name, one in network.trained().items():
        layer = network.layers[name]
        assert torch.equal(layer.latent, before[name])
        assert torch.linalg.matrix_rank(one.weight - layer.latent, rtol=1e-3) <= 4
        assert not torch.equal(one.weight, layer.latent)


def test_adapters_are_drawn_from_the_seed(swept, model):
    networks = [open_fake_network(model, swept["W4A16"], adapters=2, seed=seed) for seed in (0, 0, 1)]
    drawn = [one for network in networks if (one := network.layers["model.layers.0.mlp.up_proj"].down) is not None]
    assert len(drawn) == 3
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_unrounded_weights_begin_at_the_models_own_where_they_are_asked_for(swept, model):
    name = "model.layers.0.mlp.up_proj"
    own = model.files.read(f"{name}.weight").float()
    artifact = swept["W4A16"]
    plain = open_fake_network(model, artifact, latents="baseline").layers[name]
    assert torch.equal(plain.latent, own)
    celled = open_fake_network(model, artifact).layers[name]
    assert torch.equal(celled.weight, artifact.linear(name).dequantized().float())
    value = artifact.linear(name).dequantized().float()
    assert (celled.latent - own).abs().sum() < 0.5 * (value - own).abs().sum()


@pytest.mark.parametrize("name", ["awq", "smoothquant", "rotated"])
def test_a_start_that_changed_its_weights_first_is_not_mixed_with_the_models(swept, model, name):
    network = open_fake_network(model, swept[name], latents="baseline")
    for layer, one in network.layers.items():
        assert torch.equal(one.latent, swept[name].linear(layer).dequantized().float())


def test_norms_are_seen_as_stored_and_only_trained_where_asked(swept, model, ids, counted):
    network = open_fake_network(model, swept["W4A16"])
    one_step(network, ids, counted, 0.001)
    norms = network.others()
    assert sorted(norms) == sorted(name for name in model.files.entries if "norm" in name)
    with network.still():
        for name, stored in norms.items():
            assert stored.dtype == torch.bfloat16
            seen = network.model.get_submodule(network.paths[name.removesuffix(".weight")]).weight
            assert torch.equal(seen, stored.float())
    fixed = open_fake_network(model, swept["W4A16"], norms=False)
    assert fixed.others() == {}
    assert "norms" not in [group.name for group in fixed.groups()]


def test_scales_of_the_cache_are_trained_and_stored(swept, model, ids, counted):
    network = open_fake_network(model, swept["kv-fp8"])
    names = [name for name in swept["kv-fp8"].files.entries if name.endswith(("k_scale", "v_scale"))]
    first = {name: one for name, one in network.others().items() if name in names}
    assert sorted(first) == sorted(names)
    for name, one in first.items():
        assert torch.equal(one, swept["kv-fp8"].files.read(name))
    one_step(network, ids, counted, 0.1)
    moved = network.others()
    assert any(not torch.equal(moved[name], first[name]) for name in names)
    assert all(moved[name].dtype == first[name].dtype for name in names)


@pytest.mark.parametrize("name", ["W4A16", "W8A8", "kv-fp8"])
def test_a_block_alone_gives_what_it_gives_within_the_model(swept, model, name, ids, counted):
    network = open_fake_network(model, swept[name])
    seen: dict[str, torch.Tensor] = {}
    block = network.block(1)
    hook = block.module.register_forward_hook(lambda _m, args, out: seen.update(given=args[0], out=out))
    with network.still():
        network.logits(ids, counted)
        out = seen["out"][0] if isinstance(seen["out"], tuple) else seen["out"]
    hook.remove()
    with block.still():
        torch.testing.assert_close(block(seen["given"]), out)


def test_a_block_alone_trains_its_own_parameters(swept, model, ids):
    network = open_fake_network(model, swept["W4A4"])
    block = network.block(1)
    hidden = torch.randn(2, 7, 256)
    with block.step():
        block(hidden).square().mean().backward()
    mine = {name for group in block.groups() for name in group.parameters}
    every = gradients(network)
    assert mine < every.keys()
    assert all(".1." in name for name in mine)
    assert {name for name, grad in every.items() if grad is not None} == mine
    assert all(every[name].isfinite().all() for name in mine)


def test_batches_in_two_threads_are_those_of_one(swept, model, ids, counted):
    network = open_fake_network(model, swept["W4A4"])
    parts = [(ids[row : row + 1], counted[row : row + 1]) for row in range(3)] * 4

    @torch.no_grad()
    def alone(part):
        return network.logits(*part)

    with network.still(), ThreadPoolExecutor(2) as pool:
        together = list(pool.map(alone, parts))
        for one, part in zip(together, parts, strict=True):
            torch.testing.assert_close(one, alone(part))


def test_bfloat16_products_keep_float32_masters(swept, model, ids, counted):
    network = open_fake_network(model, swept["W4A16"], precision="bfloat16")
    with network.step():
        logits = network.logits(ids, counted)
        F.cross_entropy(logits, ids.roll(-1, 1)[counted]).backward()
    assert logits.dtype == torch.float32
    for grad in gradients(network).values():
        assert grad.dtype == torch.float32
        assert grad.isfinite().all()
    exact = of_runtime(swept["W4A16"], ids, counted)
    assert (logits - exact).abs().max() < 0.05 * exact.abs().max()


def test_a_baseline_has_no_rounding_to_train_for(model):
    with pytest.raises(TrainingError, match="none of its layers is quantized"):
        open_fake_network(model, baseline(model))


def test_a_plain_network_is_the_model_and_trains_all_of_it(model, ids, counted):
    network = open_network(model, checkpointing=True)
    exact = load_dequantized(baseline(model), torch.float32)
    with network.still(), torch.no_grad():
        torch.testing.assert_close(network.logits(ids, counted), exact(ids).logits[counted])
    assert [group.name for group in network.groups()] == ["weights", "norms", "ends"]
    with network.still():
        before = loss_of(network, ids, counted)
    one_step(network, ids, counted, 0.0005)
    assert all(grad.abs().sum() > 0 for grad in gradients(network).values())
    with network.still():
        assert loss_of(network, ids, counted) < before
    state = network.state()
    assert state.keys() == model.files.entries.keys()
    assert all(one.shape == model.files.entries[name].shape for name, one in state.items())


FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "gemma2": {"head_dim": 32, "hidden": 256},  # embeddings times 16: the same in any type
    "gpt_neox": {},
    "opt": {"ffn_dim": 256, "word_embed_proj_dim": 128},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 1},
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_other_architectures(kind, samples, tmp_path, ids, counted):
    """Biases, norms of queries, capped logits, blocks that give tuples, experts that no token reaches."""
    model = open_model(save_random(tmp_path / kind, kind=kind, layers=2, **FAMILIES[kind]))
    (artifact,) = sweep(model, samples, [Recipe(scheme="W8A8", method="rtn")], tmp_path / "out")
    network = open_fake_network(model, artifact, checkpointing=kind == "opt")
    with network.still():
        torch.testing.assert_close(
            network.logits(ids, counted), of_runtime(artifact, ids, counted), rtol=1e-3, atol=1e-3
        )
    few = ids[:1, :3]
    with network.step():
        loss_of(network, few, torch.ones_like(few, dtype=torch.bool)).backward()
    found = gradients(network)
    reached = [name for name, grad in found.items() if grad is not None]
    assert len(reached) == len(found) or kind == "mixtral"
    block = network.block(1)
    with block.step():
        block(torch.randn(2, 5, model.config.hidden_size)).square().mean().backward()
    plain = open_network(model)
    with plain.step():
        loss_of(plain, ids, counted).backward()
    assert plain.state().keys() <= model.files.entries.keys()
