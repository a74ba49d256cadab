"""The shape of the house: floors, light doors, files that speak of the project alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import quantgate

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "quantgate"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
FLOORS: list[str] = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".json", ".html", ".j2", ".jinja", ".css", ".js", ".jsonl", ""}
SKIPPED = {".git", ".venv", "runs", "site", "build", "dist", ".scratch", ".bench"}
FILES = [
    path
    for path in ROOT.rglob("*")
    if path.is_file()
    and path.suffix in TEXT
    and not SKIPPED & set(path.relative_to(ROOT).parts[:1])
    and not any(part.endswith("cache__") or part.endswith("_cache") or part == ".hypothesis" for part in path.parts)
]


def rooms() -> set[str]:
    """The top modules and packages that exist."""
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return packages | {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}


def on_floors(floors: list[str]) -> list[str]:
    return [room.strip() for floor in floors for room in floor.split("|")]


def test_contract_names_every_room_once_and_no_other() -> None:
    assert sorted(on_floors(FLOORS)) == sorted(rooms())


def test_architecture_page_draws_the_floors_of_the_contract_in_order() -> None:
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text("utf-8")
    drawing = re.search(r"```text\n(.*?)```", page, re.DOTALL)
    assert drawing
    left = [re.split(r"  +", line)[0] for line in drawing[1].splitlines() if line and not line.startswith(" ")]
    drawn = [re.sub(r"/|\.py", "", floor) for floor in left]
    assert drawn == FLOORS


@pytest.mark.parametrize("module", ["quantgate", "quantgate.cli", "quantgate.plugins", "quantgate.evaluate.suites"])
def test_import_is_light(module: str) -> None:
    code = f"import sys, {module}; print([heavy for heavy in ('torch', 'transformers') if heavy in sys.modules])"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_python_api_is_what_the_package_names() -> None:
    assert {"run", "compare"} <= set(quantgate.__all__)
    assert all(callable(getattr(quantgate, name)) for name in ("run", "compare"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_names_no_place_on_one_machine(path: Path) -> None:
    text = path.read_text("utf-8")
    places = [re.escape(f"{ROOT}/"), "/" + "root/", "/" + "home/[a-z]", "/" + "Users/[A-Za-z]"]
    found = re.search("|".join(places), text)
    assert found is None, f"{found and found[0]!r} is a place on one machine"


def test_every_direct_dependency_is_pinned_to_one_version() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = {plain(one) for group in [PROJECT["project"]["dependencies"], *extras] for one in group}
    assert wanted - {"quantgate"} <= set(pins)
    assert pins["torch"] == "2.13.0"


def test_dependencies_are_open_above() -> None:
    assert not [one for one in PROJECT["project"]["dependencies"] if re.search(r"<|==|~=", one)]


def plain(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")
