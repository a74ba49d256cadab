"""``quantgate decide`` on the terminal: who is chosen where, and why one variant is or is not."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from quantgate.decide.why import Why
from quantgate.evaluate.evidence import Flip

MARKS = {"pass": ("yes", "green"), "fail": ("NO", "red"), "inconclusive": ("open", "yellow")}
LONGEST = 160  # signs of a prompt or an answer


def show_why(found: Sequence[Why], console: Console) -> None:
    """One variant: a sentence for each decision, its rules, answers that show a loss, and what it would take."""
    for at, one in enumerate(found):
        if at:
            console.print()
        console.print(Text(one.sentence, style="bold"), soft_wrap=True)
        table = Table(box=None, padding=(0, 1), show_header=False)
        table.add_column("kept", no_wrap=True)
        table.add_column("found", overflow="fold")
        for reason in one.reasons:
            word, style = MARKS[reason.verdict]
            table.add_row(Text(word, style=style), Text(reason.sentence))
            for flip in reason.examples:
                table.add_row("", Text(_example(flip), style="dim"))
        console.print(table)
        if one.needs:
            console.print("to pass, it would take:")
            for need in one.needs:
                console.print(Text(f"  - {need}"), soft_wrap=True)


def _example(flip: Flip) -> str:
    told = f'such as "{_last(flip.prompt)}": {_short(flip.baseline_answer)!r} became {_short(flip.variant_answer)!r}'
    return f"{told} (case {flip.case})"


def _last(prompt: str) -> str:
    """The end of what was asked, which is the question."""
    plain = " ".join(prompt.split())
    return plain if len(plain) <= LONGEST else f"...{plain[3 - LONGEST :]}"


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 3]}..."
