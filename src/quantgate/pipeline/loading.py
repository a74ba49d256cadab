"""A load test from names to a result: what ``quantgate loadtest`` runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantgate.endpoint_config import is_address, split_address
from quantgate.errors import Stopped, UsageError
from quantgate.loadtest import Target, arrivals, prompts
from quantgate.loadtest.journal import Journal
from quantgate.loadtest.objectives import ALPHA, Objective
from quantgate.loadtest.result import LoadResult
from quantgate.loadtest.runs import Arm, Load, Plan, run
from quantgate.loadtest.traces import read_trace
from quantgate.pipeline.lock import alone_in
from quantgate.records import digest_file, digest_of

if TYPE_CHECKING:
    from quantgate.engines import Engine, Prompt
    from quantgate.models import OpenedModel
    from quantgate.quantize import Artifact

Progress = Callable[[str, int, int, str], None]
SUITE_CASES = 200  # of every suite that prompts are taken from
PROBES = (40, 1200)  # words of the two texts that a server's tokens are counted in


@dataclass(frozen=True)
class Wanted:
    """What is asked, and how. Rates are requests a second, times seconds."""

    rate: float | None = 1.0  # None: a trace at its own speed
    sweep: tuple[float, ...] = ()  # further rates
    seconds: float | None = 60.0  # None: a trace to its end
    law: str = "poisson"
    burstiness: float = 0.25
    trace: Path | None = None
    unit: str | None = None  # of a JSONL trace's timestamps
    limits: tuple[int, ...] = ()  # requests in flight at most, each tried
    objectives: tuple[Objective, ...] = ()
    suites: tuple[str, ...] = ()
    traffic: Path | None = None
    prompt_tokens: int | None = None  # of every prompt, made to that length; None: as they are
    answer_tokens: int | None = None  # of every answer; an engine of this process writes just so many
    max_tokens: int = 64  # of an answer, where nothing else says
    context: int | None = None  # tokens that a server's model holds
    blocks: int = 0  # 0: one for a single arm, six to ten for two
    rows: int = 16  # decoded together at most, in this process
    seed: int = 0
    alpha: float = ALPHA  # that the intervals of all limits together may err by
    body: Mapping[str, Any] = field(default_factory=dict)  # more keys of every request
    timeout_s: float = 120.0
    model: str = ""
    against_model: str = ""
    of: str = ""  # the model that an artifact was made from, where no manifest says it


def load_test(
    target: str,
    against: str | None,
    wanted: Wanted,
    *,
    key: str | None = None,
    out: Path = Path("runs/loadtest"),
    progress: Progress | None = None,
) -> LoadResult:
    """Load one or two things: each an address, a model, or an artifact made from the first one.

    ``out`` gets ``load.json``, ``load.html`` and the journal, with which a stopped test goes on. Raises UsageError,
    DataError and ModelError before anything is sent, EngineError for a target that cannot be asked, and Stopped on
    Ctrl-C, after what was measured is saved, marked partial.
    """
    schedules = schedules_of(wanted)
    sources = sources_of(wanted)
    sides = _sides(target, against, wanted, key)
    with alone_in(out):
        return load_sides(sides, wanted, schedules, sources, out=out, progress=progress)


def load_sides(
    sides: Sequence[Side],
    wanted: Wanted,
    schedules: Sequence[arrivals.Schedule],
    sources: Sequence[Prompt],
    *,
    out: Path,
    progress: Progress | None = None,
) -> LoadResult:
    """``load_test`` of what is open already, in a folder that nobody else writes to; the baseline's side first."""
    counter, context = _counter(sides, wanted, sources, schedules)
    if context is not None and (wanted.prompt_tokens or context) + (wanted.answer_tokens or context) < context:
        context = None  # nothing is to be cut
    asked = [
        prompts.prompts_for(one, sources, counter, context=context, seed=wanted.seed + at)
        for at, one in enumerate(schedules)
    ]
    full = wanted.answer_tokens is not None
    plan = Plan(
        arms=tuple(side.arm for side in sides),
        schedules=tuple(schedules),
        fitted=tuple(fitted for _, fitted in asked),
        limits=wanted.limits or (None,),
        objectives=wanted.objectives,
        blocks=wanted.blocks or (_turns(schedules[0].seconds) if len(sides) == 2 else 1),
        seed=wanted.seed,
        trace=digest_file(wanted.trace) if wanted.trace else "",
        alpha=wanted.alpha,
    )
    found = [[one.model_copy(update={"full": full}) for one in made] for made, _ in asked]
    journal = Journal(out / "journal" / f"{_keyed(plan, wanted)[7:23]}.jsonl", plan.digest)
    result, ended = run(Load(plan, [side.target for side in sides], found), journal, progress or (lambda *_: None))
    _save(result, out)
    if ended:
        raise Stopped(f"stopped; {out / 'load.json'} holds what was measured, and the same command goes on from there")
    return result


