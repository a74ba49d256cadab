"""Suites that are made for a release: tailored to its model or its traffic, or tasks of the EleutherAI harness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from quantgate import plugins
from quantgate.calibrate import Turns
from quantgate.calibrate.folder import is_folder
from quantgate.calibrate.scan import masked_traffic
from quantgate.capability_config import CapabilityConfig
from quantgate.errors import UsageError
from quantgate.evaluate import suites, tailored
from quantgate.evaluate.compare import visiting_order
from quantgate.evaluate.files import check_cases
from quantgate.evaluate.suites import Case, Split
from quantgate.evaluate.tailored import Place, Tool
from quantgate.models import OpenedModel, open_model
from quantgate.models.tools import messages_for
from quantgate.release_config import ReleaseConfig

HARNESS = "lm_eval:"


def suite_name(name: str, wanted: CapabilityConfig) -> str | None:
    """The made suite that a capability asks: named under ``suite``, or by the capability itself."""
    suite = wanted.suite or (name if name not in suites.names() else "")
    return suite if suite.startswith(HARNESS) or suite in tailored.names() else None


def cases_for(config: ReleaseConfig, name: str) -> tuple[list[Case], str] | None:
    """The cases that judge a capability and what they are called, or None where it asks no made suite.

    Raises UsageError, DataError, UnknownName, MissingExtra.
    """
    wanted = config.capabilities[name]
    suite = suite_name(name, wanted)
    if suite is None:
        return None
    if wanted.hard:
        raise UsageError(f"capabilities: {name}: 'hard' is for built-in suites; {suite} has no harder cases")
    if suite.startswith(HARNESS):
        return _harness(name, suite, wanted, config.judge.seed)
    return tailored_cases(config, name, suite, "gate", wanted.cases), suite


def _harness(name: str, suite: str, wanted: CapabilityConfig, seed: int) -> tuple[list[Case], str]:
    plugins.get("scorers", "lm_eval")  # tells the extra to install where the harness is missing
    from quantgate.evaluate import harness_cases

    options = dict(wanted.options)
    if wanted.path is not None:
        options["include_path"] = wanted.path
    found, versions = harness_cases.cases(suite, options, capability=name)
    return visiting_order(found, seed)[: wanted.cases], f"{suite} ({versions})"


def tailored_cases(config: ReleaseConfig, name: str, suite: str, split: Split, count: int) -> list[Case]:
    """``count`` cases of one split, made for the release's model; of a suite of traffic, from its traffic."""
    wanted = config.capabilities[name]
    options = tailored.order_of(suite, wanted.options)
    traffic = _traffic(config, wanted, suite) if tailored.get(suite).of_traffic else []
    if not traffic and wanted.path is not None:
        raise UsageError(f"capabilities: {name}: 'path' is for suites of traffic or of files; leave it out of {suite}")
    place = place_of(config.model, traffic)
    found = tailored.cases(suite, place, options, split=split, count=count, seed=config.judge.seed, capability=name)
    check_cases(found, f"suite '{suite}'")
    return found


def _traffic(config: ReleaseConfig, wanted: CapabilityConfig, suite: str) -> list[Turns]:
    path = wanted.path or config.calibration.traffic
    if path is None:
        raise UsageError(f"{suite}: is made of your traffic; name it under calibration: traffic, or under 'path'")
    if is_folder(Path(path)):
        raise UsageError(
            f"{suite}: {path} is a calibration set, which quantization has seen; name the traffic itself under 'path'"
        )
    return masked_traffic(Path(path))


@lru_cache(maxsize=2)
def _opened(ref: str) -> OpenedModel:
    return open_model(ref)


def place_of(ref: str, traffic: Sequence[Turns] = ()) -> Place:
    """What a suite is made for: the tokenizer, chat template and context of a model."""
    model = _opened(ref)

    def encode(text: str) -> list[int]:
        return [int(one) for one in model.tokenizer.encode(text, add_special_tokens=False)]

    def measure(turns: Turns, tools: Sequence[Tool]) -> int:
        messages, offered = messages_for(model.tokenizer, turns, tools)
        text = model.render(messages, tools=offered)
        return len(model.tokenizer(text, add_special_tokens=not model.tokenizer.chat_template)["input_ids"])

    return Place(encode, measure, model.context, traffic)


def apart(config: ReleaseConfig) -> Callable[[Turns], bool] | None:
    """Which conversations of the traffic calibration leaves to a suite of traffic; None where none is asked."""
    asked = [suite_name(name, wanted) for name, wanted in config.capabilities.items()]
    if not any(suite in tailored.names() and tailored.get(suite).of_traffic for suite in asked if suite):
        return None
    return lambda turns: tailored.held_out(turns) in tailored.HELD_OUT


def refuse(wanted: CapabilityConfig, name: str, what: str) -> None:
    """Raises UsageError where ``what`` needs cases of a capability that a made suite has for its gate alone."""
    suite = suite_name(name, wanted)
    if suite is not None:
        raise UsageError(f"capabilities: {name}: {what} tunes on cases, and {suite} judges only; leave it out there")
