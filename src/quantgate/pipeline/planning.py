"""Before anything is spent: how many cases each capability is likely to need, and what they take.

Flips are those that an earlier run in the folder saw, or an assumed share. Prompts are counted with the model's
tokenizer, on as many cases as tell their mean; answers and times come from the journals in the folder, or answers from
their limit and times from a few cases that are asked for that purpose alone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from quantgate import decide
from quantgate.errors import RecordError
from quantgate.evaluate.answers import prompt_of
from quantgate.evaluate.compare import BATCH, visiting_order
from quantgate.evaluate.evidence import Gate
from quantgate.evaluate.suites import Case
from quantgate.models import OpenedModel, open_model
from quantgate.pipeline import training_plan as trainings
from quantgate.pipeline.cases import Cases, cases_of
from quantgate.pipeline.load_plan import PlannedLoad, planned_loads
from quantgate.pipeline.students import open_students
from quantgate.pipeline.training_plan import PlannedTraining
from quantgate.pipeline.variants import variants_of
from quantgate.records import Record
from quantgate.release_config import ReleaseConfig
from quantgate.report import RunReport

ASSUMED_FLIPS = 0.06  # of the answers, where nothing has been measured
MEASURED_FROM = 40  # pairs of an earlier run from which on its flips are taken
COUNTED = 64  # prompts of a capability that are counted in tokens
PROBED = 4  # cases of a capability that are asked for their time
FILE = "plan.json"


class PlannedCapability(Record):
    """One capability: needs and costs of asking the baseline and all variants."""

    capability: str
    available: int  # cases
    fewest: int  # with which it can pass at all
    likely: int | None  # with which a variant that loses nothing is likely to pass; None: no number is enough
    asked: int  # of each model: likely or available, whatever is fewer
    flip_rate: float
    flips_from: str  # where the flip rate comes from
    prompt_tokens: int  # of all models together
    answer_tokens: int
    answers_from: str
    seconds: float | None  # of all models together; None: not measured
    short: str = ""  # what to expect where there are fewer cases than likely to be needed


class Plan(Record):
    """What a run is expected to take, before it starts."""

    models: int  # the baseline and the variants
    capabilities: tuple[PlannedCapability, ...]
    seconds: float | None
    seconds_from: str
    price: float | None
    price_missing: str = ""  # why there is no price though one was named
    loads: tuple[PlannedLoad, ...] = Field(default=(), exclude_if=lambda loads: not loads)  # beside ``seconds``
    others: tuple[str, ...] = Field(default=(), exclude_if=lambda others: not others)
    """Variants that are models of their own: what each is beside the baseline, and its bytes."""
    training: tuple[PlannedTraining, ...] = Field(default=(), exclude_if=lambda training: not training)

    @property
    def prompt_tokens(self) -> int:
        return sum(one.prompt_tokens for one in self.capabilities)

    @property
    def answer_tokens(self) -> int:
        return sum(one.answer_tokens for one in self.capabilities)


@dataclass(frozen=True)
class _Seen:
    """Answers of earlier runs to one capability's cases: mean tokens and seconds of one."""

    tokens: float
    seconds: float | None
    count: int


def plan(config: ReleaseConfig, out: Path, *, probe: bool = True) -> Plan:
    """What ``quantgate run --plan`` prints; nothing is written.

    ``probe`` asks the baseline a few cases where no journal knows how long they take. Raises UsageError for a gate
    that cannot pass, and what opening suites and model raises.
    """
    cases = cases_of(config, len(config.variants))
    decide.refuse_hopeless(cases.gates, {name: len(group) for name, group in cases.gate.items()})
    model = open_model(config.model)
    asked = trainings.asked_of(variants_of(config.variants))
    outlines, students = trainings.check(model, asked, out), open_students(config, model, out)
    training = trainings.foretold(model, asked, outlines, students.models)
    return plan_of(config, cases, model, out, students.foretold(), training, probe=probe)


def plan_of(
    config: ReleaseConfig,
    cases: Cases,
    model: OpenedModel,
    out: Path,
    others: Sequence[str] = (),
    training: Sequence[PlannedTraining] = (),
    *,
    probe: bool = False,
) -> Plan:
    """``plan``, for cases and a model at hand; ``others`` are sentences on variants that are models of their own, and
    ``training`` is what the run trains."""
    models, earlier, held = len(config.variants) + 1, _earlier(out), _held(out)
    seen = {gate.capability: _seen(cases.gate[gate.capability], held) for gate in cases.gates}
    probed = dict[str, float]()
    if probe and any(one is None or one.seconds is None for one in seen.values()):
        probed = _probed(model, cases)
    rows = [
        _row(gate, cases.gate[gate.capability], models, model, earlier, seen[gate.capability], probed)
        for gate in cases.gates
    ]
    times = [row.seconds for row in rows if row.seconds is not None]
    seconds = sum(times) if len(times) == len(rows) else None
    prompts, answers = sum(row.prompt_tokens for row in rows), sum(row.answer_tokens for row in rows)
    price = None if config.price is None else config.price.of(prompts, answers, seconds)
    return Plan(
        models=models,
        capabilities=tuple(rows),
        seconds=seconds,
        seconds_from="not measured"
        if seconds is None
        else "a few cases asked now"
        if probed
        else "earlier answers in the folder",
        price=price,
        price_missing="its time is not measured" if config.price is not None and price is None else "",
        loads=tuple(planned_loads(config)),
        others=tuple(others),
        training=tuple(training),
    )


