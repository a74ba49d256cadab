"""A command as it is typed, in this process: starting Python and its packages takes longer than most commands."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from quantgate.cli import main

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Type a command; gives the exit code, what it printed, and what it complained about, each in one line."""
    monkeypatch.setenv("COLUMNS", "300")

    def type_(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["quantgate", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, " ".join(printed.out.split()), " ".join(printed.err.split())

    return type_
