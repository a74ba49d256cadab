"""What GPTQ gains from each variant's own inputs: mean KL to the baseline on held-out text, as a Markdown table.

    python -m benchmarks.propagation --tokens 16384
    python -m benchmarks.propagation --model FOLDER --text FILE --schemes W4A16-channel,W3A16-g32 --keep down_proj

Without --text, calibration sees conversations of the suites' calibrate split and KL is counted over the answers of
their tune split; with it, documents of the file (cut at ``<|endoftext|>``), the first half and the second, all tokens.
A run that was killed goes on in the same --out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from quantgate.calibrate import choose
from quantgate.evaluate import suites
from quantgate.formats import scheme
from quantgate.models import OpenedModel, open_model
from quantgate.quantize import Artifact, Recipe, baseline, load_dequantized
from quantgate.quantize.sweep import sweep

REFERENCE = Path(__file__).parents[1] / "src" / "quantgate" / "models" / "reference"
WAYS: dict[str, dict[str, object]] = {
    "plain": {},
    "inputs": {"propagate": "inputs"},
    "corrected": {"propagate": "corrected", "correction": 1.0},
    "inputs, block": {"propagate": "inputs", "steps": "block"},
    "corrected, block": {"propagate": "corrected", "correction": 1.0, "steps": "block"},
    "corrected 0.75": {"propagate": "corrected", "correction": 0.75},
    "corrected 0.5": {"propagate": "corrected", "correction": 0.5},
    "corrected 0.25": {"propagate": "corrected", "correction": 0.25},
    "corrected, damped 0.1": {"propagate": "corrected", "correction": 1.0, "correction_damping": 0.1},
    "corrected, damped 1": {"propagate": "corrected", "correction": 1.0, "correction_damping": 1.0},
}
HELD_OUT = 16384  # tokens
LENGTH = 500  # tokens of a sample, at most
Sample = tuple[list[int], int]  # token ids, and where what is counted starts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.propagation", description=__doc__)
    parser.add_argument("--model", default=str(REFERENCE))
    parser.add_argument("--tokens", type=int, default=16384, help="of calibration")
    parser.add_argument("--schemes", default="W4A16,W4A16-g32,W3A16,W3A16-g64,W2A16-g32")
    parser.add_argument("--ways", default="plain;inputs;corrected", help="; between them: " + "; ".join(WAYS))
    parser.add_argument("--keep", default="", help="layers to leave alone, commas between them")
    parser.add_argument("--text", type=Path, help="a text file instead of the suites")
    parser.add_argument("--out", type=Path, required=True, help="folder for the artifacts")
    told = parser.parse_args()
    torch.set_num_threads(1)
    model = open_model(told.model)
    shown, held = _texts(model, told.text, told.tokens) if told.text else _conversations(model, told.tokens)
    ways, keep = told.ways.split(";"), tuple(told.keep.split(",")) if told.keep else ()
    recipes = [
        _recipe(name, f"{name}-{'-'.join(way.replace(',', '').split())}", WAYS[way], keep)
        for name in told.schemes.split(",")
        for way in ways
    ]
    print(f"calibration {sum(len(ids) for ids, _ in shown)} tokens, held out {sum(len(ids) for ids, _ in held)}")
    made = sweep(model, [ids for ids, _ in shown], recipes, told.out)
    before = _log_probabilities(load_dequantized(baseline(model), torch.float32), held)
    print("| scheme | " + " | ".join(ways) + " |\n|---|" + "---|" * len(ways), flush=True)
    for at, name in enumerate(told.schemes.split(",")):
        row = made[at * len(ways) : (at + 1) * len(ways)]
        found = [_divergence(artifact, held, before) for artifact in row]
        print(f"| {name} | " + " | ".join(f"{one:.5f} ({one / found[0]:.2f})" for one in found) + " |", flush=True)


def _recipe(name: str, label: str, options: dict[str, object], keep: tuple[str, ...]) -> Recipe:
    grid = scheme(name).weights
    size = "channel" if grid is None or grid.group_size is None else grid.group_size
    data = {"scheme": name.split("-")[0], "group_size": size, "method": "gptq", "options": options}
    return Recipe.model_validate(data | {"keep": keep, "label": label})


def _conversations(model: OpenedModel, tokens: int) -> tuple[list[Sample], list[Sample]]:
    return _some(_suites(model, "calibrate"), tokens), _some(_suites(model, "tune"), HELD_OUT)


def _suites(model: OpenedModel, split: suites.Split, each: int = 200) -> Iterator[Sample]:
    for cases in zip(*(suites.cases(name, split, each, seed=0) for name in suites.names()), strict=True):
        for case in cases:
            turns = tuple((message.role, message.content) for message in case.messages)
            whole = (*turns, ("assistant", case.answer or ""))
            (ids,) = choose(model, [whole], source=split, samples=1, max_tokens=LENGTH, seed=0).ids
            (asked,) = choose(model, [turns], source=split, samples=1, max_tokens=LENGTH, seed=0).ids
            if len(asked) < len(ids):
                yield ids, len(asked)


def _texts(model: OpenedModel, file: Path, tokens: int) -> tuple[list[Sample], list[Sample]]:
    documents = [one.strip() for one in file.read_text(encoding="utf-8").split("<|endoftext|>") if one.strip()]
    length = min(LENGTH, model.context)
    ids = [model.tokenizer.encode(one)[:length] for one in documents]
    half = len(ids) // 2
    return _some(((one, 1) for one in ids[:half]), tokens), _some(((one, 1) for one in ids[half:]), HELD_OUT)


def _some(samples: Iterable[Sample], tokens: int) -> list[Sample]:
    """The first ones, up to ``tokens`` in all."""
    found, total = list[Sample](), 0
    for ids, start in samples:
        total += len(ids)
        if total > tokens:
            break
        found.append((ids, start))
    return found


@torch.inference_mode()
def _log_probabilities(network: torch.nn.Module, held: list[Sample]) -> list[Tensor]:
    """[counted positions, vocabulary] of each sample: those whose next token is counted."""
    logits = (network(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1] for ids, start in held)
    return [one.float().log_softmax(-1) for one in logits]


def _divergence(artifact: Artifact, held: list[Sample], before: list[Tensor]) -> float:
    """Mean KL to the baseline in nats a token."""
    after = _log_probabilities(load_dequantized(artifact, torch.float32), held)
    lost = sum(float((p.exp() * (p - q)).sum()) for p, q in zip(before, after, strict=True))
    return lost / sum(map(len, before))


if __name__ == "__main__":
    main()