def _turns(seconds: float) -> int:
    """Stretches of at least two seconds where the time allows: six give their ratio an interval, ten are enough."""
    return min(10, max(6, int(seconds / 2)))


def _save(result: LoadResult, out: Path) -> None:
    from quantgate.records import write_whole
    from quantgate.report.load_page import load_page

    result.save(out / "load.json")
    write_whole(out / "load.html", load_page(result).encode())


def _keyed(plan: Plan, wanted: Wanted) -> str:
    """Requests depend on the body and the time-out, too."""
    return digest_of([plan.digest, dict(wanted.body), wanted.timeout_s])


def schedules_of(wanted: Wanted) -> list[arrivals.Schedule]:
    """Of every rate, the asked one's first, with the lengths that are wanted."""
    lengths = {"prompt_tokens": wanted.prompt_tokens, "output_tokens": wanted.answer_tokens}
    told = {name: count for name, count in lengths.items() if count is not None}
    return [
        one.model_copy(update={name: (count,) * len(one.times) for name, count in told.items()})
        for one in _schedules(wanted)
    ]


def _schedules(wanted: Wanted) -> list[arrivals.Schedule]:
    rates: list[float | None] = [wanted.rate, *(one for one in wanted.sweep if one != wanted.rate)]
    if wanted.trace is not None:
        rows = read_trace(wanted.trace, wanted.unit)
        return [arrivals.replay(rows, rate=one, seconds=wanted.seconds, seed=wanted.seed) for one in rates]
    if wanted.rate is None or wanted.seconds is None:
        raise UsageError("without a trace nothing says how many requests come; write --rate 8/s --duration 60s")
    return [
        arrivals.draw(wanted.law, one, wanted.seconds, wanted.seed, wanted.burstiness)
        for one in rates
        if one is not None
    ]


def sources_of(wanted: Wanted) -> list[Prompt]:
    from quantgate.calibrate import read_traffic
    from quantgate.evaluate import suites

    found: list[Prompt] = []
    if wanted.traffic is not None:
        found += prompts.from_traffic(read_traffic(wanted.traffic), wanted.max_tokens)
    for name in wanted.suites or (() if found else ("chat", "math", "json_tools")):
        found += prompts.from_cases(suites.cases(name, "tune", SUITE_CASES, seed=wanted.seed))
    return found


@dataclass(frozen=True)
class Side:
    """One arm, and what is asked for it."""

    arm: Arm
    target: Target
    engine: Engine | None = None  # of this process
    model: OpenedModel | None = None


def _sides(target: str, against: str | None, wanted: Wanted, key: str | None) -> list[Side]:
    if is_address(target):
        sides = [_server(target, wanted.model, wanted, key)]
        if against is not None:
            if not is_address(against):
                raise UsageError(f"{against}: is no address, and {target} is one; serve both, or name both as models")
            sides.append(_server(against, wanted.against_model or wanted.model, wanted, key))
        return _told_apart(sides)
    if against is not None and is_address(against):
        raise UsageError(f"{against}: is an address, and {target} is none; serve both, or name both as models")
    return _told_apart(_models(target, against, wanted))


def _told_apart(sides: list[Side]) -> list[Side]:
    names = [side.arm.name for side in sides]
    if len(set(names)) == len(names):
        return sides
    first, second = sides
    return [
        replace(first, arm=first.arm.model_copy(update={"name": f"{names[0]} (baseline)"})),
        replace(second, arm=second.arm.model_copy(update={"name": f"{names[1]} (variant)"})),
    ]