def _row(
    gate: Gate,
    cases: Sequence[Case],
    models: int,
    model: OpenedModel,
    earlier: Mapping[str, tuple[float, float, str]],
    seen: _Seen | None,
    probed: Mapping[str, float],
) -> PlannedCapability:
    flips, baseline, source = earlier.get(gate.capability, (ASSUMED_FLIPS, 1.0, "assumed"))
    likely = decide.likely_cases(gate, flips, baseline)
    looks = None if likely is None else math.ceil(likely / BATCH) * BATCH
    asked = min(looks or len(cases), len(cases))
    counted = visiting_order(cases, gate.seed)[:COUNTED]
    prompts = sum(_tokens(model, case) for case in counted) / len(counted)
    limit = sum(case.max_tokens for case in cases) / len(cases)
    answers = limit if seen is None else seen.tokens
    seconds = seen.seconds if seen is not None and seen.seconds is not None else probed.get(gate.capability)
    return PlannedCapability(
        capability=gate.capability,
        available=len(cases),
        fewest=decide.fewest_cases(gate),
        likely=likely,
        asked=asked,
        flip_rate=flips,
        flips_from=source,
        prompt_tokens=round(prompts * asked * models),
        answer_tokens=round(answers * asked * models),
        answers_from="their limit" if seen is None else f"{seen.count} earlier answers",
        seconds=None if seconds is None else seconds * asked * models,
        short=decide.short_sentence(gate, len(cases), flips, likely),
    )


def _tokens(model: OpenedModel, case: Case) -> int:
    return len(model.encode([{"role": one.role, "content": one.content} for one in case.messages]))


def _earlier(out: Path) -> dict[str, tuple[float, float, str]]:
    """Capability -> flip rate, the baseline's score and where they come from: of a finished run in the folder.

    Of the variants that did not fail, the one with the most flips: what fails flips for another reason. Never less than
    the baseline's flips by itself.
    """
    file = out / "report.json"
    if not file.is_file():
        return {}
    try:
        report = RunReport.load(file)
    except RecordError:
        return {}  # an older version wrote it
    found = dict[str, tuple[float, float, str]]()
    for evidence in report.evidence:
        for row in evidence.comparisons:
            if row.finding.verdict == "fail" or row.n < MEASURED_FROM or not row.baseline_score:
                continue
            rate = (row.finding.losses + row.finding.gains) / row.n
            if rate >= found.get(row.gate.capability, (0.0,))[0]:
                source = f"{evidence.variant}, {row.n} cases of the run before"
                found[row.gate.capability] = max(rate, 1 / row.n), row.baseline_score, source
    for floor in report.noise:
        rate, score, source = found.get(floor.capability, (0.0, 0.0, ""))
        if score and floor.rate > rate:
            source = f"the baseline by itself, {floor.n} cases asked twice"
            found[floor.capability] = floor.rate, score, source
    return found


def _held(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Case digest -> the answers of all journals in the folder, as written."""
    found = dict[str, list[dict[str, Any]]]()
    for file in sorted((out / "answers").glob("*.jsonl")):
        for row in _rows(file):
            for one in row.get("answers", ()):
                found.setdefault(one["case"], []).append(one["completion"])
    return found


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """Whole lines; the last one may have been cut off by a kill."""
    with file.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _seen(cases: Sequence[Case], held: Mapping[str, list[dict[str, Any]]]) -> _Seen | None:
    answers = [one for case in cases for one in held.get(case.digest, ())]
    if not answers:
        return None
    seconds = sum(one["prefill_s"] + one["decode_s"] for one in answers) / len(answers)
    return _Seen(sum(one["tokens"] for one in answers) / len(answers), seconds or None, len(answers))


def _probed(model: OpenedModel, cases: Cases) -> dict[str, float]:
    """Capability -> seconds of one case in the baseline's own engine; its answers are kept nowhere."""
    from quantgate.engines.torch import open_engine
    from quantgate.quantize import baseline

    engine, found = open_engine(model, baseline(model)), dict[str, float]()
    for gate in cases.gates:
        some = visiting_order(cases.gate[gate.capability], gate.seed)[:PROBED]
        began = time.perf_counter()
        engine.generate([prompt_of(case) for case in some])
        found[gate.capability] = (time.perf_counter() - began) / len(some)
    return found
