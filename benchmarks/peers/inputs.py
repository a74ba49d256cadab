"""The models, the calibration rows that everybody gets, and the held-out text that everybody is judged on."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from quantgate import calibrate
from quantgate.engines import Engine
from quantgate.errors import DataError
from quantgate.evaluate import suites
from quantgate.evaluate.drift import batches
from quantgate.models import REFERENCE, REFERENCE_FOLDER, OpenedModel, open_model
from quantgate.models.random import save_random
from quantgate.pipeline.cases import suite_conversations
from quantgate.records import write_whole

SHARED = Path(__file__).parents[3] / "shared"
STORIES, STORY_TEXT = SHARED / "models" / "stories260K", SHARED / "data" / "tinystories" / "tinystories_sample.txt"
END_OF_STORY = "<|endoftext|>"

Batches = list[tuple[Tensor, Tensor]]  # ids [rows, length] and the mask of positions whose next token is judged


@dataclass(frozen=True)
class Sizes:
    """``rows`` of ``length`` calibration tokens; ``held_out`` conversations a suite, or rows of text."""

    rows: int = 64
    length: int = 256
    held_out: int = 24


@dataclass(frozen=True)
class Subject:
    """A model that quality is compared on. ``held_out`` needs the baseline's engine, which has the chat template."""

    name: str
    model: OpenedModel
    rows: list[list[int]]
    held_out: Callable[[Engine], Batches]
    about: str

    def ids(self, cache: Path) -> Path:
        """The calibration rows as a JSON file."""
        return write_ids(self.rows, cache / "inputs" / f"{self.name}.json")


def reference(sizes: Sizes) -> Subject | None:
    """The built-in model; calibrate-split conversations, judged on known answers of the tune split."""
    if not (REFERENCE_FOLDER / "config.json").is_file():
        return None
    model = open_model(REFERENCE)
    turns = suite_conversations(4 * sizes.rows, 0)
    chosen = calibrate.choose(
        model, turns, source="suites' calibrate split", samples=len(turns), max_tokens=model.context, seed=0
    )
    random.Random(0).shuffle(chosen.ids)  # so that the rows hold every suite

    def held_out(engine: Engine) -> Batches:
        return batches(engine, [case for name in suites.names() for case in suites.cases(name, "tune", sizes.held_out)])

    rows = cut(chosen.ids, sizes.rows, sizes.length)
    about = f"calibrated on the suites' calibrate split, judged on {sizes.held_out} tune-split answers of each suite"
    return Subject("reference", model, rows, held_out, about)


def stories(sizes: Sizes) -> Subject | None:
    """stories260K, which others trained: calibrated on TinyStories, judged on stories further on."""
    if not (STORIES / "config.json").is_file() or not STORY_TEXT.is_file():
        return None
    model = open_model(STORIES)
    text = STORY_TEXT.read_text("utf-8")
    half = text.index("\n", len(text) // 2)
    rows = 4 * sizes.held_out
    seen, unseen = (_stories(model, part, max(rows, sizes.rows) * sizes.length) for part in (text[:half], text[half:]))

    def held_out(_engine: Engine) -> Batches:
        ids = torch.tensor(cut(unseen, rows, sizes.length))
        judged = torch.ones_like(ids, dtype=torch.bool)
        judged[:, -1] = False  # what follows it is not there
        return [(ids, judged)]

    about = f"calibrated on TinyStories, judged on {rows} x {sizes.length} tokens of other stories"
    return Subject("stories260K", model, cut(seen, sizes.rows, sizes.length), held_out, about)


def _stories(model: OpenedModel, text: str, tokens: int) -> list[list[int]]:
    """The stories of ``text``, as token ids, until there are enough."""
    found, have = list[list[int]](), 0
    for story in text.split(END_OF_STORY):
        if have >= tokens:
            break
        found.append(model.encode(story.strip()))
        have += len(found[-1])
    return found


def cut(samples: Sequence[Sequence[int]], rows: int, length: int) -> list[list[int]]:
    """The samples one behind the other, cut into ``rows`` rows of ``length``: some tools drop rows of other lengths.

    Raises DataError when there are too few tokens.
    """
    joined = list(chain.from_iterable(samples))
    if len(joined) < rows * length:
        raise DataError(f"{len(joined)} tokens of text; {rows} rows of {length} need {rows * length}, take fewer rows")
    return [joined[at * length : (at + 1) * length] for at in range(rows)]


@dataclass(frozen=True)
class Shape:
    """A Llama with random weights, for time and memory alone."""

    hidden: int
    layers: int
    feed_forward: int
    heads: int
    kv_heads: int
    vocabulary: int

    @property
    def name(self) -> str:
        return f"random-{self.hidden}x{self.layers}"

    def saved(self, cache: Path) -> OpenedModel:
        """Written once."""
        folder = cache / "models" / f"{self.name}-{self.feed_forward}-{self.heads}-{self.kv_heads}-{self.vocabulary}"
        if not (folder / "tokenizer_config.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            save_random(
                folder,
                hidden=self.hidden,
                layers=self.layers,
                feed_forward=self.feed_forward,
                heads=self.heads,
                kv_heads=self.kv_heads,
                vocabulary=self.vocabulary,
                max_position_embeddings=1024,
            )
        return open_model(folder)

    def ids(self, cache: Path, rows: int, length: int) -> Path:
        """Random token ids, the same every time."""
        draw = random.Random(0)
        made = [[draw.randrange(256) for _ in range(length)] for _ in range(rows)]
        return write_ids(made, cache / "inputs" / f"{self.name}-{rows}x{length}.json")


def write_ids(rows: list[list[int]], path: Path) -> Path:
    return write_whole(path, json.dumps(rows).encode())
