"""GGUF variants out of the sweep: what they hold, that llama.cpp's rules chose it, mixtures of them, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.quantize.gguf.conftest import small

from quantgate.errors import ArtifactError, FormatError, UsageError
from quantgate.formats.ggml import FORMATS
from quantgate.models import OpenedModel, open_model
from quantgate.quantize import Artifact, Recipe, open_artifact
from quantgate.quantize.foreign.gguf import open_gguf_artifact
from quantgate.quantize.gguf import layout_of, make_gguf, open_gguf, types_of
from quantgate.quantize.gguf.artifact import GgufArtifact
from quantgate.quantize.load import load_dequantized
from quantgate.quantize.mix import linears, mix
from quantgate.quantize.predict import predict
from quantgate.quantize.sweep import sweep

pytest.importorskip("gguf", reason="the package 'gguf' is not installed (quantgate[gguf])")
WIDE: dict[str, Any] = {"hidden": 256, "feed_forward": 512}
RECIPES = (
    Recipe(scheme="Q4_K_M"),
    Recipe(scheme="Q3_K"),
    Recipe(scheme="Q6_K", method="rtn"),
    Recipe(scheme="GGUF_MXFP4", keep=("layers.0.self_attn",), embeddings="Q8_0"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OpenedModel:
    """Llama, hidden 256, two blocks, tied."""
    return small(tmp_path_factory.mktemp("blocks") / "wide", **WIDE)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def ids() -> list[list[int]]:
    return torch.randint(8, 1500, (6, 60), generator=torch.Generator().manual_seed(3)).tolist()


@pytest.fixture(scope="module")
def made(model: OpenedModel, ids: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    found = sweep(model, ids, RECIPES, tmp_path_factory.mktemp("made"))
    return {one.name: one for one in found}


def test_names_and_container_follow_from_the_scheme(made: dict[str, Artifact]) -> None:
    assert list(made) == ["Q4_K_M", "Q3_K", "Q6_K-rtn", "GGUF_MXFP4-emb-Q8_0"]
    assert {one.manifest.checkpoint for one in made.values()} == {"gguf"}
    assert all(sorted(made[name].manifest.files) == [f"{name}.gguf", "config.json"] for name in made)


def test_every_tensor_has_the_type_that_llama_cpp_gives_it(made: dict[str, Artifact], model: OpenedModel) -> None:
    layout = layout_of(model)
    wanted = types_of("Q4_K_M", layout.shapes, layout.shape)
    file = open_gguf(made["Q4_K_M"].path / "Q4_K_M.gguf")
    assert {name: one.type.name for name, one in file.tensors.items()} == {
        name: one.name for name, one in wanted.items()
    }
    assert file.metadata["general.file_type"] == 15
    assert "general.file_type" not in open_gguf(made["Q3_K"].path / "Q3_K.gguf").metadata


def test_a_kept_layer_stands_as_plain_numbers(made: dict[str, Artifact], model: OpenedModel) -> None:
    one = made["GGUF_MXFP4-emb-Q8_0"]
    fates = {fate.name: fate for fate in one.manifest.fates}
    q_proj, head = "model.layers.0.self_attn.q_proj", "model.embed_tokens"
    assert fates[q_proj].got == "f32" and "keep list" in fates[q_proj].because
    assert torch.equal(one.files.read(f"{q_proj}.weight"), model.files.read(f"{q_proj}.weight"))
    assert fates[head].got == "Q8_0" and fates["model.layers.1.self_attn.q_proj"].got == "MXFP4"


def test_fates_cover_the_model_and_bytes_are_those_of_the_file(made: dict[str, Artifact], model: OpenedModel) -> None:
    for one in made.values():
        assert isinstance(one, GgufArtifact)
        assert sorted(fate.name for fate in one.manifest.fates) == sorted(
            name.removesuffix(".weight") for name in model.files.entries
        )
        assert one.manifest.tensor_bytes == sum(entry.size for entry in one.tensors.file.tensors.values())
        coded = [fate for fate in one.manifest.quantized]
        assert all(fate.bytes * 8 == fate.weights * FORMATS[fate.got].bits_per_weight for fate in coded)  # type: ignore[index]


def test_sizes_are_foretold(made: dict[str, Artifact], model: OpenedModel) -> None:
    foretold = {one.name: one for one in predict(model, RECIPES, calibrated=True)}
    for name, one in made.items():
        assert foretold[name].tensor_bytes == one.manifest.tensor_bytes
        assert foretold[name].bits_per_weight == pytest.approx(one.manifest.bits_per_weight)


def test_a_stranger_reads_the_same_file(made: dict[str, Artifact], model: OpenedModel) -> None:
    """Held against the baseline as if another program had made it; queries and keys are back in the model's order."""
    ours = made["Q4_K_M"]
    theirs = open_gguf_artifact(ours.path / "Q4_K_M.gguf", model)
    assert theirs.label == ours.label
    assert all(fate.facts["cosine"] > 0.98 for fate in theirs.manifest.quantized)  # type: ignore[operator]
    for name in model.files.entries:
        assert torch.equal(theirs.files.read(name), ours.files.read(name))


