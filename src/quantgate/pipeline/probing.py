"""Tune-split conversations, and what they tell about every layer: the sensitivities, kept on disk once computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate.capability_config import CapabilityConfig
from quantgate.engines import Completion
from quantgate.errors import DataError, RecordError, UnknownName
from quantgate.evaluate import suites
from quantgate.evaluate.compare import Side, visiting_order
from quantgate.evaluate.files import read_suite
from quantgate.evaluate.suites import Case
from quantgate.models import OpenedModel
from quantgate.pipeline import made_suites
from quantgate.pipeline.published_suites import drift_each, suite_name, tuning_cases
from quantgate.pipeline.two_models import Progress
from quantgate.quantize.manifest import tool_version
from quantgate.records import Record, digest_of
from quantgate.release_config import ReleaseConfig

if TYPE_CHECKING:
    from quantgate.quantize import Artifact
    from quantgate.quantize.sensitivity import Sensitivity

EXAMPLES = 24  # conversations per capability that gradients are taken of
LONGEST = 768  # tokens of a conversation that gradients are taken of
SET_ASIDE = 4 * EXAMPLES  # tune-split cases that gradients may be taken of; the others try mixtures out
TRIED = 150  # of a built-in suite's, at most
FEWEST = 30  # of a suite file's, at least
LAYOUT = 1  # raised when the same inputs would give other numbers


class Moves(Record):
    """A Sensitivity on disk."""

    groups: tuple[tuple[str, ...], ...]
    sources: tuple[str, ...]
    moves: dict[str, list[list[list[float]]]]
    tokens: dict[str, int]


def probe(
    config: ReleaseConfig,
    model: OpenedModel,
    sources: Mapping[str, Artifact],
    base: Side,
    out: Path,
    progress: Progress,
) -> Sensitivity:
    """Sensitivities of every capability of ``config``; computed once, then read from ``out/sensitivity``."""
    import torch

    from quantgate.quantize.sensitivity import Sensitivity, sensitivity

    def tell(done: int, total: int) -> None:
        progress("probing the layers", done, total, "")

    examples = {name: _examples(config, model, name, base) for name in config.capabilities}
    parts = [[name, source.manifest.digest] for name, source in sources.items()]
    asked = [model.weights_digest, model.config_digest, base.engine.identity.key]
    key = digest_of([LAYOUT, tool_version(), asked, parts, config.judge.seed, examples])
    file = out / "sensitivity" / f"{key[7:39]}.json"
    if file.is_file():
        try:
            known = Moves.load(file)
        except RecordError:
            file.unlink()  # broken, or of another version
        else:
            moves = {name: torch.tensor(one, dtype=torch.float64) for name, one in known.moves.items()}
            return Sensitivity(known.groups, known.sources, moves, known.tokens)
    found = sensitivity(model, sources, examples, seed=config.judge.seed, progress=tell)
    file.parent.mkdir(parents=True, exist_ok=True)
    told = {name: one.tolist() for name, one in found.moves.items()}
    Moves(groups=found.groups, sources=found.sources, moves=told, tokens=found.tokens).save(file)
    return found


def tune_cases(config: ReleaseConfig, name: str, count: int) -> list[Case]:
    """Tune-split cases that no gradient was taken of. Raises DataError when a suite file has fewer than FEWEST left."""
    wanted = config.capabilities[name]
    if wanted.suite is None and name in suites.names():
        return _tune(config, name)[SET_ASIDE : SET_ASIDE + count]
    found = _tune(config, name)
    found = found[_aside(found) :][:count]
    if len(found) < FEWEST and suite_name(name, wanted):
        raise DataError(
            f"{name}: {len(found)} training rows are left to try a mixture on, {FEWEST} are needed at least"
        )
    if len(found) < FEWEST:
        raise DataError(
            f"{wanted.suite}: {len(found)} cases are left to try a mixture on, {FEWEST} are needed at least; append "
            f"cases to the file (every second one behind the first {wanted.cases} is for tuning), and run again"
        )
    return found


def unasked(wanted: CapabilityConfig, name: str, seed: int) -> list[Case]:
    """A suite file's cases behind those of the gate; the first, third ... are for tuning."""
    made_suites.refuse(wanted, name, "choosing layers")
    return visiting_order(read_suite(Path(str(wanted.suite)), name), seed)[wanted.cases :]


def check(config: ReleaseConfig) -> None:
    """Raises DataError when a capability has no case to take a gradient of, UnknownName when it is no suite."""
    for name, wanted in config.capabilities.items():
        made_suites.refuse(wanted, name, "choosing layers")
        if (known := suite_name(name, wanted)) is not None:
            if not _tune(config, name):
                raise DataError(
                    f"{name}: {known} has no training rows there to choose layers by, and its test rows are the gate's;"
                    " leave mixtures ('scheme: auto') and repair out, or put the training rows beside the test"
                )
            continue
        if wanted.suite is None and name not in suites.names():
            raise UnknownName("capability", name, suites.names())
        if wanted.suite is not None and not _tune(config, name):
            raise DataError(
                f"{wanted.suite}: its first {wanted.cases} cases are the gate's, and none is left to choose layers by; "
                f"append cases to the file, or lower 'cases' of {name}"
            )


def _tune(config: ReleaseConfig, name: str) -> list[Case]:
    """Cases of the tune split, behind those that drift is measured on."""
    wanted, seed = config.capabilities[name], config.judge.seed
    if suite_name(name, wanted) is not None:
        return tuning_cases(config, name)
    if wanted.suite is not None:
        return unasked(wanted, name, seed)[::2]
    drift = drift_each(config) if config.drift_cases else 0
    return suites.cases(name, "tune", drift + SET_ASIDE + TRIED, seed=seed)[drift:]


def _aside(found: list[Case]) -> int:
    """How many of a suite's tuning cases gradients may be taken of."""
    return min(SET_ASIDE, max(1, len(found) // 3))


def _examples(config: ReleaseConfig, model: OpenedModel, name: str, base: Side) -> list[tuple[list[int], int]]:
    """Token ids and where the answer starts: the known answer, else the baseline's own."""
    found, longest = list[tuple[list[int], int]](), min(LONGEST, model.context)
    some = _tune(config, name)
    for case in some[: _aside(some)]:
        answer = case.answer
        if answer is None:
            (own,) = base.answers.of(base.engine, [case])
            answer = own.text if isinstance(own, Completion) else ""
        turns = [(message.role, message.content) for message in case.messages]
        ids = base.engine.encode([*turns, ("assistant", answer)])
        if answer and len(ids) <= longest:
            found.append((ids, len(base.engine.encode(turns))))
        if len(found) == EXAMPLES:
            break
    if not found:
        raise DataError(f"{name}: no tune-split case has an answer within {longest} tokens; add shorter ones")
    return found
