"""The tutorial is run as it stands: its files are written, its commands typed, its exit codes believed.

In docs/tutorial.md, a fenced block `yaml title="NAME"` is a file; a block `bash` is typed into a shell in that
folder, and `bash exit="1"` says that its last command ends with that code.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r'^```(\w+)(?: (?:title|exit)="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
LIMIT_S = 600


def test_tutorial_works_word_for_word(tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text("utf-8"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}  # threads of a small model wait more than they work
    typed = 0
    for language, note, text in blocks:
        if language == "bash":
            step = ["bash", "-euo", "pipefail", "-c", text]
            done = subprocess.run(step, cwd=tmp_path, env=shell, capture_output=True, text=True, timeout=LIMIT_S)
            assert done.returncode == int(note or 0), f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            typed += 1
        elif note:
            (tmp_path / note).write_text(text, "utf-8")
    assert typed >= 3, "the tutorial types fewer commands than a first run needs"