def test_gptq_on_blocks_loses_less_than_searched_scales(
    model: OpenedModel, ids: list[list[int]], made: dict[str, Artifact], tmp_path: Path
) -> None:
    (plain,) = sweep(model, ids, [Recipe(scheme="Q3_K", method="rtn")], tmp_path)
    assert made["Q3_K"].manifest.mean_error < 0.6 * plain.manifest.mean_error  # type: ignore[operator]


def test_the_torch_engine_runs_the_decoded_file(made: dict[str, Artifact], model: OpenedModel) -> None:
    network, ids = load_dequantized(made["Q6_K-rtn"], torch.float32), torch.arange(8, 40)[None]
    reference = load_dequantized(made["Q3_K"], torch.float32)
    with model.block(0) as block:
        exact = block.linear("model.layers.0.mlp.up_proj").weight
        near = network.get_submodule("model.layers.0.mlp.up_proj").weight
        far = reference.get_submodule("model.layers.0.mlp.up_proj").weight
        assert (near - exact).norm() < 0.2 * (far - exact).norm()
    assert network(ids).logits.isfinite().all()


def test_the_engine_looks_tokens_up_in_blocks(made: dict[str, Artifact], model: OpenedModel) -> None:
    """The model is tied, so the table is in blocks, and the output layer reads the same."""
    from quantgate.engines.torch import TorchEngine

    artifact, ids = made["Q4_K_M"], torch.arange(8, 40)[None]
    engine = TorchEngine(model, artifact, dtype="float32")
    wanted = load_dequantized(artifact, torch.float32)(ids).logits
    assert torch.allclose(engine.logits(ids), wanted, atol=1e-4)
    assert sum(path.linears for path in engine.kernels) == len(artifact.quantized) + 1  # the table is read twice


def test_the_same_inputs_give_the_same_bytes(
    model: OpenedModel, ids: list[list[int]], made: dict[str, Artifact], tmp_path: Path
) -> None:
    again = sweep(model, ids, RECIPES, tmp_path)
    assert [one.manifest.files for one in again] == [one.manifest.files for one in made.values()]
    before = (again[0].path / "manifest.json").stat().st_mtime_ns
    assert sweep(model, ids, RECIPES, tmp_path)[0].path.joinpath("manifest.json").stat().st_mtime_ns == before


def test_a_damaged_file_is_not_opened(made: dict[str, Artifact], tmp_path: Path) -> None:
    folder = tmp_path / "Q3_K"
    folder.mkdir()
    for file in made["Q3_K"].path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    raw = bytearray((folder / "Q3_K.gguf").read_bytes())
    raw[-1] ^= 1
    (folder / "Q3_K.gguf").write_bytes(raw)
    with pytest.raises(ArtifactError, match=r"Q3_K.gguf: its bytes do not match the manifest"):
        open_artifact(folder)


