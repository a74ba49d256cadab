"""What the page on trust says of damage is what is said, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.release.made import artifact
from tests.release.test_verify import HARMS

from quantgate.errors import WrongBytes
from quantgate.release.artifacts import fetch, put
from quantgate.release.verify import verify

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "trust.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "harm",
    [
        "a bit",
        "the end",
        "another tokenizer",
        "an edited manifest",
        "an edited and sealed manifest",
        "an adapter",
        "a link out",
    ],
)
def test_sentences_of_the_page_are_those_that_are_said(tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "W4A16"
    digest = artifact(folder)
    HARMS[harm][0](folder)
    with pytest.raises(WrongBytes) as told:
        verify(folder, digest, kept=None)
    rows = re.findall(r"^\| .*? \| `(.*?)`.* \|$", PAGE, re.MULTILINE)
    said = [plain(row).removesuffix("...").strip() for row in rows if len(row) > 20]
    assert any(row in plain(str(told.value)) for row in said), (str(told.value), said)


def plain(text: str) -> str:
    """Without the figures of one case."""
    return re.sub(r"\b\d+\b", "n", re.sub(r"sha256:[0-9a-f.]+", "sha", text))


def test_example_of_the_page_brings_an_artifact_back(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert "put(Path(" in code and "fetch(where," in code
    digest = artifact(tmp_path / "W4A16")
    where = put(tmp_path / "W4A16", f"file://{tmp_path}/models")
    assert fetch(where, digest, pulled=tmp_path / "pulled", kept=None).digest == digest
