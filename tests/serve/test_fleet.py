"""What answers for a variant is opened only when its bytes are those of the release."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from quantgate.errors import ArtifactError, WrongBytes
from quantgate.models import REFERENCE, open_model
from quantgate.models.locate import locate
from quantgate.quantize import Recipe
from quantgate.quantize.sweep import sweep
from quantgate.release import Variant
from quantgate.serve.fleet import Fleet
from quantgate.serve_config import ServeConfig


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> Variant:
    """A real artifact of the built-in model."""
    folder = tmp_path_factory.mktemp("made")
    [artifact] = sweep(open_model(REFERENCE), [[3] * 32], [Recipe(scheme="W4A16", method="rtn")], folder)
    return Variant(name="W4A16", artifact=artifact.manifest.digest, engine="none", location=str(folder / "W4A16-rtn"))


def fleet(tmp_path: Path, model: str = REFERENCE) -> Fleet:
    return Fleet(ServeConfig(model=model, target="t"), tmp_path, {}, lambda told: None)


def copied(made: Variant, tmp_path: Path) -> Variant:
    shutil.copytree(made.location, tmp_path / "copy")
    return made.model_copy(update={"location": str(tmp_path / "copy")})


def test_an_artifact_is_opened_with_its_own_bytes(made: Variant, tmp_path: Path) -> None:
    fleet(tmp_path).open(copied(made, tmp_path))


def test_one_flipped_bit_is_refused(made: Variant, tmp_path: Path) -> None:
    there = copied(made, tmp_path)
    file = Path(there.location) / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(WrongBytes, match=r"model\.safetensors"):
        fleet(tmp_path).open(there)


def test_a_baseline_with_another_tokenizer_lends_it_to_nobody(made: Variant, tmp_path: Path) -> None:
    """The weights are the released ones; the template, which every prompt goes through, is not."""
    shutil.copytree(locate(REFERENCE), tmp_path / "model")
    file = tmp_path / "model" / "tokenizer_config.json"
    text = file.read_text("utf-8")
    fleet(tmp_path, str(tmp_path / "model")).open(copied(made, tmp_path))
    template = tmp_path / "model" / "chat_template.jinja"
    if template.is_file():
        template.write_text(template.read_text("utf-8") + " ", "utf-8")
    else:
        file.write_text(text.replace('"chat_template": "', '"chat_template": " '), "utf-8")
    with pytest.raises(WrongBytes, match="made from another model than 'model' names"):
        fleet(tmp_path, str(tmp_path / "model")).open(made)


def test_what_nobody_says_the_place_of_cannot_be_opened(made: Variant, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nobody says where its files lie"):
        fleet(tmp_path).open(made.model_copy(update={"location": ""}))


def test_a_server_is_not_launched_on_other_bytes(made: Variant, tmp_path: Path) -> None:
    there = copied(made, tmp_path)
    (Path(there.location) / "manifest.json").write_text("{}")
    endpoint = {"launch": "touch {artifact}/started --port {port}", "model": "m"}
    config = ServeConfig.model_validate({"live": {"baseline": "W4A16"}, "variants": {"W4A16": {"endpoint": endpoint}}})
    with pytest.raises(WrongBytes):
        Fleet(config, tmp_path, {}, lambda told: None).open(there)
    assert not (Path(there.location) / "started").exists()
