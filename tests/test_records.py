"""Records: the same content has the same name everywhere, and a file that exists is whole."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from quantgate.errors import DiskFull, RecordError, UsageError
from quantgate.records import (
    Record,
    canonical,
    digest_file,
    digest_of,
    disk_errors,
    folder_aside,
    parse,
    write_whole,
)


class Recipe(Record):
    scheme: str = "BF16"
    group_size: int = 128


class Capability(Record):
    margin: float = Field(default=0.03, gt=0)


class Release(Record):
    model: str
    variants: tuple[str | Recipe, ...] = ()
    capabilities: dict[str, Capability] = {}
    fallback: Recipe | None = None


ONE = Release(
    model="quantgate/reference", variants=("BF16", Recipe(scheme="W4A16")), capabilities={"math": Capability()}
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


# --- digests -------------------------------------------------------------------------------------------------------


def test_digest_of_a_known_value_is_known() -> None:
    # sha256 of the seven bytes {"a":1}, by any other program
    assert digest_of({"a": 1}) == "sha256:015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


@given(JSON)
def test_canonical_form_survives_a_round_trip(value: Any) -> None:
    assert canonical(json.loads(canonical(value))) == canonical(value)


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_digest_ignores_the_order_of_keys(value: dict[str, int]) -> None:
    assert digest_of(dict(reversed(value.items()))) == digest_of(value)


def test_canonical_form_refuses_nan() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical(float("nan"))


def test_digest_is_the_same_in_processes_with_different_hash_seeds() -> None:
    code = (
        "from quantgate.records import Record\n"
        "class Release(Record):\n"
        "    names: dict[str, float]\n"
        "print(Release(names={c: 0.1 for c in {'math', 'chat', 'code_gen'}}).digest)"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code], env={**child_env(), "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(told) == 1 and next(iter(told)).startswith(b"sha256:")


def test_digest_depends_on_kind_version_and_content() -> None:
    class Newer(Recipe):
        version = 2

        @classmethod
        def kind(cls) -> str:
            return "Recipe"

    assert len({Recipe().digest, Recipe(group_size=64).digest, Newer().digest, Capability().digest}) == 4


def test_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b'{"a":1}')
    assert digest_file(tmp_path / "x") == digest_of({"a": 1})


# --- frozen, strict ------------------------------------------------------------------------------------------------


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ONE.model = "other"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_record_holds_no_nan_and_no_infinity(bad: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Capability(margin=bad)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"modle": "x"}, "unknown key 'modle'; did you mean 'model'? Known: capabilities, fallback, model, variants"),
        (
            {"model": "x", "capabilities": {"math": {"margn": 0.1}}},
            "unknown key 'margn' in 'capabilities.math'; did you mean 'margin'? Known: margin",
        ),
        (
            {"model": "x", "variants": ["BF16", {"schme": "W4A16"}]},
            "unknown key 'schme' in 'variants.1'; did you mean 'scheme'? Known: group_size, scheme",
        ),
        (
            {"model": "x", "fallback": {"groupsize": 64}},
            "unknown key 'groupsize' in 'fallback'; did you mean 'group_size'? Known: group_size, scheme",
        ),
        ({}, "'model': is missing; add it"),
        (
            {"model": "x", "capabilities": {"math": {"margin": "wide"}}},
            "'capabilities.math.margin': input should be a valid number, unable to parse string as a number,"
            " found 'wide'",
        ),
        (
            {"model": "x", "variants": [{"group_size": "a"}]},
            "'variants.0.group_size': input should be a valid integer, unable to parse string as an integer, found 'a'",
        ),
        ({"model": "x", "variants": [1.5]}, "'variants.0': input should be a valid string, found 1.5"),
        ([], "input should be a valid dictionary or instance of Release, found []"),
    ],
)
def test_first_problem_is_told_in_one_sentence_with_its_place(data: Any, sentence: str) -> None:
    with pytest.raises(UsageError) as told:
        parse(Release, data, where="release.yaml")
    assert str(told.value) == f"release.yaml: {sentence}"


# --- save and load -------------------------------------------------------------------------------------------------


def test_a_saved_record_comes_back_equal(tmp_path: Path) -> None:
    path = ONE.save(tmp_path / "deep" / "one.json")
    assert Release.load(path) == ONE
    assert os.listdir(path.parent) == ["one.json"]


@given(st.text(), st.floats(min_value=1e-9, max_value=1))
def test_any_content_comes_back_under_its_digest(tmp_path_factory: Any, text: str, margin: float) -> None:
    record = Release(model=text, capabilities={text: Capability(margin=margin)})
    path = record.save(tmp_path_factory.getbasetemp() / "any.json")
    assert Release.load(path).digest == record.digest


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda text: text.replace("reference", "other"), "does not match its digest; it was edited"),
        (lambda text: text[: len(text) // 2], "not a Release record"),
        (
            lambda text: text.replace('"version": 1', '"version": 2'),
            "holds Release version 2, expected Release version 1",
        ),
        (lambda text: text.replace('"record": "Release"', '"record": "Recipe"'), "holds Recipe version 1, expected"),
        (lambda text: text.replace('"record"', '"rekord"'), "not a quantgate record"),
        (lambda text: text.replace('"scheme"', '"schema"'), "unknown key 'schema' in 'variants.1'"),
        (lambda text: "[]", "not a quantgate record"),
        (lambda text: "", "not a Release record"),
    ],
)
def test_a_touched_file_is_refused(tmp_path: Path, edit: Any, sentence: str) -> None:
    path = ONE.save(tmp_path / "one.json")
    path.write_text(edit(path.read_text()))
    with pytest.raises(RecordError, match=re.escape(sentence)) as told:
        Release.load(path)
    assert str(path) in str(told.value)


def test_a_file_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"no such Release; run the step that writes it first"):
        Release.load(tmp_path / "none.json")


# --- whole or not at all -------------------------------------------------------------------------------------------


def full_disk_at(path: Path) -> None:
    """Whatever is written to ``path`` meets a full disk: the kernel's own, /dev/full."""
    path.symlink_to("/dev/full")