def test_a_mixture_copies_the_blocks_of_its_parts(
    made: dict[str, Artifact], model: OpenedModel, tmp_path: Path
) -> None:
    choice = {layer: "Q3_K" for group in linears(model) for layer in group}
    choice |= {layer: "BF16" for layer in choice if "layers.0.mlp.down" in layer}
    choice |= {layer: "Q6_K-rtn" for layer in choice if "layers.1.mlp" in layer}
    mixed = mix(model, made, choice, tmp_path / "mixed")
    assert isinstance(mixed, GgufArtifact) and mixed.label == "Q3_K (10), Q6_K (4)"
    file, parts = mixed.tensors.file, {name: one.tensors.file for name, one in made.items()}  # type: ignore[attr-defined]
    assert (file.rows("blk.1.ffn_up.weight") == parts["Q6_K-rtn"].rows("blk.1.ffn_up.weight")).all()
    assert (file.rows("token_embd.weight") == parts["Q3_K"].rows("token_embd.weight")).all()
    assert file.tensors["blk.0.ffn_down.weight"].type.name == "F32"
    assert mix(model, made, choice, tmp_path / "mixed").manifest.digest == mixed.manifest.digest
    assert open_artifact(tmp_path / "mixed").manifest.recipe.container == "gguf"


def test_containers_are_not_mixed(
    model: OpenedModel, ids: list[list[int]], made: dict[str, Artifact], tmp_path: Path
) -> None:
    (other,) = sweep(model, ids, [Recipe(scheme="W8A16")], tmp_path)
    choice = {layer: "Q3_K" if "layers.0" in layer else "W8A16" for group in linears(model) for layer in group}
    with pytest.raises(FormatError, match="stored as compressed_tensors and gguf; take those of one container"):
        mix(model, {**made, "W8A16": other}, choice, tmp_path / "mixed")


def test_rows_that_do_not_divide_take_narrower_blocks(tiny_gguf: Any, tmp_path: Path) -> None:
    """As llama.cpp does it: blocks of 32 for hidden 64."""
    (one,) = sweep(tiny_gguf, None, [Recipe(scheme="Q4_K_M", method="rtn")], tmp_path)
    wanted = make_gguf(tiny_gguf, tmp_path / "theirs.gguf", "Q4_K_M")
    assert isinstance(one, GgufArtifact)
    assert {name: entry.type for name, entry in one.tensors.file.tensors.items()} == {
        name: entry.type for name, entry in wanted.tensors.items()
    }


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (Recipe(scheme="Q4_K_M", method="awq"), "method awq has no search for the scales of blocks"),
        (Recipe(scheme="Q4_K_M", untie=True, lm_head="Q8_0", embeddings="Q8_0"), "untie: a GGUF file of a tied model"),
        (
            Recipe(scheme="Q4_K_M", lm_head="Q8_0", embeddings="Q6_K"),
            "is tied, so lm_head and embeddings must be the same",
        ),
        (Recipe(scheme="Q4_K_M", lm_head="W8A16"), "W8A16 is not a block format"),
        (Recipe(scheme="Q4_K_M", rotation="hadamard"), "leave out rotation"),
        (Recipe(scheme="Q4_K_M", container="gptq"), "the container gptq cannot hold Q4_K_M"),
        (Recipe(scheme="W4A16", container="gguf"), "the container gguf cannot hold W4A16"),
    ],
)
def test_what_a_file_cannot_have_is_refused_before_the_start(
    model: OpenedModel, ids: list[list[int]], tmp_path: Path, recipe: Recipe, sentence: str
) -> None:
    with pytest.raises((FormatError, UsageError), match=sentence):
        sweep(model, ids, [recipe], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_model_that_llama_cpp_cannot_hold_is_refused(tmp_path: Path) -> None:
    from quantgate.errors import ModelError
    from quantgate.models.families import save_family

    save_family(tmp_path / "neox", "gpt_neox")
    with pytest.raises(ModelError):
        sweep(open_model(tmp_path / "neox"), None, [Recipe(scheme="Q8_0", method="rtn")], tmp_path / "none")