def _server(ref: str, model: str, wanted: Wanted, key: str | None) -> Side:
    from quantgate.loadtest.endpoint import Endpoint

    url, named = split_address(ref)
    target = Endpoint(url, model=named or model, key=key, timeout_s=wanted.timeout_s, body=wanted.body)
    called = url.partition("://")[2].removesuffix("/v1")
    arm = Arm(name=named or model or called or url, what=f"{url}#{named or model}")
    return Side(arm, target)


def _models(target: str, against: str | None, wanted: Wanted) -> list[Side]:
    from quantgate.models import open_model
    from quantgate.pipeline.two_models import open_pair
    from quantgate.quantize import baseline

    if base := _made_from(target, wanted.of):
        model = open_model(base)
        sides = [_in_process(*open_pair(target, model), Path(target).name, wanted)]
    else:
        model = open_model(target)
        sides = [_in_process(model, baseline(model), "baseline" if against else Path(target).name, wanted)]
    if against is not None:
        other, artifact = open_pair(against, model)
        sides.append(_in_process(other, artifact, Path(against).name, wanted))
    return sides


def _made_from(ref: str, of: str) -> str:
    """The model that reads ``ref`` where it is an artifact: what ``of`` says, else its manifest; "" for a model."""
    from quantgate.quantize.foreign import is_foreign
    from quantgate.quantize.manifest import Manifest

    path = Path(ref).expanduser()
    file = ref.lower().endswith(".gguf")
    folder = path.parent if file else path
    if of:
        return of
    if (folder / "manifest.json").is_file():
        return Manifest.load(folder / "manifest.json").model.ref
    if file or (path.is_dir() and is_foreign(path)):
        raise UsageError(f"{ref}: does not say which model it was made from; name that one with --of")
    return ""


def _in_process(model: OpenedModel, artifact: Any, name: str, wanted: Wanted) -> Side:
    from quantgate.quantize.gguf.artifact import GgufArtifact

    return in_process(model, artifact, name, "llamacpp" if isinstance(artifact, GgufArtifact) else "torch", wanted.rows)


def in_process(
    model: OpenedModel, artifact: Artifact, name: str, kind: str, rows: int, settings: Mapping[str, Any] = {}
) -> Side:
    """The engine ``kind`` of this process, of ``rows`` together at most. Raises MissingExtra, EngineError."""
    from quantgate import plugins
    from quantgate.loadtest.batching import Batched

    engine = plugins.get("engines", kind)(model, artifact, **{**settings, "rows": rows})
    arm = Arm(name=name, what=engine.identity.key, rows=rows, weights=engine.identity.weights)
    return Side(arm, Batched(engine, rows=rows, name=name), engine, model)


def _counter(
    sides: Sequence[Side], wanted: Wanted, sources: Sequence[Prompt], schedules: Sequence[arrivals.Schedule]
) -> tuple[prompts.Counter, int | None]:
    """Who counts the tokens of a prompt, and how many fit: the first arm's model, or its server by two questions."""
    engine, model = sides[0].engine, sides[0].model
    if engine is not None and model is not None:
        return prompts.Counter(
            lambda text: len(engine.encode((("user", text),))), "by the model's tokenizer", exact=True
        ), model.context
    if all(count is None for one in schedules for count in one.prompt_tokens):
        return prompts.assumed(), wanted.context
    words = " ".join(content for one in sources for _, content in one.turns).split()
    texts = [" ".join(words[at % len(words)] for at in range(count)) for count in PROBES]
    counted = probe(sides[0].target, texts)
    if None in counted:
        return prompts.assumed(), wanted.context
    short, long = ((text, count or 0) for text, count in zip(texts, counted, strict=True))
    return prompts.linear(short, long), wanted.context


def probe(target: Any, texts: Sequence[str]) -> list[int | None]:
    """Tokens of each text as a server counts them; None where it does not say, or refuses so long a one."""
    import asyncio

    async def ask() -> list[int | None]:
        async with target:
            return [await target.prompt_tokens(text) for text in texts]

    return asyncio.run(ask())