needs_full = pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="this system has no /dev/full")


@needs_full
def test_full_disk_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "one.json", b"old")
    full_disk_at(tmp_path / f".one.json.{os.getpid()}.partial")
    with pytest.raises(DiskFull, match=r"one\.json: the disk is full; nothing half-written was kept"):
        ONE.save(path)
    assert os.listdir(tmp_path) == ["one.json"]
    assert path.read_bytes() == b"old"


@needs_full
def test_full_disk_in_a_folder_leaves_the_old_folder(tmp_path: Path) -> None:
    with folder_aside(tmp_path / "variant") as new:
        (new / "weights").write_bytes(b"old")
    with pytest.raises(DiskFull), folder_aside(tmp_path / "variant") as new:
        (new / "weights").write_bytes(b"new")
        full_disk_at(new / "more")
        (new / "more").write_bytes(b"x" * 100)
    assert os.listdir(tmp_path) == ["variant"]
    assert (tmp_path / "variant" / "weights").read_bytes() == b"old"


def test_full_disk_told_by_a_library_in_words_is_still_a_full_disk(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    # what safetensors 0.8 raises on a full tmpfs, word for word
    told = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(DiskFull), disk_errors(tmp_path):
        raise SafetensorError(told)


def test_other_errors_of_the_disk_pass_unchanged(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError), disk_errors(tmp_path):
        os.listdir(tmp_path / "file")


def test_file_too_large_for_its_limit_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from quantgate.records import write_whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_whole(Path(sys.argv[1]), b'x' * 2000)"
    )
    path = tmp_path / "one.json"
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=child_env(), capture_output=True, text=True)
    assert done.returncode == 1 and "File too large" in done.stderr
    assert os.listdir(tmp_path) == []


def test_error_inside_a_folder_keeps_the_old_one(tmp_path: Path) -> None:
    with folder_aside(tmp_path / "variant") as new:
        (new / "weights").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), folder_aside(tmp_path / "variant") as new:
        (new / "weights").write_bytes(b"half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["variant"]
    assert (tmp_path / "variant" / "weights").read_bytes() == b"old"


def test_a_new_folder_takes_the_place_of_the_old_one_entirely(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with folder_aside(tmp_path / "variant") as new:
            (new / "inner").mkdir()
            (new / "inner" / name).write_bytes(b"")
            assert not (tmp_path / "variant" / "inner" / name).exists()
    assert os.listdir(tmp_path / "variant" / "inner") == ["second"]
    assert os.listdir(tmp_path) == ["variant"]


KILL_AT_EVERY_STEP = """
import itertools, os, signal, sys
from pathlib import Path
from quantgate.records import folder_aside, write_whole

def save_file(path, text):
    write_whole(path, text)

def save_folder(path, text):
    with folder_aside(path) as new:
        for name in "abc":
            (new / name).write_bytes(text)

path, save = Path(sys.argv[1]), globals()[sys.argv[2]]
for step in itertools.count(1):
    save(path, b"old")
    if os.fork() == 0:
        left = step
        def hook(event, arguments):  # the interpreter calls it before it opens, renames or removes anything
            global left
            left -= event == "open" or event.startswith(("os.", "shutil."))
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        save(path, b"new")
        left = -1
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGKILL
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
    print(killed, *(file.read_text() for file in files), flush=True)
    if not killed:
        break
"""


@pytest.mark.parametrize(("kind", "old", "new"), [("file", "old", "new"), ("folder", "old old old", "new new new")])
def test_kill_9_at_any_step_of_a_save_leaves_whole_content(tmp_path: Path, kind: str, old: str, new: str) -> None:
    writer = [sys.executable, "-c", KILL_AT_EVERY_STEP, str(tmp_path / "it"), f"save_{kind}"]
    done = subprocess.run(writer, env=child_env(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *killed, survived = done.stdout.splitlines()
    assert survived == f"False {new}"
    assert len(killed) >= 3 and killed[0] == f"True {old}"
    # between the two renames of a folder there is none, which nobody takes for a whole one
    assert set(killed) <= {f"True {old}", f"True {new}", *(["True"] if kind == "folder" else [])}


def child_env() -> dict[str, str]:
    source = Path(__file__).resolve().parents[1] / "src"
    return {**os.environ, "PYTHONPATH": str(source)}
