"""The reference pages say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import pytest
import typer
from pydantic import BaseModel, Field

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_pages_are_those_that_the_code_gives(generate: ModuleType) -> None:
    stale = [name for name, text in generate.pages().items() if (DOCS / name).read_text("utf-8") != text]
    assert stale == [], "run: make docs"


def test_every_visible_command_has_a_section_with_its_options(generate: ModuleType) -> None:
    app, inner = typer.Typer(help="Top."), typer.Typer()

    @app.command()
    def run(path: str, cases: int = typer.Option(400, help="At most this many | per capability.")) -> None:
        """Run a release."""

    @app.command(hidden=True)
    def secret() -> None: ...

    @inner.command()
    def reference() -> None:
        """Train the built-in model."""

    app.add_typer(inner, name="train")
    page = generate.cli_page(app)
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert headings == ["# Commands", "## quantgate run", "## quantgate train reference"]
    assert r"At most this many \| per capability. [default: 400]" in page
    assert "Train the built-in model." in page


class Capability(BaseModel):
    """What the product needs."""

    margin: float = Field(0.03, description="Relative loss allowed.")
    direction: Literal["loss", "both"] = "loss"
    relative: bool = True


class Release(BaseModel):
    """One release."""

    model: str = Field(description="A folder.")
    capabilities: dict[str, Annotated[Capability, Field()]]
    seeds: tuple[int, ...] | None = None
    fallback: Capability | None = None


def test_every_key_of_every_part_has_a_row(generate: ModuleType) -> None:
    rows = [line for line in generate.release_page(Release).splitlines() if line.startswith(("| `", "## "))]
    assert rows == [
        "| `model` | text | required | A folder. |",
        "| `capabilities` | name: [settings](#capabilities) | required |  |",
        "| `seeds` | list of whole number, or nothing |  |  |",
        "| `fallback` | [settings](#capabilities), or nothing |  |  |",
        "## capabilities",
        "| `margin` | number | `0.03` | Relative loss allowed. |",
        "| `direction` | `loss` or `both` | `loss` |  |",
        "| `relative` | true or false | `true` |  |",
    ]
