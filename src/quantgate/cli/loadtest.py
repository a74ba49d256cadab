"""``quantgate loadtest TARGET``: what users feel when many ask at once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from quantgate.cli import completions
from quantgate.cli.options import Quiet
from quantgate.cli.screen import bars, console
from quantgate.errors import UsageError


def loadtest(
    target: Annotated[
        str,
        typer.Argument(
            help="An address, such as http://127.0.0.1:8000/v1#model; or a model, an artifact, a GGUF file."
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            "--against", "--variant", help="A second address, or an artifact or model: asked the same, in turns."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Name that the address serves the model under.")] = "",
    against_model: Annotated[str, typer.Option(help="The same, of the second address.")] = "",
    of: Annotated[
        str, typer.Option(help="Model that an artifact was made from, where its manifest does not say.")
    ] = "",
    rate: Annotated[
        str, typer.Option(help="Requests that come, such as 8/s or 30/min; 'trace': at its own speed.")
    ] = "1/s",
    sweep: Annotated[str, typer.Option(help="More rates, to find the knee: 2/s,4/s,8/s.")] = "",
    duration: Annotated[str, typer.Option(help="Of every rate, such as 60s; 'trace': to its end.")] = "60s",
    arrivals: Annotated[
        str,
        typer.Option(
            help="poisson, constant or bursts; --trace replays real ones.", autocompletion=completions.arrivals
        ),
    ] = "poisson",
    burstiness: Annotated[
        float, typer.Option(help="Shape of the gamma law of bursts: 1 is Poisson, less is burstier.")
    ] = 0.25,
    trace: Annotated[
        Path | None,
        typer.Option(help="Arrivals and lengths of real traffic: Azure's CSV, Mooncake's or guidellm's JSONL."),
    ] = None,
    trace_unit: Annotated[str | None, typer.Option(help="ms or s: of a JSONL trace's timestamps.")] = None,
    limit: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Requests in flight at most; repeat it to find the largest that holds."),
    ] = None,
    ttft_p95: Annotated[str | None, typer.Option("--ttft-p95", help="Objective: first token, such as 300ms.")] = None,
    tpot_p95: Annotated[str | None, typer.Option("--tpot-p95", help="Objective: each further token.")] = None,
    e2e_p95: Annotated[str | None, typer.Option("--e2e-p95", help="Objective: the whole answer.")] = None,
    objective: Annotated[
        list[str] | None, typer.Option(help="Any other: ttft-p99=1s, gap-p95=200ms; may be repeated.")
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option("--suite", "-s", help="Suites whose prompts are asked.", autocompletion=completions.suite),
    ] = None,
    traffic: Annotated[Path | None, typer.Option(help="Your traffic as JSONL, whose prompts are asked.")] = None,
    prompt: Annotated[int | None, typer.Option(min=1, help="Tokens of every prompt, made to that length.")] = None,
    answer: Annotated[
        int | None, typer.Option(min=1, help="Tokens of every answer; a server may end sooner, see --request.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer to your traffic, at most.")] = 64,
    context: Annotated[int | None, typer.Option(min=8, help="Tokens that the server's model holds.")] = None,
    blocks: Annotated[int, typer.Option(min=0, help="Stretches that two targets take turns in; 0 chooses.")] = 0,
    rows: Annotated[int, typer.Option(min=1, help="Answers decoded together at most, in this process.")] = 16,
    request: Annotated[
        str, typer.Option(help='More keys of every request, such as {"ignore_eos": true}, or a response_format.')
    ] = "",
    timeout: Annotated[str, typer.Option(help="For one request.")] = "120s",
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the servers' key.")] = None,
    seed: Annotated[int, typer.Option(help="Fixes arrivals and prompts.")] = 0,
    out: Annotated[Path, typer.Option(help="Gets load.json, load.html and the journal.")] = Path("runs/loadtest"),
    quiet: Quiet = False,
) -> None:
    """Ask a server or a model at a rate that does not wait for answers, and say what users feel.

    Latencies count from the intended time. A run that could not hold its rate says so, and decides nothing. Exit codes:
    0 the objectives are proven kept (or none was named), 1 they are not, 3 undecided.
    """
    from quantgate.loadtest.objectives import parse_objective, seconds_of
    from quantgate.pipeline.loading import Wanted, load_test
    from quantgate.report.loads import show_load

    named = {"ttft-p95": ttft_p95, "tpot-p95": tpot_p95, "e2e-p95": e2e_p95}
    written = [f"{name}={value}" for name, value in named.items() if value is not None] + (objective or [])
    wanted = Wanted(
        rate=None if rate == "trace" else rate_of(rate),
        sweep=tuple(rate_of(one) for one in sweep.split(",") if one.strip()),
        seconds=None if duration == "trace" else seconds_of(duration, "--duration"),
        law=arrivals,
        burstiness=burstiness,
        trace=trace,
        unit=trace_unit,
        limits=tuple(sorted(set(limit or ()))),
        objectives=tuple(parse_objective(one) for one in written),
        suites=tuple(suite or ()),
        traffic=traffic,
        prompt_tokens=prompt,
        answer_tokens=answer,
        max_tokens=max_tokens,
        context=context,
        blocks=blocks,
        rows=rows,
        seed=seed,
        body=_body(request),
        timeout_s=seconds_of(timeout, "--timeout"),
        model=model,
        against_model=against_model,
        of=of,
    )
    with bars(quiet=quiet) as progress:
        result = load_test(target, against, wanted, key=_key(api_key_env), out=out, progress=progress)
    show_load(result, console)
    console.print(f"latency under load: [bold]{out / 'load.html'}[/]")
    whole = all(one.measured.validity.valid for one in result.results) and not result.partial
    raise typer.Exit({"pass": 0, "fail": 1, "inconclusive": 3, None: 0 if whole else 3}[result.verdict])


def rate_of(text: str) -> float:
    """Requests a second.

    >>> rate_of("30/min"), rate_of("8/s")
    (0.5, 8.0)
    """
    from quantgate.hardware.quantities import per_second

    try:
        return per_second(f"{text}/s" if text.replace(".", "", 1).isdigit() else text)
    except ValueError as problem:
        raise UsageError(f"rate: {problem}") from None


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    if not os.environ.get(name):
        raise UsageError(f"--api-key-env: the variable {name} is not set; export it, or leave the option out")
    return os.environ[name]


def _body(text: str) -> dict[str, Any]:
    from quantgate.engines._openai_wire import OWN

    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as broken:
        raise UsageError(f'--request: not valid JSON ({broken}); write an object such as {{"top_k": 1}}') from None
    if not isinstance(found, dict):
        raise UsageError(f'--request: a JSON {type(found).__name__}, not an object; write such as {{"top_k": 1}}')
    own = sorted((OWN - {"temperature", "top_p", "seed", "response_format", "tools"}) & set(found))
    if own:
        raise UsageError(f"--request: '{own[0]}' is written by quantgate itself; leave it out")
    return found
