"""``quantgate sign ARTIFACT --key KEY``: a detached signature over an artifact's manifest, in minisign's format."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from quantgate.cli.screen import console

PASSWORD = "QUANTGATE_KEY_PASSWORD"


def sign(
    artifact: Annotated[
        Path | None, typer.Argument(help="An artifact's folder, or a GGUF file; left out with --new-key.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", "-s", help="The secret key.")] = None,
    comment: Annotated[str, typer.Option("--comment", "-t", help="One line that is signed as well.")] = "",
    new_key: Annotated[
        Path | None, typer.Option("--new-key", help="Make a secret key here, and a public one beside it (.pub).")
    ] = None,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="With --new-key: leave the key unencrypted, for machines.")
    ] = False,
) -> None:
    """Sign an artifact so that whoever has the public key can tell that it is yours: quantgate verify, or minisign.

    The password of a key is asked for, or taken from QUANTGATE_KEY_PASSWORD where nobody can be asked.
    """
    from quantgate.errors import UsageError
    from quantgate.release import signing
    from quantgate.release.keys import SecretKey
    from quantgate.release.trust import endorse

    if new_key is not None:
        if artifact is not None or key is not None:
            raise UsageError("--new-key makes a key and signs nothing; sign with it afterwards: --key")
        public = new_key.with_suffix(".pub")
        made = signing.new_key(new_key, public, password="" if no_password else _password(new_key, new=True))
        console.print(
            f"secret key: [bold]{new_key}[/], for its owner alone\npublic key: [bold]{public}[/]", soft_wrap=True
        )
        console.print(made.public.line, highlight=False)
        return
    if artifact is None or key is None:
        raise UsageError("name an artifact and a key: quantgate sign ARTIFACT --key KEY, or make one with --new-key")
    password = _password(key) if SecretKey.is_encrypted(key) else None
    at = endorse(artifact, SecretKey.read(key, password), comment=comment)
    console.print(f"signature: [bold]{at}[/]", soft_wrap=True)


def _password(key: Path, *, new: bool = False) -> str:
    """Out of the environment, or asked for; never shown."""
    from quantgate.errors import UsageError

    told = os.environ.get(PASSWORD)
    if told:
        return told
    if not sys.stdin.isatty():
        more = ", or make it with --no-password" if new else ""
        raise UsageError(f"{key}: its password cannot be asked for here; set {PASSWORD}{more}")
    found: str = typer.prompt(f"password of {key}", hide_input=True, confirmation_prompt=new, err=True)
    return found
