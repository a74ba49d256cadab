"""Commands that pages show exist, with the arguments and options that they are shown with. Nothing is run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from quantgate.cli import app
from quantgate.release_config import load_config
from quantgate.serve_config import read_config

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("serving-tutorial", "releases", "serve", "trust", "training")
COMMAND = re.compile(r"^(?:    |\$ )(quantgate .*?)(?:  #.*)?$", re.MULTILINE)
FILE = re.compile(r'^```yaml title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_are_spelt_as_the_program_has_them(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    card = Path("runs/release/artifacts/W4A16/README.md")  # some options want a file that is there
    card.parent.mkdir(parents=True)
    card.touch()
    found = COMMAND.findall((DOCS / f"{page}.md").read_text("utf-8"))
    assert len(found) >= 3
    for line in found:
        words = shlex.split(line)[1:]
        group = get_command(app)
        context = group.make_context("quantgate", words[:0], resilient_parsing=True)
        while hasattr(group, "resolve_command"):
            _, command, words = group.resolve_command(context, words)
            assert command is not None, line
            group = command
        group.make_context(line, words)  # raises on an unknown option, a missing argument, a wrong share


def test_files_of_the_serving_tutorial_are_read(tmp_path: Path) -> None:
    files = dict(FILE.findall((DOCS / "serving-tutorial.md").read_text("utf-8")))
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    assert [one.name for one in read_config(tmp_path / "serve.yaml").routes] == ["payments", "json"]
    assert set(load_config(tmp_path / "release.yaml").capabilities) == {"math", "refusals"}
