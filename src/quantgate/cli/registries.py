"""What the commands of the registry share: where it is, who is asking, shares of sessions, one line on what is live."""

from __future__ import annotations

import getpass
import os
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from quantgate.cli import completions
from quantgate.cli.screen import console, errors

if TYPE_CHECKING:
    from quantgate.release import Live
    from quantgate.release.store import Registry

URL = "sqlite:///runs/quantgate.db"

RegistryUrl = Annotated[
    str,
    typer.Option(
        "--registry",
        envvar="QUANTGATE_REGISTRY",
        help="Where releases are kept: a SQLite file, or postgresql://user@host/name.",
    ),
]
By = Annotated[
    str | None,
    typer.Option("--by", envvar="QUANTGATE_ACTOR", help="Who is doing this, for the history; left out, your login."),
]
Target = Annotated[
    str, typer.Argument(help="The target, such as fleet.", autocompletion=completions.target, show_default=False)
]
VariantName = Annotated[
    str,
    typer.Argument(
        help="The variant's name, or the start of its artifact's digest.",
        autocompletion=completions.variant,
        show_default=False,
    ),
]
Why = Annotated[str, typer.Option("--reason", help="Why, for the history.")]


def share(text: str) -> float:
    """
    >>> share("5%"), share("0.25"), share("100 %")
    (0.05, 0.25, 1.0)
    """
    told = text.strip()
    try:
        found = float(told[:-1]) / 100 if told.endswith("%") else float(told)
    except ValueError:
        raise typer.BadParameter(f"expected a share of sessions such as 5%, found '{text}'") from None
    if not 0 <= found <= 1:
        raise typer.BadParameter(f"a share is between 0% and 100%, found '{text}'; write 5% or 0.05")
    return found


def opened(url: str, by: str | None = None, *, create: bool = False) -> Registry:
    from quantgate.release.store import Registry

    return Registry.open(url, by or _login(), create=create)


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "unknown"


def then(command: str, url: str = URL) -> None:
    """What comes next, ready to be typed, on stderr: scripts that read stdout do not meet it."""
    from sqlalchemy.engine import make_url

    here = url in (URL, os.environ.get("QUANTGATE_REGISTRY"))
    told = make_url(url).render_as_string(hide_password=True) if "://" in url else url
    where = "" if here else f" --registry {shlex.quote(told)}"
    errors.print(f"next: {command}{where}", soft_wrap=True, markup=False, style="dim")


def say(live: Live, *, moved: bool = True) -> None:
    """What a target serves, in one line."""
    from quantgate.release.showing import live_sentence

    console.print(live_sentence(live) + ("" if moved else "; nothing had to be moved"), soft_wrap=True, markup=False)
