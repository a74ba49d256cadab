"""What the models of a release are trained on, and that no gate asks it: for the command and for a whole run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quantgate.calibrate import Chosen
from quantgate.evaluate import suites
from quantgate.evaluate.overlap import Overlaps
from quantgate.evaluate.suites import Case
from quantgate.models import OpenedModel
from quantgate.pipeline import published_suites
from quantgate.release_config import ReleaseConfig
from quantgate.train import TrainingSet, data
from quantgate.train.options import TrainOptions

FILE = "training-overlap.json"


def training_data(config: ReleaseConfig, model: OpenedModel, chosen: Chosen, options: TrainOptions) -> TrainingSet:
    """The calibration set's traffic, and the train split of the built-in suites that the release asks.

    Of published suites, the training rows that calibration has. A capability of a file has cases alone, and trains
    nothing. Raises DataError where nothing is left to train on, ModelError for a model without a chat template.
    """
    return data.training_set(
        model,
        turns=chosen.conversations if config.calibration.traffic is not None else (),
        others=_published(config),
        suites=[name for name, one in config.capabilities.items() if one.suite is None and name in suites.names()],
        options=options,
    )


def held_against(config: ReleaseConfig, found: TrainingSet, cases: Sequence[Case], out: Path) -> Overlaps:
    """Compare the training set with the cases of the gates. Raises Overlap; ``out`` then gets all pairs."""
    return data.check_overlap(found, cases, allowed=config.calibration.allow_overlap, record=out / FILE)


def _published(config: ReleaseConfig) -> dict[str, list[tuple[tuple[str, str], ...]]]:
    return {
        name: [
            (*((message.role, message.content) for message in case.messages), ("assistant", case.answer or ""))
            for case in cases
        ]
        for name, cases in published_suites.training_cases(config, "calibrate").items()
    }
