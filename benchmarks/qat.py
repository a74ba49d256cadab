"""How much of the KL gap training closes: the best post-training variant against QAT, on cases that neither saw.

    python -m benchmarks qat [--quick] [--write]

Of each scheme: every post-training method, and QAT from the one that the options name; all of them calibrated on the
same conversations. Which state of a training run is kept, the suites' tune split decides. What is shown is measured on
the gate split: KL to the baseline over the answers' tokens, which decides, over all tokens, and answers given word for
word. A share of the gap is 1 - KL(QAT) / KL(best post-training), since the baseline's KL is 0; its interval is a
bootstrap over documents. Finished variants stay in runs/bench-qat; a killed run goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.tables import Table
from quantgate.calibrate import choose
from quantgate.evaluate import suites
from quantgate.models import REFERENCE, OpenedModel, open_model
from quantgate.pipeline.cases import suite_conversations
from quantgate.quantize import Artifact, Recipe, baseline, load_dequantized, open_artifact
from quantgate.quantize.sweep import sweep
from quantgate.records import digest_of, write_whole
from quantgate.stats import judge
from quantgate.train import Row
from quantgate.train.data import training_set
from quantgate.train.options import QatOptions
from quantgate.train.qat import qat
from quantgate.train.reference.data import Batch, Document, batches, of_draft

FOLDER = Path("runs") / "bench-qat"
METHODS: dict[str, tuple[str, dict[str, object]]] = {
    "rtn": ("rtn", {}),
    "rtn, clipped": ("rtn", {"clip": "mse"}),
    "hqq": ("hqq", {}),
    "awq": ("awq", {}),
    "awq, gptq": ("awq", {"rounding": "gptq"}),
    "gptq": ("gptq", {}),
    "gptq, inputs": ("gptq", {"propagate": "inputs"}),
    "gptq, corrected": ("gptq", {"propagate": "corrected"}),
}
FOR_INPUTS: dict[str, tuple[str, dict[str, object]]] = {  # of schemes that round inputs too
    "smoothquant": ("smoothquant", {}),
    "smoothquant, gptq": ("smoothquant", {"rounding": "gptq"}),
}
COMMON: dict[str, object] = {
    "documents": 9000, "max_tokens": 704, "batch_tokens": 2048, "prompts": 0.3, "task": 0, "temperature": 2,
    "average": 0.98, "final_rate": 0, "evaluate_every": 75, "patience": 20,
}  # fmt: skip
SCHEMES: dict[str, dict[str, object]] = {  # QAT's options: each starts from what is best, or cheap, before it
    "W3A16": {"steps": 1500, "learning_rate": 6e-4, "start_options": {"propagate": "corrected"}},
    "W4A4": {"steps": 1200, "learning_rate": 6e-4, "start": "awq", "start_options": {"rounding": "gptq"}},
    "W2A16": {"steps": 400, "learning_rate": 8e-4},
}
SAMPLES, CASES, LONGEST = 512, 120, 700  # calibration conversations; gate cases of a suite, and their tokens at most
WHOLE = 40  # gate cases of a suite of which all tokens count
MARGIN, ALPHA, DRAWS = 0.10, 0.05, 2000
QUICK: dict[str, object] = {"steps": 4, "reconstruct": 2, "documents": 64, "tune": 16, "evaluate_every": 2}


@dataclass(frozen=True)
class Measured:
    """Of every gate case: KL summed over the tokens that count, how many these are, and whether the answer is right."""

    name: str
    suite: list[str]
    kl: list[float]
    tokens: list[int]
    right: list[int]

    @property
    def mean(self) -> float:
        return sum(self.kl) / sum(self.tokens)

    def bounds(self) -> tuple[float, float]:
        return _bounds(_drawn(self))


def run(*, quick: bool, threads: int) -> list[Table]:
    """Two tables: gaps, and capabilities."""
    torch.set_num_threads(threads)
    folder = FOLDER / "quick" if quick else FOLDER
    model = open_model(REFERENCE)
    gate, whole = Gate(model, 6 if quick else CASES), Gate(model, 4 if quick else WHOLE, everywhere=True)
    asked = choose(model, suite_conversations(SAMPLES, 0), source="the suites' calibrate split",
                   samples=32 if quick else SAMPLES, max_tokens=512, seed=0)  # fmt: skip
    gaps, capabilities = list[tuple[str, ...]](), list[tuple[str, ...]]()
    for name, more in SCHEMES.items():
        options = QatOptions.model_validate(COMMON | more | (QUICK if quick else {}))
        best, others = _post_training(model, name, asked.ids, gate, folder, quick)
        artifact, minutes = _trained(model, name, options, asked.ids, folder)
        found = gate.measure(artifact, folder)
        start = open_artifact(folder / "post-training" / best.name)
        everywhere = _closed(whole.measure(start, folder), whole.measure(artifact, folder))
        gaps.append(_gap(name, best, found, everywhere, artifact, minutes, others))
        capabilities += _capabilities(name, gate, best, found)
    return [_gap_table(gaps, gate, whole), _capability_table(capabilities, gate)]


def _post_training(
    model: OpenedModel, name: str, ids: list[list[int]], gate: Gate, folder: Path, quick: bool
) -> tuple[Measured, list[Measured]]:
    """The best one, and all."""
    every = METHODS | (FOR_INPUTS if name.endswith("A4") else {})
    chosen = {key: every[key] for key in ("rtn", "gptq")} if quick else every
    recipes = [
        Recipe.model_validate({"scheme": name, "method": method, "options": told, "label": f"{name}-{_slug(key)}"})
        for key, (method, told) in chosen.items()
    ]
    found = [gate.measure(artifact, folder) for artifact in sweep(model, ids, recipes, folder / "post-training")]
    return min(found, key=lambda one: one.mean), found


def _slug(name: str) -> str:
    return name.replace(", ", "-")


def _trained(
    model: OpenedModel, name: str, options: QatOptions, ids: list[list[int]], folder: Path
) -> tuple[Artifact, float]:
    """The artifact and how many minutes its steps took, as the run told them."""
    data = training_set(model, suites=suites.names(), options=options)
    seconds = [0.0]

    def tell(stage: str, done: int, total: int, row: Row | None = None) -> None:
        if row is not None:
            seconds[0] = row.seconds
        if (row is None and done == total) or (row is not None and row.kl is not None):
            shown = f" loss {row.loss:.4f}, tune KL {row.kl:.5f}" if row is not None else ""
            print(f"{time.strftime('%H:%M:%S')} {name} {stage} {done}/{total}{shown}", flush=True)

    artifact = qat(model, Recipe(scheme=name, method="qat"), options, data, folder, samples=ids, tell=tell)
    kept = folder / f"{artifact.name}.seconds.json"
    if seconds[0]:
        write_whole(kept, json.dumps(seconds[0]).encode())
    return artifact, (json.loads(kept.read_bytes()) if kept.is_file() else 0.0) / 60


class Gate:
    """Cases of the gate split, and what the baseline says to them."""

    def __init__(self, model: OpenedModel, each: int, *, everywhere: bool = False) -> None:
        """``everywhere``: all tokens count, not those of answers alone."""
        self.model, self.everywhere = model, everywhere
        drawn = _documents(model, each, 0.5 if everywhere else 0)
        self.documents = [one for one in drawn if len(one.ids) <= LONGEST]
        self.documents.sort(key=lambda one: len(one.ids))
        self.batches = batches(self.documents, model.tokenizer.pad_token_id, 2048)
        self._exact = [logits.log_softmax(-1) for logits in self._logits(baseline(model))]
        self.right = [right for batch, p in zip(self.batches, self._exact, strict=True) for right in _right(batch, p)]

    @property
    def tokens(self) -> int:
        return sum(map(len, self._exact))

    def measure(self, artifact: Artifact, folder: Path) -> Measured:
        """Asked once; what came out lies in ``folder``/measured."""
        asked = [artifact.manifest.digest, [one.ids for one in self.documents], "all" if self.everywhere else "answers"]
        key = digest_of(asked)[7:23]
        file = folder / "measured" / f"{artifact.name}-{key}.json"
        if file.is_file():
            return Measured(**json.loads(file.read_bytes()))
        kl, tokens, right = list[float](), list[int](), list[int]()
        for batch, p, logits in zip(self.batches, self._exact, self._logits(artifact), strict=True):
            q = logits.log_softmax(-1)
            off = (p.exp() * (p - q)).sum(-1)
            right += _right(batch, q)
            for row in range(len(batch.ids)):
                counted = batch.owner == row
                if not self.everywhere:
                    counted &= batch.weights == 1
                kl.append(float(off[counted].sum()))
                tokens.append(int(counted.sum()))
        found = Measured(artifact.name, [one.suite for one in self.documents], kl, tokens, right)
        write_whole(file, json.dumps(vars(found)).encode())
        return found

    @torch.no_grad()
    def _logits(self, artifact: Artifact) -> Iterator[Tensor]:
        network = load_dequantized(artifact, torch.float32)
        for batch in self.batches:
            yield network(input_ids=batch.ids, use_cache=False).logits[batch.answered].float()


def _documents(model: OpenedModel, each: int, prompts: float) -> Iterator[Document]:
    for name in suites.names():
        for case in suites.cases(name, "gate", each, seed=1):
            turns = [(message.role, message.content) for message in case.messages]
            draft = suites.Draft(case.id, turns, case.answer or "", case.scorer, case.reference)
            yield of_draft(model.tokenizer, name, draft, prompts)


def _right(batch: Batch, logits: Tensor) -> list[int]:
    wrong = set(batch.owner[(logits.argmax(-1) != batch.targets) & (batch.weights == 1)].tolist())
    return [int(row not in wrong) for row in range(len(batch.ids))]


def _drawn(*measured: Measured) -> list[np.ndarray]:
    """Means of each over the same draws of documents."""
    rng, size = np.random.default_rng(0), len(measured[0].kl)
    rows = rng.integers(0, size, (DRAWS, size))
    return [np.array(one.kl)[rows].sum(1) / np.array(one.tokens)[rows].sum(1) for one in measured]


def _bounds(drawn: list[np.ndarray], of: Callable[..., np.ndarray] = lambda one: one) -> tuple[float, float]:
    low, high = np.quantile(of(*drawn), [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def _gap(
    name: str,
    best: Measured,
    found: Measured,
    everywhere: str,
    artifact: Artifact,
    minutes: float,
    others: list[Measured],
) -> tuple[str, ...]:
    told = artifact.manifest.training
    assert told is not None
    second = sorted(one.mean for one in others)[1]
    return (
        name,
        f"{best.name.removeprefix(name + '-')} {_kl(best)} (next {second:.4f})",
        _kl(found),
        _closed(best, found),
        "reached" if 1 - found.mean / best.mean >= 0.5 else "missed",
        everywhere,
        f"{told.before:.4f} to {told.after:.4f}",
        f"{told.steps} (kept {told.best}), {told.tokens / 1e3:.0f} k, {minutes:.1f} min",
    )


def _closed(best: Measured, found: Measured) -> str:
    """The share of the gap between the baseline, whose KL is 0, and ``best`` that ``found`` closes."""
    low, high = _bounds(_drawn(best, found), lambda before, after: 1 - after / before)
    return f"{1 - found.mean / best.mean:.0%} ({low:.0%} to {high:.0%})"


def _kl(one: Measured) -> str:
    low, high = one.bounds()
    return f"{one.mean:.4f} ({low:.4f} to {high:.4f})"


def _gap_table(rows: list[tuple[str, ...]], gate: Gate, whole: Gate) -> Table:
    return Table(
        (
            "scheme",
            "best post-training: KL",
            "QAT: KL",
            "gap closed",
            "half",
            "over all tokens",
            "tune KL",
            "steps, tokens, time",
        ),
        tuple(rows),
        title="KL to the baseline on the gate split",
        notes=(
            f"{len(gate.documents)} cases, {gate.tokens} tokens of answers, 95% intervals over cases. Over all tokens: "
            f"{whole.tokens} of {len(whole.documents)} of these cases, prompts included.",
        ),
    )


def _capabilities(name: str, gate: Gate, best: Measured, found: Measured) -> Iterator[tuple[str, ...]]:
    for suite in suites.names():
        at = [index for index, one in enumerate(found.suite) if one == suite]
        exact = [float(gate.right[index]) for index in at]
        sides = [[float(one.right[index]) for index in at] for one in (best, found)]
        verdicts = [judge(exact, side, MARGIN, alpha=ALPHA).verdict for side in sides]
        yield (
            name, suite, f"{sum(exact):.0f}/{len(at)}",
            *(f"{sum(side):.0f}, {verdict}" for side, verdict in zip(sides, verdicts, strict=True)),
            "turned" if verdicts[0] != "pass" and verdicts[1] == "pass" else "",
        )  # fmt: skip


def _capability_table(rows: list[tuple[str, ...]], gate: Gate) -> Table:
    return Table(
        ("scheme", "capability", "baseline right", "best post-training", "QAT", ""),
        tuple(rows),
        title="Answers word for word on the gate split",
        notes=(
            f"Judged against the baseline by the e-process at a relative margin of {MARGIN:.0%}, level {ALPHA}; what a "
            "greedy answer would be, since a wrong token anywhere counts as wrong.",
        ),
    )
