"""Artifacts go to an address under their digest, and come back as the bytes of that digest or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.release.made import artifact, vouch
from tests.release.test_verify import flip
from tests.test_store import s3, server  # noqa: F401 - fixtures: a server of S3 on loopback

from quantgate.errors import ArtifactError, StoreError, UsageError, WrongBytes
from quantgate.models import open_model
from quantgate.models.locate import REFERENCE, REFERENCE_FOLDER
from quantgate.models.random import save_random
from quantgate.models.tensors import open_tensors
from quantgate.quantize.manifest import Manifest, Recipe
from quantgate.release import Variant
from quantgate.release.artifacts import check, fetch, keep_manifest, kept_manifest, place_of, put, remade
from quantgate.store import write_text


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, str]:
    folder = tmp_path / "W4A16"
    return folder, artifact(folder)


@pytest.fixture
def memory() -> Iterator[str]:
    import fsspec

    yield "memory://released"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        request.getfixturevalue("s3")
        return "s3://bucket/released"
    return str(request.getfixturevalue("memory")) if request.param == "memory" else str(tmp_path / "released")


@pytest.mark.parametrize("address", ["memory", "folder", "s3"], indirect=True)
def test_artifact_comes_back_under_its_digest(made: tuple[Path, str], address: str, tmp_path: Path) -> None:
    folder, digest = made
    location = put(folder, address)
    assert location.endswith(f"/{place_of(digest)}") and location == put(folder, address)
    found = fetch(location, digest, pulled=tmp_path / "pulled", kept=tmp_path / "kept")
    assert (
        found.digest == digest
        and (found.place / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    )


def test_card_that_is_added_later_comes_along_and_the_place_stays(
    made: tuple[Path, str], memory: str, tmp_path: Path
) -> None:
    folder, digest = made
    location = put(folder, memory)
    (folder / "README.md").write_text("# proven")
    assert put(folder, memory) == location
    found = fetch(location, digest, pulled=tmp_path / "pulled", kept=None)
    assert (found.place / "README.md").read_text() == "# proven"


def test_damaged_artifact_is_not_given_away(made: tuple[Path, str], memory: str) -> None:
    folder, digest = made
    flip(folder / "model.safetensors")
    with pytest.raises(WrongBytes, match=r"model\.safetensors: holds other bytes"):
        put(folder, memory)
    with pytest.raises(StoreError, match="nothing is there"):
        fetch(f"{memory}/{place_of(digest)}", digest, kept=None)


def test_what_was_swapped_at_the_address_is_refused_here(made: tuple[Path, str], memory: str, tmp_path: Path) -> None:
    folder, digest = made
    location, other = put(folder, memory), tmp_path / "other"
    artifact(other, "W2A16")
    swapped = put(other, memory)
    import fsspec

    files = fsspec.filesystem("memory")
    latest = json.loads(files.cat_file(f"{swapped}/latest.json"))["folder"]
    files.copy(f"{swapped}/{latest}", f"{location}/{latest}", recursive=True)
    write_text(location, "latest.json", json.dumps({"folder": latest}))
    with pytest.raises(WrongBytes, match=r"its manifest is that of W2A16"):
        fetch(location, digest, pulled=tmp_path / "pulled", kept=None)
    write_text(location, "latest.json", json.dumps({"folder": "../../elsewhere"}))
    with pytest.raises(UsageError, match=r"its latest\.json names no folder"):
        fetch(location, digest, pulled=tmp_path / "pulled", kept=None)


def test_file_of_another_program_travels_with_its_manifest(tmp_path: Path, memory: str) -> None:
    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "model.gguf"
    file.write_bytes(b"GGUF" + os.urandom(90))
    told = vouch(tmp_path / "a", "mine")
    (tmp_path / "a" / "manifest.json").unlink()
    location = put(file, memory, manifest=told)
    found = fetch(location, told.digest, pulled=tmp_path / "pulled", kept=None)
    assert found.place.name == "model.gguf" and found.place.read_bytes() == file.read_bytes()
    variant = Variant(name="mine", artifact=told.digest, engine="none", location=str(file))
    with pytest.raises(ArtifactError, match=r"no manifest\.json, so nothing says"):
        check(variant, kept=tmp_path / "kept")
    keep_manifest(told, tmp_path / "kept")
    assert check(variant, kept=tmp_path / "kept").digest == told.digest
    assert check(variant.model_copy(update={"location": location}), kept=None, pulled=tmp_path / "pulled").files == 1


def test_variant_without_a_place_is_refused(made: tuple[Path, str]) -> None:
    folder, digest = made
    variant = Variant(name="W4A16", artifact=digest, engine="none", location=str(folder))
    assert check(variant, kept=None).digest == digest
    with pytest.raises(ArtifactError, match="does not say where it lies"):
        check(variant.model_copy(update={"location": ""}))
    with pytest.raises(ArtifactError, match="gone: is not there"):
        check(variant.model_copy(update={"location": str(folder.parent / "gone")}), kept=None)


def test_built_in_model_is_a_baseline_with_a_digest() -> None:
    digest = open_tensors(REFERENCE_FOLDER).content_digest()
    variant = Variant(name="baseline", artifact=digest, engine="none", location=REFERENCE, is_baseline=True)
    assert check(variant, kept=None).files == 1
    with pytest.raises(WrongBytes, match="the baseline of the release is sha256:0"):
        check(variant.model_copy(update={"artifact": "sha256:" + "0" * 64}), kept=None)


def test_artifact_of_our_own_sweep_and_a_model_as_it_is_are_verified(tmp_path: Path) -> None:
    from quantgate.quantize.sweep import sweep

    model = open_model(save_random(tmp_path / "tiny"))
    (swept,) = sweep(model, [list(range(40))], [Recipe(scheme="W8A16", method="rtn")], tmp_path / "swept")
    digest = swept.manifest.digest
    variant = Variant(name=swept.name, artifact=digest, engine="none", location=str(swept.path))
    found = check(variant, kept=None)
    assert found.digest == digest and found.manifest is not None
    base = Variant(
        name="baseline", artifact=model.weights_digest, engine="none", location=str(model.path), is_baseline=True
    )
    assert check(base, like=found.manifest.model, kept=None).digest == model.weights_digest
    student = remade(model.path, "", "small")
    asked = Variant(name="small", artifact=student.digest, engine="none", location=str(model.path))
    assert check(asked, baseline=str(model.path), kept=tmp_path / "kept").digest == student.digest
    assert kept_manifest(student.digest, tmp_path / "kept") == student
    (model.path / "tokenizer.json").write_text("{}")
    with pytest.raises(WrongBytes, match="its tokenizer is not that of the baseline"):
        check(asked, baseline=str(model.path), kept=tmp_path / "kept")
    assert isinstance(Manifest.load(swept.path / "manifest.json"), Manifest)


def test_manifest_of_a_gguf_file_is_made_again_and_remembered(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the package 'gguf' is not installed (quantgate[gguf])")
    from tests.quantize.gguf.conftest import small

    from quantgate.quantize.foreign.gguf import open_gguf_artifact
    from quantgate.quantize.gguf import make_gguf

    model = small(tmp_path / "m", tied=False)
    file = make_gguf(model, tmp_path / "Small-Q8_0.gguf", "Q8_0").path
    judged = open_gguf_artifact(file, model, "tiny").manifest.digest  # as a run does
    variant = Variant(name="tiny", artifact=judged, engine="none", location=str(file))
    kept = tmp_path / "kept"
    assert check(variant, baseline=str(model.path), kept=kept).digest == judged
    assert kept_manifest(judged, kept) is not None
    assert check(variant, kept=kept).digest == judged  # the baseline is not needed again
    flip(file)
    with pytest.raises(WrongBytes, match=r"Small-Q8_0\.gguf: holds other bytes"):
        check(variant, kept=kept)
    with pytest.raises(WrongBytes, match=r"was asked for"):
        check(variant, baseline=str(model.path), kept=tmp_path / "nothing known")
