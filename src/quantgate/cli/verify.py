"""``quantgate verify ARTIFACT``: is this what was released, byte by byte, and whose word is that?"""

from __future__ import annotations

from typing import Annotated

import typer

from quantgate.cli.screen import console


def verify(
    artifact: Annotated[
        str, typer.Argument(help="An artifact's folder, a GGUF file, an address, or a baseline's folder.")
    ],
    pubkey: Annotated[
        list[str] | None,
        typer.Option("--pubkey", "-p", help="A public key, as a file or as its text; repeatable, any of them will do."),
    ] = None,
    digest: Annotated[
        str, typer.Option(help="sha256:..., the digest that it must have; left out, its own manifest's.")
    ] = "",
    full: Annotated[bool, typer.Option("--full", help="Read every byte, also of files known from before.")] = False,
) -> None:
    """Hold an artifact against its digest, and its signature against the keys that you trust.

    Exits 0 when all is as it was released, 1 when a byte or the signature is not, 4 when it could not be looked at.
    Without --digest and --pubkey it only says that the folder is whole: whoever can change a file can change the
    manifest too.
    """
    from quantgate.release.trust import examine

    found = examine(artifact, keys=pubkey or (), digest=digest, full=full)
    for line in found.lines():
        console.print(line, soft_wrap=True, highlight=False, markup=False)
