"""Opening: an artifact that its manifest does not vouch for, byte by byte and tensor by tensor, stays shut."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from quantgate.errors import ArtifactError, RecordError
from quantgate.quantize import Manifest, open_artifact
from quantgate.quantize.shards import write_tensors


@pytest.fixture
def copy(swept, tmp_path):
    return Path(shutil.copytree(swept["W4A16"].path, tmp_path / "copy"))


def rewrite(folder, **changes):
    """Save the manifest again with other fields and a right digest."""
    manifest = Manifest.load(folder / "manifest.json")
    manifest.model_copy(update=changes).save(folder / "manifest.json")


def test_a_whole_artifact_opens(each):
    assert open_artifact(each.path).manifest.digest == each.manifest.digest


def test_a_folder_without_manifest_is_no_artifact(tmp_path):
    with pytest.raises(ArtifactError, match=r"no manifest\.json; it is not an artifact, or it was copied without it"):
        open_artifact(tmp_path)


def test_an_edited_manifest_is_refused(copy):
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(RecordError, match="its content does not match its digest"):
        open_artifact(copy)


def test_one_changed_byte_in_any_file_is_noticed(copy):
    for name in Manifest.load(copy / "manifest.json").files:
        raw = (copy / name).read_bytes()
        (copy / name).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        with pytest.raises(
            ArtifactError, match=rf"{name}: its bytes do not match the manifest; make the artifact again"
        ):
            open_artifact(copy)
        (copy / name).write_bytes(raw)
    open_artifact(copy)


def test_a_missing_file_is_named(copy):
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: is missing, though the manifest lists it"):
        open_artifact(copy)


def test_a_tensor_without_fate_is_refused(copy):
    fates = Manifest.load(copy / "manifest.json").fates
    rewrite(copy, fates=fates[1:])
    with pytest.raises(ArtifactError, match=rf"tensor '{fates[0].tensors[0]}' has no fate in the manifest"):
        open_artifact(copy)


def test_a_fate_without_tensor_is_refused(copy):
    fates = Manifest.load(copy / "manifest.json").fates
    rewrite(copy, fates=(*fates, fates[0].model_copy(update={"name": "ghost", "tensors": ("ghost.weight",)})))
    with pytest.raises(ArtifactError, match=r"tensor 'ghost\.weight' has a fate but is not stored"):
        open_artifact(copy)


def test_fates_that_do_not_cover_the_model_are_refused(copy):
    fates = Manifest.load(copy / "manifest.json").fates
    rewrite(copy, fates=(fates[0].model_copy(update={"weights": 1}), *fates[1:]))
    with pytest.raises(ArtifactError, match=r"the fates cover \d+ of \d+ numbers of the model"):
        open_artifact(copy)


def test_a_kept_layer_has_no_codes(swept):
    with pytest.raises(ArtifactError, match=r"'model\.norm' is not a quantized layer of it"):
        swept["W4A16"].linear("model.norm")


def test_the_manifest_names_everything_the_decision_depends_on(swept, tiny, samples):
    manifest = swept["W4A16"].manifest
    assert manifest.model.weights == tiny.weights_digest
    assert manifest.model.template == tiny.template_digest
    assert manifest.calibration.tokens == sum(map(len, samples))
    assert len(manifest.calibration.samples) == len(samples)
    assert manifest.method == "gptq"
    assert set(manifest.files) == {file.name for file in swept["W4A16"].path.iterdir()} - {"manifest.json"}


def test_the_tokenizer_is_copied_byte_for_byte(each, tiny):
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (each.path / name).read_bytes() == (tiny.path / name).read_bytes()


def test_our_safetensors_files_are_the_packages_own(swept, tmp_path):
    tensors = {
        "b": torch.arange(6, dtype=torch.int8).reshape(2, 3),
        "a": torch.randn(3, 5).bfloat16(),
        "c": torch.tensor([7, 8]),
        "empty": torch.zeros(0, 4),
        "f8": torch.tensor([1.0, -448.0]).to(torch.float8_e4m3fn),
    }
    write_tensors(tmp_path / "x.safetensors", tensors)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(tensors)
        for name, tensor in tensors.items():
            assert torch.equal(file.get_tensor(name).float(), tensor.float())
            assert file.get_tensor(name).dtype == tensor.dtype
    header = (tmp_path / "x.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    assert length % 8 == 0
    json.loads(header[8 : 8 + length])
