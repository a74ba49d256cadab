"""An artifact is served only if its bytes lead up to its digest, and whoever changed one is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.release.made import artifact, safetensors, vouch

from quantgate.errors import ArtifactError, WrongBytes
from quantgate.models.tensors import open_tensors
from quantgate.models.text import tokenizer_digest
from quantgate.quantize.manifest import Manifest, ModelIdentity
from quantgate.records import digest_of, write_whole
from quantgate.release.verify import verify, verify_baseline

Harm = Callable[[Path], object]


def flip(file: Path, at: int = -1) -> None:
    raw = bytearray(file.read_bytes())
    raw[at] ^= 1
    file.write_bytes(bytes(raw))


def edit_manifest(folder: Path, *, sealed: bool) -> None:
    """Other words in the manifest; ``sealed``: under a digest that matches them."""
    file = folder / "manifest.json"
    if sealed:
        Manifest.load(file).model_copy(update={"method": "gptq"}).save(file)
    else:
        file.write_text(file.read_text().replace('"rtn"', '"gptq"'))


def lead_out(folder: Path) -> None:
    """The same bytes by a link to somewhere else, where others may change them."""
    outside = folder.parent / "outside.json"
    shutil.move(folder / "tokenizer.json", outside)
    (folder / "tokenizer.json").symlink_to(outside)


def a_folder_for(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_folder_elsewhere(folder: Path) -> None:
    """Templates that transformers would list through a link."""
    write_whole(folder.parent / "elsewhere" / "x.jinja", b"")
    (folder / "additional_chat_templates").symlink_to(folder.parent / "elsewhere")


def name_outside(folder: Path) -> None:
    shutil.copy(folder / "tokenizer.json", folder.parent / "tokenizer.json")
    told = Manifest.load(folder / "manifest.json")
    files = {**told.files, "../tokenizer.json": told.files["tokenizer.json"]}
    told.model_copy(update={"files": files}).save(folder / "manifest.json")


HARMS: dict[str, tuple[Harm, str]] = {
    "a bit": (lambda at: flip(at / "model.safetensors"), r"model\.safetensors: holds other bytes .* expected sha256:"),
    "the end": (lambda at: os.truncate(at / "model.safetensors", 900), r"model\.safetensors: cut short: 900 bytes"),
    "more": (lambda at: (at / "config.json").write_text("{} " * 40), r"config\.json: longer than it was: 120 bytes"),
    "another tokenizer": (
        lambda at: (at / "tokenizer.json").write_text('{"version": "2.0"}'), r"tokenizer\.json: holds other bytes",
    ),
    "a file that is gone": (lambda at: (at / "config.json").unlink(), r"config\.json: is missing, expected 23 bytes"),
    "a folder in its place": (
        lambda at: a_folder_for(at / "config.json"), r"config\.json: is no file",
    ),
    "an edited manifest": (lambda at: edit_manifest(at, sealed=False), r"manifest\.json: .* it was edited"),
    "an edited and sealed manifest": (
        lambda at: edit_manifest(at, sealed=True), r"its manifest is that of W4A16 sha256:.* its manifest was edited",
    ),
    "no JSON": (lambda at: (at / "manifest.json").write_bytes(b"\x80{"), r"manifest\.json: not a Manifest record"),
    "a link out": (lead_out, r"tokenizer\.json: is a link that leads out of the folder"),
    "more weights": (
        lambda at: safetensors(at / "more.safetensors", {"v": b"1"}), r"more\.safetensors: is not in the manifest",
    ),
    "a pickle": (lambda at: (at / "pytorch_model.bin").write_bytes(b"x"), r"model\.bin: is not in the manifest"),
    "an adapter": (lambda at: (at / "adapter_config.json").write_text("{}"), r"config\.json: is not in the man"),
    "code": (lambda at: (at / "modeling_x.py").write_text(""), r"modeling_x\.py: is not in the manifest"),
    "a folder out": (a_folder_elsewhere, r"additional_chat_templates: is a link that leads out of the folder"),
    "a link to nothing": (
        lambda at: (at / "chat_template.jinja").symlink_to("/nowhere/x"), r"template\.jinja: is not in the manifest",
    ),
    "a template below": (
        lambda at: write_whole(at / "additional_chat_templates" / "x.jinja", b""), r"x\.jinja: is not in the manifest",
    ),
}  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, str]:
    folder = tmp_path / "W4A16"
    return folder, artifact(folder)


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("known", [False, True], ids=["first look", "looked before"])
def test_artifact_that_was_changed_is_refused_with_the_file(
    made: tuple[Path, str], tmp_path: Path, harm: str, known: bool
) -> None:
    folder, digest = made
    kept = tmp_path / "kept"
    if known:
        settled(folder, digest, kept)
    does, sentence = HARMS[harm]
    does(folder)
    with pytest.raises(WrongBytes, match=sentence) as told:
        verify(folder, digest, kept=kept)
    assert told.value.exit_code == 1 and "\n" not in str(told.value)


def settled(folder: Path, digest: str, kept: Path) -> None:
    """Look until everything is remembered: what was written a moment ago is read again."""
    end = time.monotonic() + 30
    while verify(folder, digest, kept=kept).read:
        assert time.monotonic() < end, "nothing is ever remembered"


def test_whole_artifact_is_verified_and_counted(made: tuple[Path, str], tmp_path: Path) -> None:
    folder, digest = made
    found = verify(folder, digest, kept=None)
    assert (found.digest, found.files) == (digest, 3)
    sizes = [(folder / name).stat().st_size for name in ("config.json", "model.safetensors", "tokenizer.json")]
    assert found.bytes == found.read == sum(sizes)


def test_card_signature_and_licence_may_come_and_go(made: tuple[Path, str]) -> None:
    folder, digest = made
    for name in ("README.md", "manifest.json.minisig", "LICENSE", ".gitattributes"):
        (folder / name).write_text("words")
    assert verify(folder, digest, kept=None).files == 3


def test_manifest_that_names_a_file_outside_is_refused(made: tuple[Path, str]) -> None:
    folder, _ = made
    name_outside(folder)
    digest = Manifest.load(folder / "manifest.json").digest
    with pytest.raises(WrongBytes, match=r"its manifest names '\.\./tokenizer\.json', which lies outside"):
        verify(folder, digest, kept=None)


def test_links_within_the_cache_of_the_hub_are_its_layout(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "1"
    digest = artifact(snapshot)
    blob = tmp_path / "models--a--b" / "blobs" / "5f"
    blob.parent.mkdir()
    shutil.move(snapshot / "tokenizer.json", blob)
    (snapshot / "tokenizer.json").symlink_to(Path("../../blobs/5f"))
    assert verify(snapshot, digest, kept=None).files == 3


def test_unchanged_files_are_not_read_again_unless_asked(made: tuple[Path, str], tmp_path: Path) -> None:
    folder, digest = made
    settled(folder, digest, tmp_path / "kept")
    again = verify(folder, digest, kept=tmp_path / "kept")
    assert again.read == 0 and again.files == 3
    assert verify(folder, digest, kept=tmp_path / "kept", full=True).read == again.bytes


def test_other_bytes_of_the_same_length_and_time_are_seen(made: tuple[Path, str], tmp_path: Path) -> None:
    folder, digest = made
    settled(folder, digest, tmp_path / "kept")
    file = folder / "model.safetensors"
    before = file.stat()
    with file.open("r+b") as handle:  # the same inode
        handle.seek(-1, os.SEEK_END)
        last = handle.read(1)
        handle.seek(-1, os.SEEK_END)
        handle.write(bytes([last[0] ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(WrongBytes, match=r"model\.safetensors: holds other bytes"):
        verify(folder, digest, kept=tmp_path / "kept")


@pytest.mark.parametrize("memory", [b"", b"{", b"[]", b'{"model.safetensors": {"stamp": [1], "digest": 3}}'])
def test_broken_memory_is_no_memory(made: tuple[Path, str], tmp_path: Path, memory: bytes) -> None:
    folder, digest = made
    kept = tmp_path / "kept"
    settled(folder, digest, kept)
    (file,) = kept.iterdir()
    file.write_bytes(memory)
    assert verify(folder, digest, kept=kept).read > 0


def test_memory_that_cannot_be_written_stops_nothing(made: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert verify(*made, kept=tmp_path / "file" / "kept").files == 3


def test_place_without_manifest_is_told_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere: is not there"):
        verify(tmp_path / "nowhere", "sha256:1", kept=None)
    with pytest.raises(ArtifactError, match=r"no manifest\.json, so nothing says what its bytes were"):
        verify(tmp_path, "sha256:1", kept=None)


def test_file_by_itself_is_held_against_the_manifest_of_its_opening(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "model.gguf").write_bytes(b"GGUF" + os.urandom(90))
    told = vouch(tmp_path / "a")
    (tmp_path / "a" / "manifest.json").unlink()
    (tmp_path / "a" / "other.gguf").write_bytes(b"another variant, beside it")
    file = tmp_path / "a" / "model.gguf"
    assert verify(file, told.digest, manifest=told, kept=None).files == 1
    flip(file)
    with pytest.raises(WrongBytes, match=r"model\.gguf: holds other bytes"):
        verify(file, told.digest, manifest=told, kept=None)


def test_index_of_another_program_may_only_point_at_what_is_vouched_for(tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    artifact(folder)
    told = Manifest.load(folder / "manifest.json")
    (folder / "manifest.json").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "model.safetensors"}}))
    assert verify(folder, told.digest, manifest=told, kept=None).files == 3
    index.write_text(json.dumps({"weight_map": {"w": "evil.safetensors"}}))
    with pytest.raises(WrongBytes, match=r"index\.json: names 'evil\.safetensors', which is not in the manifest"):
        verify(folder, told.digest, manifest=told, kept=None)
    index.write_text("[]")
    with pytest.raises(WrongBytes, match=r"index\.json: cannot be read"):
        verify(folder, told.digest, manifest=told, kept=None)


@pytest.fixture
def baseline(tmp_path: Path) -> tuple[Path, str]:
    folder = tmp_path / "model"
    folder.mkdir()
    safetensors(folder / "a.safetensors", {"x": os.urandom(3000), "y": b"22"})
    safetensors(folder / "b.safetensors", {"z": os.urandom(10)})
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    return folder, open_tensors(folder).content_digest()


def test_baseline_is_known_by_its_weights_however_they_are_sharded(baseline: tuple[Path, str], tmp_path: Path) -> None:
    folder, digest = baseline
    assert verify_baseline(folder, digest, kept=None).files == 2
    files = open_tensors(folder)
    tensors = {name: bytes(files.read(name).numpy()) for name in files.entries}
    other = tmp_path / "in one file"
    other.mkdir()
    safetensors(other / "model.safetensors", tensors)
    assert verify_baseline(other, digest, kept=None).files == 1
    flip(folder / "b.safetensors")
    with pytest.raises(WrongBytes, match=r"its weights are sha256:.*, and the baseline of the release is"):
        verify_baseline(folder, digest, kept=None)


def test_weights_beside_the_index_that_other_programs_would_load_are_refused(baseline: tuple[Path, str]) -> None:
    folder, digest = baseline
    shards = {name: entry.file.name for name, entry in open_tensors(folder).entries.items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert verify_baseline(folder, digest, kept=None).digest == digest
    safetensors(folder / "model.safetensors", {"x": b"other weights"})
    with pytest.raises(WrongBytes, match=r"model\.safetensors: .* does not name it"):
        verify_baseline(folder, digest, kept=None)


def test_file_that_cannot_be_read_is_no_verdict_on_its_bytes(made: tuple[Path, str]) -> None:
    """In a process that may open no more files."""
    code = (
        "import resource, sys; from pathlib import Path; from quantgate.errors import *\n"
        "from quantgate.release.verify import verify\n"
        "from quantgate.release.artifacts import read_manifest\n"
        "told = read_manifest(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "try: verify(Path(sys.argv[1]), sys.argv[2], manifest=told, kept=None, threads=1)\n"
        "except WrongBytes as bad: print('wrong', bad)\n"
        "except ArtifactError as bad: print('unknown', bad)\n"
    )
    source = Path(__file__).resolve().parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-c", code, str(made[0]), made[1]], env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.startswith("unknown") and "cannot be read (Too many open files)" in done.stdout, done.stderr


def test_baseline_is_read_once(baseline: tuple[Path, str], tmp_path: Path) -> None:
    folder, digest = baseline
    end = time.monotonic() + 30
    while verify_baseline(folder, digest, kept=tmp_path / "kept").read:
        assert time.monotonic() < end
    assert verify_baseline(folder, digest, kept=tmp_path / "kept", full=True).read > 3000
    flip(folder / "a.safetensors")
    with pytest.raises(WrongBytes):
        verify_baseline(folder, digest, kept=tmp_path / "kept")


def test_baseline_that_is_cut_or_a_pickle_is_not_the_one_released(baseline: tuple[Path, str], tmp_path: Path) -> None:
    folder, digest = baseline
    os.truncate(folder / "b.safetensors", 20)
    with pytest.raises(WrongBytes, match=r"b\.safetensors: truncated inside its header"):
        verify_baseline(folder, digest, kept=None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WrongBytes, match=r"no \*\.safetensors file"):
        verify_baseline(tmp_path / "empty", digest, kept=None)


def test_baseline_with_another_tokenizer_or_config_is_refused(baseline: tuple[Path, str]) -> None:
    folder, digest = baseline
    like = ModelIdentity(
        ref="a-model", architecture="x", weights=digest, tokenizer=tokenizer_digest(folder), template="",
        config=digest_of({"model_type": "llama"}),
    )  # fmt: skip
    assert verify_baseline(folder, digest, like=like, kept=None).files == 2
    (folder / "config.json").write_text('{"model_type": "llama", "rope_theta": 1}')
    with pytest.raises(WrongBytes, match=r"its config\.json is not that of the baseline"):
        verify_baseline(folder, digest, like=like, kept=None)
    (folder / "config.json").write_text('{"model_type":"llama"}')  # the same content
    (folder / "tokenizer.json").write_text("{ }")
    with pytest.raises(WrongBytes, match=r"its tokenizer is not that of the baseline"):
        verify_baseline(folder, digest, like=like, kept=None)


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7), which=st.sampled_from(["model.safetensors", "config.json"]))
def test_no_bit_of_any_file_can_change_unseen(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int, which: str
) -> None:
    folder = tmp_path_factory.mktemp("made") / "W4A16"
    digest = artifact(folder, weights=b"w" * 64)
    raw = bytearray((folder / which).read_bytes())
    raw[at % len(raw)] ^= 1 << bit
    (folder / which).write_bytes(bytes(raw))
    with pytest.raises(WrongBytes, match=which):
        verify(folder, digest, kept=None)
