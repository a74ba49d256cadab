"""``quantgate serve``: a variant behind an OpenAI-compatible API that holds answers to what was asked."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quantgate.cli import _workers, completions
from quantgate.cli.options import Quiet
from quantgate.cli.screen import console, errors
from quantgate.errors import UsageError

if TYPE_CHECKING:
    from quantgate.serve.open import ServedGateway
    from quantgate.serve_config import ServeConfig

BACKLOG = 4096


def serve(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="serve.yaml; left out, the built-in model is served.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Target whose releases are served, from the registry.", autocompletion=completions.target),
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(
            envvar="QUANTGATE_REGISTRY",
            help="The registry's database, beside --target; left out, runs/quantgate.db.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The baseline that this process opens; left out, the built-in model.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Left out, 127.0.0.1; other than this machine demands keys.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Left out, 8000; 0 takes a free one.")] = None,
    data: Annotated[
        str | None,
        typer.Option(envvar="QUANTGATE_DATA", help="Of secrets, keys, ledger, exchanges; left out, .quantgate."),
    ] = None,
    worker: Annotated[str | None, typer.Option(hidden=True)] = None,
    quiet: Quiet = False,
) -> None:
    """Serve a release, or the built-in model, behind a guarded OpenAI-compatible API. Ctrl-C ends it in order.

    Without options it serves the built-in model on http://127.0.0.1:8000/v1, open to this machine alone.
    """
    from quantgate.serve.open import Around, open_gateway
    from quantgate.watch.attached import attach

    wanted = _config(config, target, registry, model, host, port, data)
    tell = (lambda _sentence: None) if quiet else (lambda said: errors.print(f"[dim]{said} ...[/]", soft_wrap=True))
    _log()
    if worker is not None:
        number, *sockets = _workers.taken(worker)
    else:
        number, sockets = "0", [_listen(wanted.host, wanted.port)]
    if worker is None and wanted.workers > 1:
        with sockets[0] as listening:
            _workers.run(listening, wanted.workers, sys.argv[1:])
        return
    around = Around(os.environ, os.environ.get("QUANTGATE_SECRET"), "gateway", tell, number, attach)
    with contextlib.ExitStack() as held:
        for one in sockets:
            held.enter_context(one)
        gateway = open_gateway(wanted, around)
        _run(gateway, sockets)
    if not quiet:
        errors.print(f"quantgate: ended; {gateway.parts.journal.written} exchanges were written")


def _config(
    path: Path | None,
    target: str | None,
    registry: str | None,
    model: str | None,
    host: str | None,
    port: int | None,
    data: str | None,
) -> ServeConfig:
    """The file, and over it what the command line says. Raises UsageError."""
    from quantgate.records import parse
    from quantgate.serve_config import ServeConfig, read_config

    base = read_config(path) if path is not None else ServeConfig()
    given: dict[str, Any] = {"model": model, "host": host, "port": port, "data": data, "target": target}
    if target is not None and base.live is None:
        given["registry"] = registry or base.registry or "sqlite:///runs/quantgate.db"
    elif target is not None and base.live is not None:
        raise UsageError(f"--target: {path} says itself what is live; leave one of them out")
    elif registry is not None and registry != os.environ.get("QUANTGATE_REGISTRY"):
        if base.registry is None:
            raise UsageError("--registry: says not whose releases; add --target NAME (quantgate releases lists them)")
        given["registry"] = registry
    named = {name: value for name, value in given.items() if value is not None}
    return parse(ServeConfig, {**dict(base), **named}, where="serve")


def _listen(host: str, port: int) -> socket.socket:
    """The port is taken before anything slow begins. Raises UsageError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as problem:
        number = getattr(problem, "errno", None)
        said = os.strerror(number) if number else problem
        raise UsageError(f"{host}:{port}: cannot be listened on ({said}); name another with --port") from None


def _run(gateway: ServedGateway, sockets: list[socket.socket]) -> None:
    from quantgate.serve.server import Server, config

    started = gateway.start
    failed: list[BaseException] = []

    async def start() -> None:
        try:
            await started()
        except BaseException as problem:
            failed.append(problem)
            raise
        _welcome(gateway, sockets)

    gateway.start = start  # type: ignore[method-assign]
    server = Server(gateway, config(gateway))
    # what fails at start is told below, in one sentence; a second Ctrl-C cuts uvicorn's own end short, and what it
    # says of that tells nobody anything
    logging.getLogger("uvicorn.error").addFilter(lambda told: not failed and "'lifespan'" not in told.getMessage())
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))  # uvicorn says it again once all has ended
    try:
        server.run(sockets)
    except (KeyboardInterrupt, SystemExit):
        pass  # uvicorn has ended everything in order, and then says again what ended it
    finally:
        gateway.parts.close()
    if failed:
        raise failed[0]


def _welcome(gateway: ServedGateway, sockets: list[socket.socket]) -> None:
    """Where it is, what answers, and a line to try it with."""
    parts = gateway.parts
    host, port = sockets[0].getsockname()[:2]
    number = parts.around.worker
    if len(sockets) > 1:
        errors.print(f"worker {number}: metrics on http://127.0.0.1:{sockets[1].getsockname()[1]}/metrics")
    if number != "0":
        return
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}/v1"
    console.print(f"quantgate serves [bold]{parts.config.target}[/] on [bold]{url}[/]", soft_wrap=True)
    for arm in parts.router.arms():
        console.print(f"  {arm.role:<9} {arm.name:<12} {arm.digest}", soft_wrap=True, markup=False)
    if parts.attached is not None:
        root = url.removesuffix("/v1")
        console.print(f"  watch     {root}/dashboard, or: quantgate watch", soft_wrap=True, markup=False)
    console.print(f"  guards    {len(parts.proofs)} proven: each refused what it is there to refuse")
    for warning in parts.warnings():
        console.print(f"  warning   {warning}", soft_wrap=True, markup=False)
    if parts.open_to_all:
        console.print(
            "  keys      none: whoever reaches this port may ask; make one with: quantgate keys new --name NAME "
            f"--data {parts.config.data}, and start again",
            soft_wrap=True,
            markup=False,
        )
    else:
        console.print(f"  keys      {len(parts.ring)}")
    auth = "" if parts.open_to_all else ' -H "authorization: Bearer $KEY"'
    body = f'{{"model": "{parts.config.target}", "messages": [{{"role": "user", "content": "What is 2 + 3?"}}]}}'
    console.print(
        f"\ntry:\n  curl {url}/chat/completions{auth} -H 'content-type: application/json' \\",
        markup=False,
        soft_wrap=True,
    )
    console.print(f"    -d '{body}'", markup=False, soft_wrap=True)


def _log() -> None:
    """One line for what somebody should know, on stderr, without colours; requests leave none."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in ("quantgate.serve", "quantgate.watch"):
        mine = logging.getLogger(name)
        mine.addHandler(handler)
        mine.setLevel(logging.INFO)
        mine.propagate = False
