"""What will be asked, fixed before anything runs: gate, hard and drift cases, and the calibration set beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from quantgate import calibrate, decide
from quantgate.calibrate import Chosen, Rules, Tell, Turns
from quantgate.capability_config import CalibrationConfig, CapabilityConfig
from quantgate.errors import UnknownName, UsageError
from quantgate.evaluate import published, scorers, suites, tailored
from quantgate.evaluate.compare import visiting_order
from quantgate.evaluate.evidence import Gate
from quantgate.evaluate.files import check_cases, read_suite
from quantgate.evaluate.suites import Case
from quantgate.models import OpenedModel
from quantgate.pipeline import made_suites, published_suites
from quantgate.pipeline.slices import with_slices
from quantgate.release_config import ReleaseConfig


@dataclass
class Cases:
    """Gates in the order of the configuration, and the cases of each capability by its name."""

    gates: list[Gate]
    gate: dict[str, list[Case]]
    hard: dict[str, list[Case]]
    drift: list[Case]
    targets: dict[str, tuple[Gate, ...]] = field(default_factory=dict)  # what each target needs

    @property
    def extra(self) -> list[Gate]:
        """Gates that only targets have, at margins of their own, each once."""
        every = dict.fromkeys(gate.digest for gates in self.targets.values() for gate in gates)
        found = {gate.digest: gate for gates in self.targets.values() for gate in gates}
        own = {gate.digest for gate in self.gates}
        return [found[digest] for digest in every if digest not in own]


def cases_of(config: ReleaseConfig, variants: int) -> Cases:
    """Gate, hard and drift cases of every capability, and the rules they are judged by."""
    judge, found = config.judge, Cases([], {}, {}, [])
    for name, wanted in config.capabilities.items():
        made = made_suites.cases_for(config, name)
        cases, hard = (made[0], []) if made else gate_cases(name, wanted, judge.seed)
        found.gate[name], found.hard[name] = cases, hard
        others = _published(name, wanted)
        gate = Gate(
            capability=name,
            suite=made[1] if made else Path(wanted.suite).name if wanted.suite else name,
            margin=others.margin if others and "margin" not in wanted.model_fields_set else wanted.margin,
            relative=wanted.relative,
            cases=wanted.cases,
            alpha=judge.alpha,
            pass_alpha=decide.pass_alpha(judge.alpha, variants, judge.order),
            test=judge.test,
            seed=judge.seed,
            hard=wanted.hard,
        )
        found.gates.append(_with_slices(gate, wanted, cases))
    found.drift = _drift_cases(config) if config.drift_cases else []
    found.targets = {name: tuple(_of_target(config, name, found)) for name in config.targets}
    return found


def _of_target(config: ReleaseConfig, target: str, found: Cases) -> Iterator[Gate]:
    """The release's gates that a target needs, at its own margins where it has any."""
    needed = config.targets[target].capabilities
    for gate in found.gates:
        name = gate.capability
        if needed is not None and name not in needed:
            continue
        margin = needed[name] if needed else None
        if margin is None or margin == gate.margin:
            yield gate
        else:
            own = gate.model_copy(update={"margin": margin, "hard": 0, "slices": ()})
            yield _with_slices(own, config.capabilities[name], found.gate[name])


def _published(name: str, wanted: CapabilityConfig) -> published.Published | None:
    known = published_suites.suite_name(name, wanted)
    return None if known is None else published.get(known)


def _with_slices(gate: Gate, wanted: CapabilityConfig, cases: Sequence[Case]) -> Gate:
    others = _published(gate.capability, wanted)
    return with_slices(gate, wanted.slices, cases, must=others.guards if others else ())


def _drift_cases(config: ReleaseConfig) -> list[Case]:
    """Held-out conversations: of the built-in suites, and training rows of the published ones that have any."""
    built_in = [name for name in config.capabilities if name in suites.names() and not config.capabilities[name].suite]
    training, each = published_suites.training_cases(config, "tune"), published_suites.drift_each(config)
    drawn = [case for name in built_in for case in suites.cases(name, "tune", each, seed=config.judge.seed)]
    return drawn + [case for cases in training.values() for case in visiting_order(cases, config.judge.seed)[:each]]


def gate_cases(name: str, wanted: CapabilityConfig, seed: int) -> tuple[list[Case], list[Case]]:
    """The cases that judge a capability, and the hard ones beside them. Raises DataError, UnknownName, UsageError.

    Of a suite file with more cases than are wanted, a seeded choice is taken: the first ones may be alike. What their
    scorers need of the machine is made sure of here, before anything is asked: SandboxError where it is not to be had.
    """
    cases, hard = _drawn(name, wanted, seed)
    scorers.ready(case.scorer for case in (*cases, *hard))
    return cases, hard


def _drawn(name: str, wanted: CapabilityConfig, seed: int) -> tuple[list[Case], list[Case]]:
    known = published_suites.suite_name(name, wanted)
    if known is not None:
        return published_suites.cases_for(name, known, wanted, seed), []
    if wanted.suite is None and name not in suites.names():
        known_names = (*suites.names(), *published.names(), *tailored.names())
        raise UnknownName("capability", name, known_names, where="capabilities (or name a file under 'suite')")
    if wanted.path is not None or wanted.options:
        key = "path" if wanted.path is not None else "options"
        sentence = f"capabilities: {name}: '{key}' is for published suites ({', '.join(published.names())})"
        raise UsageError(f"{sentence}; name one under 'suite', or leave '{key}' out")
    if wanted.suite is not None:
        if wanted.hard:
            raise UsageError(f"capabilities: {name}: 'hard' is for built-in suites; leave it out beside a suite file")
        return visiting_order(read_suite(Path(wanted.suite), name), seed)[: wanted.cases], []
    cases = suites.cases(name, "gate", wanted.cases, seed=seed)
    check_cases(cases, f"suite '{name}'")
    hard = suites.cases(name, "gate", wanted.hard, seed=seed, difficulty="hard") if wanted.hard else []
    return cases, hard


def calibration_of(config: ReleaseConfig, model: OpenedModel, tell: Tell | None = None) -> Chosen:
    """The calibration set: the user's traffic, or the calibrate split of the built-in suites."""
    wanted = config.calibration
    if wanted.traffic is not None:
        rules = replace(rules_of(wanted), apart=made_suites.apart(config))
        return calibrate.from_traffic(model, Path(wanted.traffic), rules, max_tokens=wanted.max_tokens, tell=tell)
    conversations = suite_conversations(wanted.samples, wanted.seed)
    conversations += published_suites.training_conversations(config, wanted.samples // len(config.capabilities))
    return calibrate.choose(
        model,
        conversations,
        source="suites' calibrate split",
        samples=wanted.samples,
        max_tokens=wanted.max_tokens,
        seed=wanted.seed,
    )


def rules_of(wanted: CalibrationConfig) -> Rules:
    return Rules(wanted.samples, wanted.seed, wanted.secrets, wanted.broken, wanted.require)


def suite_conversations(count: int, seed: int) -> list[Turns]:
    """The same number of calibrate-split conversations, answers included, from every built-in suite."""
    each = -(-count // len(suites.names()))
    return [
        (*((message.role, message.content) for message in case.messages), ("assistant", case.answer or ""))
        for name in suites.names()
        for case in suites.cases(name, "calibrate", each, seed=seed)
    ]
