"""What will be asked, fixed before anything runs: gate, hard and drift cases, and the calibration set beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quantgate import calibrate, decide
from quantgate.calibrate import Chosen, Turns
from quantgate.errors import UnknownName, UsageError
from quantgate.evaluate import suites
from quantgate.evaluate.compare import visiting_order
from quantgate.evaluate.evidence import Gate
from quantgate.evaluate.files import check_cases, read_suite
from quantgate.evaluate.suites import Case
from quantgate.models import OpenedModel
from quantgate.pipeline.slices import with_slices
from quantgate.release_config import CapabilityConfig, ReleaseConfig


@dataclass
class Cases:
    """Gates in the order of the configuration, and the cases of each capability by its name."""

    gates: list[Gate]
    gate: dict[str, list[Case]]
    hard: dict[str, list[Case]]
    drift: list[Case]


def cases_of(config: ReleaseConfig, variants: int) -> Cases:
    """Gate, hard and drift cases of every capability, and the rules they are judged by."""
    judge, found = config.judge, Cases([], {}, {}, [])
    for name, wanted in config.capabilities.items():
        cases, hard = gate_cases(name, wanted, judge.seed)
        found.gate[name], found.hard[name] = cases, hard
        gate = Gate(
            capability=name,
            suite=Path(wanted.suite).name if wanted.suite else name,
            margin=wanted.margin,
            relative=wanted.relative,
            cases=wanted.cases,
            alpha=judge.alpha,
            pass_alpha=decide.pass_alpha(judge.alpha, variants, judge.order),
            test=judge.test,
            seed=judge.seed,
            hard=wanted.hard,
        )
        found.gates.append(with_slices(gate, wanted, cases))
    built_in = [name for name, wanted in config.capabilities.items() if wanted.suite is None]
    for name in built_in if config.drift_cases else []:
        found.drift += suites.cases(name, "tune", max(1, config.drift_cases // len(built_in)), seed=judge.seed)
    return found


def gate_cases(name: str, wanted: CapabilityConfig, seed: int) -> tuple[list[Case], list[Case]]:
    """The cases that judge a capability, and the hard ones beside them. Raises DataError, UnknownName, UsageError.

    Of a suite file with more cases than are wanted, a seeded choice is taken: the first ones may be alike.
    """
    if wanted.suite is not None:
        if wanted.hard:
            raise UsageError(f"capabilities: {name}: 'hard' is for built-in suites; leave it out beside a suite file")
        return visiting_order(read_suite(Path(wanted.suite), name), seed)[: wanted.cases], []
    if name not in suites.names():
        raise UnknownName("capability", name, suites.names(), where="capabilities (or name a file under 'suite')")
    cases = suites.cases(name, "gate", wanted.cases, seed=seed)
    check_cases(cases, f"suite '{name}'")
    hard = suites.cases(name, "gate", wanted.hard, seed=seed, difficulty="hard") if wanted.hard else []
    return cases, hard


def calibration_of(config: ReleaseConfig, model: OpenedModel) -> Chosen:
    """The calibration set: the user's traffic, or the calibrate split of the built-in suites."""
    wanted = config.calibration
    if wanted.traffic is not None:
        conversations, source = calibrate.read_traffic(Path(wanted.traffic)), Path(wanted.traffic).name
    else:
        conversations, source = suite_conversations(wanted.samples, wanted.seed), "suites' calibrate split"
    return calibrate.choose(
        model, conversations, source=source, samples=wanted.samples, max_tokens=wanted.max_tokens, seed=wanted.seed
    )


def suite_conversations(count: int, seed: int) -> list[Turns]:
    """The same number of calibrate-split conversations, answers included, from every built-in suite."""
    each = -(-count // len(suites.names()))
    return [
        (*((message.role, message.content) for message in case.messages), ("assistant", case.answer or ""))
        for name in suites.names()
        for case in suites.cases(name, "calibrate", each, seed=seed)
    ]
