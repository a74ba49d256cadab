"""The page about plans shows what the command prints."""

from __future__ import annotations

import json
import re
from pathlib import Path

from typer.testing import CliRunner

from quantgate.cli import app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plan.md"
LLAMA_3_70B = {
    "model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 80, "intermediate_size": 28672,
    "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip


def test_the_example_of_the_page_is_what_the_command_prints(tmp_path: Path) -> None:
    shown = PAGE.read_text(encoding="utf-8").partition("    $ quantgate ")[2].partition("\n\n|")[0]
    command, *lines = shown.splitlines()
    (tmp_path / "llama-70b.json").write_text(json.dumps(LLAMA_3_70B))
    words = [str(tmp_path / word) if word == "llama-70b.json" else word for word in command.split()]
    printed = CliRunner().invoke(app, words, env={"COLUMNS": "140"}).output.replace(str(tmp_path) + "/", "")
    told = {" ".join(line.split()) for line in printed.splitlines()}
    expected = [" ".join(line.split()) for line in lines if re.search(r"\w", line) and line.strip() != "..."]
    assert len(expected) > 12 and [line for line in expected if line not in told] == []
