"""GGUF files as variants: equal to the baseline in all but its numbers, or refused in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.quantize.gguf.conftest import small

from quantgate.errors import ArtifactError, UsageError
from quantgate.models import open_model
from quantgate.quantize.foreign.gguf import open_gguf_artifact
from quantgate.quantize.gguf import TYPES, Layout, encode, layout_of, make_gguf, write_gguf

pytest.importorskip("gguf", reason="the package 'gguf' is not installed (quantgate[gguf])")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return small(tmp_path_factory.mktemp("baseline") / "m", tied=False)


@pytest.fixture
def planted(model: Any, tmp_path: Path) -> Any:
    """Write a file of the baseline with other metadata, or without a tensor, and open it."""

    def plant(*, drop: str = "", add: dict[str, Any] | None = None, **metadata: Any) -> Any:
        layout: Layout = layout_of(model)
        told = {**layout.metadata, **{key.replace("__", "."): value for key, value in metadata.items()}}
        told = {key: value for key, value in told.items() if value is not None}
        shapes = {name: shape for name, shape in layout.shapes.items() if name != drop} | (add or {})
        origin = {place.name: (one, place) for one, place in layout.places.items()}

        def blocks(name: str) -> Any:
            if name not in origin:
                return encode(torch.ones(shapes[name]), TYPES["Q8_0"], None)
            source, place = origin[name]
            numbers = place.rows_in_file(model.files.read(source)).float() + place.plus
            return encode(numbers, TYPES["F32" if numbers.dim() == 1 else "Q8_0"], None)

        types = {name: TYPES["F32" if len(shape) == 1 else "Q8_0"] for name, shape in shapes.items()}
        file = write_gguf(tmp_path / "v.gguf", replace(layout, metadata=told, shapes=shapes), types, blocks)
        return open_gguf_artifact(file.path, model)

    return plant


def test_a_file_is_an_artifact_like_any_other(model: Any, tmp_path: Path) -> None:
    artifact = open_gguf_artifact(make_gguf(model, tmp_path / "Small-Q8_0.gguf", "Q8_0").path, model)
    manifest = artifact.manifest
    assert (artifact.name, artifact.label, manifest.checkpoint, manifest.recipe.scheme) == (
        "Small-Q8_0", "Q8_0", "gguf", "Q8_0",
    )  # fmt: skip
    assert artifact.quantized[0] == "lm_head" and len(artifact.quantized) == 16
    assert manifest.bits_per_weight == 8.5 and manifest.made_by.startswith("quantgate")
    assert all(0 < fate.weight_error < 1e-3 for fate in manifest.quantized if fate.weight_error is not None)
    assert [note.event for note in manifest.ledger] == ["made by", "calibration"]
    assert open_gguf_artifact(artifact.path, model, "mine").manifest.digest != manifest.digest
    assert artifact.scheme_of("lm_head").name == "Q8_0" and not artifact.rounds_inputs
    with pytest.raises(ArtifactError, match=r"'model.norm' is not a quantized layer of it"):
        artifact.linear("model.norm")


def test_a_name_that_no_variant_can_have(model: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'my file' cannot name a variant"):
        open_gguf_artifact(make_gguf(model, tmp_path / "my file.gguf", "Q8_0").path, model)


def test_a_file_without_blocks_is_not_quantized(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no linear layer of .* is stored as blocks in it; it is not quantized"):
        open_gguf_artifact(make_gguf(model, tmp_path / "v.gguf", "BF16").path, model)


def test_a_dropped_tensor(planted: Any) -> None:
    with pytest.raises(ArtifactError, match=r"'output\.weight' of the baseline .* is missing; the file is incomplete"):
        planted(drop="output.weight")


def test_a_tensor_that_nobody_knows(planted: Any) -> None:
    with pytest.raises(ArtifactError, match=r"'blk\.0\.extra\.weight' is no tensor of the baseline .* not judged"):
        planted(add={"blk.0.extra.weight": (32, 64)})


def test_other_settings_of_the_architecture(planted: Any) -> None:
    with pytest.raises(ArtifactError, match=r"llama\.rope\.freq_base is 500000\.0, the baseline .* has 10000\.0"):
        planted(llama__rope__freq_base=("float32", 500000.0))
    with pytest.raises(ArtifactError, match=r"llama\.expert_count is 8, the baseline .* has not told"):
        planted(llama__expert_count=("uint32", 8))
    notes = planted(llama__context_length=("uint32", 128)).manifest.ledger
    assert next(note.detail for note in notes if note.event == "config").startswith("llama.context_length is 128")


def test_what_a_runtime_makes_by_itself_need_not_be_told(planted: Any) -> None:
    artifact = planted(llama__attention__key_length=None, llama__vocab_size=None, llama__rope__freq_base=None)
    assert not [note for note in artifact.manifest.ledger if note.event == "config"]


def test_another_chat_template(planted: Any, model: Any) -> None:
    told = model.tokenizer.chat_template
    with pytest.raises(ArtifactError, match=r"its chat template differs from that of .* .from character 3 on"):
        planted(tokenizer__chat_template=("string", told[:3] + "  " + told[3:]))
    with pytest.raises(ArtifactError, match=r"its chat template differs from that of .*it has none"):
        planted(tokenizer__chat_template=None)


def test_a_merge_in_another_place(planted: Any, model: Any) -> None:
    merges = list(layout_of(model).metadata["tokenizer.ggml.merges"][1])
    merges[3], merges[4] = merges[4], merges[3]
    with pytest.raises(
        ArtifactError, match=r"its tokenizer differs from that of .*merges, number 3: '{ \"' instead of 'i n'"
    ):
        planted(tokenizer__ggml__merges=("strings", merges))
    with pytest.raises(ArtifactError, match=r"1272 merges instead of 1273"):
        planted(tokenizer__ggml__merges=("strings", merges[:-1]))


def test_another_splitting_or_beginning(planted: Any) -> None:
    with pytest.raises(ArtifactError, match=r"pre is qwen2 instead of smaug-bpe"):
        planted(tokenizer__ggml__pre=("string", "qwen2"))
    assert planted(tokenizer__ggml__pre=("string", "dbrx")).name == "v"
    with pytest.raises(ArtifactError, match=r"add_bos_token is True instead of False"):
        planted(tokenizer__ggml__add_bos_token=("bool", True))


def test_a_file_of_another_model(model: Any, tmp_path: Path) -> None:
    wide = make_gguf(small(tmp_path / "wide", tied=False, feed_forward=128), tmp_path / "wide.gguf", "Q8_0").path
    with pytest.raises(ArtifactError, match=r"llama\.feed_forward_length is 128, the baseline .* has 96"):
        open_gguf_artifact(wide, model)
    other = make_gguf(small(tmp_path / "q", "qwen2"), tmp_path / "q.gguf", "Q8_0").path
    with pytest.raises(ArtifactError, match=r"the architecture is qwen2, the baseline .* is llama"):
        open_gguf_artifact(other, model)
    strange = open_gguf_artifact(
        make_gguf(small(tmp_path / "seed", tied=False, seed=9), tmp_path / "seed.gguf", "Q8_0").path, model
    )
    assert {note.event for note in strange.manifest.ledger} >= {"unlike"}


def test_one_part_of_several(planted: Any) -> None:
    with pytest.raises(ArtifactError, match=r"is one part of several; join them"):
        planted(split__count=("uint32", 3))


def test_the_built_in_model_on_the_torch_engine(tmp_path: Path) -> None:
    from quantgate.engines.torch import open_engine
    from quantgate.quantize import baseline

    reference = open_model("quantgate/reference")
    artifact = open_gguf_artifact(make_gguf(reference, tmp_path / "r.gguf", "Q8_0").path, reference)
    ids = torch.tensor([reference.encode([{"role": "user", "content": "What is 17 + 25?"}])])
    theirs, ours = (open_engine(reference, one, dtype="float32") for one in (artifact, baseline(reference)))
    close = (theirs.logits(ids) - ours.logits(ids)).square().mean().sqrt() / ours.logits(ids).std()
    assert 0 < float(close) < 0.02
    assert {path.got for path in theirs.kernels} == {"dequantized matmul", "rows decoded on lookup"}
