"""The folder is the registry: what lies in a room is its list, and only what is asked for is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quantgate import plugins
from quantgate.errors import MissingExtra, UnknownName

SOURCE = Path(__file__).resolve().parents[1] / "src"
EVERY = [(room, name) for room in plugins.ROOMS for name in plugins.names(room)]


@pytest.mark.parametrize("room", plugins.ROOMS)
def test_names_are_the_files_of_the_room(room: str) -> None:
    folder = SOURCE.joinpath(*plugins.ROOMS[room][0].split("."))
    files = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert set(plugins.names(room)) == {name for name in files if not name.startswith("_")} != set()


@pytest.mark.parametrize(("room", "name"), EVERY)
def test_every_plug_in_has_its_object(room: str, name: str) -> None:
    try:
        assert plugins.get(room, name) is not None
    except MissingExtra as told:
        pytest.skip(str(told))


@pytest.mark.parametrize(("room", "name"), EVERY)
def test_the_last_statement_of_a_plug_in_registers_it(room: str, name: str) -> None:
    package, attribute = plugins.ROOMS[room]
    file = SOURCE.joinpath(*package.split("."), f"{name}.py")
    source = (file if file.exists() else file.with_suffix("") / "__init__.py").read_text("utf-8")
    last = [line for line in source.splitlines() if line and not line.startswith((" ", ")", "}", "]", "#"))][-1]
    assert last.startswith((f"{attribute} = ", f"{attribute}: "))


def test_unknown_name_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match=r"release\.yaml: unknown scorer 'exat'; did you mean 'exact'\?"):
        plugins.get("scorers", "exat", where="release.yaml")


def test_listing_a_room_imports_none_of_its_plug_ins() -> None:
    told = child(
        "import sys; from quantgate import plugins\n"
        "names = plugins.names('suites')\n"
        "print(len(names), [n for n in names if 'quantgate.evaluate.suites.' + n in sys.modules])"
    )
    assert told == f"{len(plugins.names('suites'))} []"


def test_installed_package_adds_a_plug_in(tmp_path: Path) -> None:
    (tmp_path / "polite.py").write_text("SCORER = 'please'\n")
    (tmp_path / "polite-1.0.dist-info").mkdir()
    (tmp_path / "polite-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: polite\nVersion: 1.0\n")
    (tmp_path / "polite-1.0.dist-info" / "entry_points.txt").write_text("[quantgate.scorers]\npolite = polite:SCORER\n")
    told = child(
        "from quantgate import plugins\nprint('polite' in plugins.names('scorers'), plugins.get('scorers', 'polite'))",
        tmp_path,
    )
    assert told == "True please"


@pytest.mark.parametrize(
    ("module", "remedy"),
    [("llama_cpp", "pip install 'quantgate[gguf]'"), ("some_other_package", "pip install 'some_other_package'")],
)
def test_missing_package_is_told_with_the_extra_that_brings_it(tmp_path: Path, module: str, remedy: str) -> None:
    room, info = tmp_path / "room", tmp_path / "quantgate-9.dist-info"
    room.mkdir()
    (room / "needy.py").write_text(f"import {module}.inner\nSCORER = 1\n")
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: quantgate\nVersion: 9\nRequires-Dist: numpy\n"
        "Requires-Dist: llama-cpp-python>=0.3; extra == 'gguf'\n"
    )
    told = child(
        "import sys; import quantgate.evaluate.scorers as room; from quantgate import errors, plugins\n"
        f"room.__path__.append({str(room)!r}); sys.modules[{module!r}] = None\n"
        "try: plugins.get('scorers', 'needy')\n"
        "except errors.MissingExtra as error: print(error)",
        tmp_path,
    )
    assert told == f"scorer 'needy' needs the package '{module}', which is not installed; run: {remedy}"


def child(code: str, *folders: Path) -> str:
    """What a fresh interpreter prints; ``folders`` come first on its path."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*folders, SOURCE)))}
    done: Any = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return str(done.stdout).strip()
