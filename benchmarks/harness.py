"""Time to verdict and tokens a second beside lm-eval's Hugging Face backend, on the same model, prompts and scores.

    python -m benchmarks harness [--quick] [--write]

Both ask the same task file: word problems in the number of GSM8K's test, made by the suite ``math``, as plain text.
The harness asks every model every problem; quantgate asks the baseline once, each variant until its gate is decided.
The two take turns, model by model, since other programs may be at work. Variants are given to the harness as plain
models of the same numbers, because it would run compressed ones slower. Needs lm-eval and accelerate:
pip install 'lm-eval[hf]'.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml

from benchmarks.peers.machine import machine
from benchmarks.tables import Table
from quantgate.engines import Prompt
from quantgate.engines.scripted import ScriptedEngine, last
from quantgate.engines.torch import TorchEngine, open_engine
from quantgate.evaluate import suites
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import BATCH, Side, Task, compare_all
from quantgate.evaluate.evidence import Gate
from quantgate.evaluate.suites import Case
from quantgate.models import REFERENCE, OpenedModel, open_model
from quantgate.models.random import save_random
from quantgate.quantize import Artifact, Recipe, baseline
from quantgate.quantize.load import load_with_paths
from quantgate.quantize.sweep import sweep
from quantgate.stats import judge

TASK, MARK = "word_problems", "Answer: "
RECIPES = (
    Recipe(scheme="W8A16", method="rtn"),
    Recipe(scheme="W4A16", group_size=32, method="rtn"),
    Recipe(scheme="W4A16", method="rtn"),
    Recipe(scheme="W2A16", group_size=32, method="rtn"),
)
MARGIN, ALPHA = 0.05, 0.05
SOONER, FASTER, OVERHEAD_MS = 5.0, 3.0, 2.0  # goals
ROWS = 64  # of a batch, for both
BATCHES = (1, 8, ROWS)  # whose speed is taken
AT_MOST = 12  # batches of a size that are timed


@dataclass(frozen=True)
class Sizes:
    problems: int  # as many as GSM8K's test has
    answer: int  # tokens of an answer where only the budget ends it
    turns: int
    scripted: int  # cases whose overhead is taken


FULL = Sizes(1319, 64, 5, 4000)
QUICK = Sizes(60, 16, 1, 200)


@dataclass(frozen=True)
class Race:
    """One variant: seconds of both, the verdicts of both, and cases that ours asked."""

    name: str
    theirs_s: float
    ours_s: float
    verdicts: tuple[str, str]
    asked: int


def run(*, quick: bool = False, threads: int = 2) -> list[Table]:
    torch.set_num_threads(threads)
    sizes = QUICK if quick else FULL
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        return [
            _verdicts(Path(folder) / "verdicts", sizes, threads),
            _speeds(Path(folder) / "speeds", sizes),
        ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The harness logs, warns and draws bars; its data sets go where nothing else lies."""
    import datasets

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    before = datasets.config.HF_DATASETS_CACHE
    with tempfile.TemporaryDirectory() as cache, warnings.catch_warnings(), open(os.devnull, "w") as null:
        warnings.simplefilter("ignore")
        datasets.config.HF_DATASETS_CACHE = Path(cache)
        datasets.disable_progress_bars()
        try:
            with contextlib.redirect_stderr(null):
                yield
        finally:
            datasets.config.HF_DATASETS_CACHE = before


def _task(folder: Path, model: OpenedModel, count: int) -> Path:
    """A task file and its data: prompts as the chat template writes them, so that both send the same text."""
    folder.mkdir(parents=True)
    cases = suites.cases("math", "gate", count)
    rows = [
        {
            "text": model.render([{"role": m.role, "content": m.content} for m in case.messages]),
            "answer": str(case.answer).rpartition(MARK)[2],
        }
        for case in cases
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    budget = max(case.max_tokens for case in cases)
    task = {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": budget, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "filter_list": [
            {"name": "answer", "filter": [{"function": "regex", "regex_pattern": MARK + "(-?[0-9]+)"},
                                          {"function": "take_first"}]}
        ],
    }  # fmt: skip
    (folder / f"{TASK}.yaml").write_text(yaml.safe_dump(task), "utf-8")
    return folder


def _verdicts(folder: Path, sizes: Sizes, threads: int) -> Table:
    from quantgate.evaluate.harness_cases import cases as harness_cases

    model = open_model(REFERENCE)
    tasks = _task(folder / "tasks", model, sizes.problems)
    cases, _ = harness_cases(f"lm_eval:{TASK}", {"include_path": str(tasks)}, capability="math")
    made = sweep(model, None, list(RECIPES), folder / "artifacts")
    gate = Gate(capability="math", suite=TASK, margin=MARGIN, relative=False, cases=len(cases), alpha=ALPHA,
                pass_alpha=ALPHA)  # fmt: skip
    seconds, first = _harness(_plain(model, baseline(model), folder / "plain-baseline"), tasks)
    plain = open_engine(model, baseline(model))
    base = Side(plain, Answers(folder / "answers", plain.identity))
    print(f"  baseline: lm-eval {seconds:.0f} s", flush=True)
    races = [Race("baseline", seconds, 0.0, ("", ""), 0)]
    for artifact in made:
        theirs_s, scores = _harness(_plain(model, artifact, folder / f"plain-{artifact.name}"), tasks)
        began = time.perf_counter()
        engine = open_engine(model, artifact)
        (found,) = compare_all([Task(gate, cases)], base, Side(engine, Answers(folder / "answers", engine.identity)))
        ours_s = time.perf_counter() - began
        verdict = _exhaustive(gate, cases, first, scores)
        print(f"  {artifact.name}: lm-eval {theirs_s:.0f} s, quantgate {ours_s:.0f} s", flush=True)
        races.append(Race(artifact.name, theirs_s, ours_s, (verdict, found.finding.verdict), found.asked))
    ran = f"lm-eval {version('lm-eval')}, transformers {version('transformers')}. {machine(threads)}"
    return _verdict_table(races, len(cases), ran)


def _plain(model: OpenedModel, artifact: Artifact, folder: Path) -> Path:
    """The same numbers as an ordinary model folder; what it takes to write it is nobody's time."""
    network, _ = load_with_paths(artifact, torch.bfloat16)
    network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def _harness(folder: Path, tasks: Path) -> tuple[float, dict[str, float]]:
    """Seconds to open a model and ask everything, and the score of each prompt."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    began = time.perf_counter()
    opened = HFLM(pretrained=str(folder), dtype="bfloat16", device="cpu", batch_size=ROWS)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = lm_eval.simple_evaluate(model=opened, tasks=[TASK], task_manager=manager, bootstrap_iters=0)
    seconds = time.perf_counter() - began
    return seconds, {one["doc"]["text"]: float(one["exact_match"]) for one in found["samples"][TASK]}


def _exhaustive(gate: Gate, cases: Sequence[Case], first: dict[str, float], second: dict[str, float]) -> str:
    """The verdict of the harness's scores by the same test in the same order, so that only time can differ."""
    from quantgate.evaluate.compare import visiting_order

    order = [case.messages[0].content for case in visiting_order(cases, gate.seed)]
    base, other = [first[text] for text in order], [second[text] for text in order]
    verdict = "inconclusive"
    for end in range(BATCH, len(order) + BATCH, BATCH):
        verdict = judge(base[:end], other[:end], gate.margin, relative=gate.relative, test=gate.test,
                        alpha=gate.alpha, pass_alpha=gate.pass_alpha).verdict  # fmt: skip
        if verdict != "inconclusive":
            break
    return verdict


def _verdict_table(races: Sequence[Race], problems: int, ran: str) -> Table:
    theirs, ours = sum(one.theirs_s for one in races), sum(one.ours_s for one in races)
    same = all(one.verdicts[0] == one.verdicts[1] for one in races)
    rows = [
        (one.name, f"{one.theirs_s:.1f}", f"{one.ours_s:.1f}" if one.asked else "with the first variant",
         str(one.asked or ""), *one.verdicts, "", "")
        for one in races
    ]  # fmt: skip
    met = "met" if theirs >= SOONER * ours and same else "missed"
    rows.append(("all", f"{theirs:.1f}", f"{ours:.1f}", "", "", "the same" if same else "not the same",
                 f"{theirs / ours:.1f}x of at least {SOONER:g}x", met))  # fmt: skip
    return Table(
        ("model", "lm-eval, s", "quantgate, s", "cases asked", "verdict of lm-eval's scores", "of ours", "goal", ""),
        tuple(rows),
        f"Time to verdict, {problems} word problems",
        (
            f"The built-in model, {problems} problems of the suite math as a task file that both read; bfloat16, "
            f"greedy, batches of {ROWS} (lm-eval) and up to 128 (quantgate). Margin {MARGIN * 100:g} points at alpha "
            f"{ALPHA:g}; lm-eval has no verdict, so its scores were given to the same test in the same order.",
            ran,
        ),
    )


def _speeds(folder: Path, sizes: Sizes) -> Table:
    alike = open_model(save_random(folder / "random", hidden=256, layers=6, feed_forward=768, heads=8, kv_heads=4,
                                   vocabulary=1536, max_position_embeddings=2048))  # fmt: skip
    draw = random.Random(0)
    texts = ["".join(chr(draw.randrange(97, 123)) for _ in range(60)) for _ in range(ROWS)]
    rows = [
        _pace("random weights, all alike", alike, texts, batch, sizes.answer, sizes.turns, endless=True)
        for batch in BATCHES
    ]
    model = open_model(REFERENCE)
    cases = suites.cases("math", "tune", ROWS)
    prompts = [model.render([{"role": m.role, "content": m.content} for m in case.messages]) for case in cases]
    budget = max(case.max_tokens for case in cases)
    rows += [
        _pace("built-in model, word problems", model, prompts, batch, budget, sizes.turns, endless=False)
        for batch in BATCHES
    ]
    rows.append(_overhead(folder / "scripted", sizes.scripted))
    return Table(
        ("what", "lm-eval", "quantgate", "ratio", "goal", ""),
        tuple(rows),
        "Generated tokens a second at equal batches, and what a case costs beside its answers",
        (
            "A batch of 1 is what lm-eval takes where nothing is said.",
            f"Medians of {sizes.turns} turns, in which the two follow each other; ratios are taken within a turn.",
        ),
    )


def _pace(
    what: str, model: OpenedModel, every: Sequence[str], batch: int, budget: int, turns: int, *, endless: bool
) -> tuple[str, ...]:
    """The harness's ``generate_until`` and our engine on the same plain texts; ``endless``: the budget alone ends."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    texts = every[: AT_MOST * batch]
    engine: TorchEngine = open_engine(model, baseline(model), rows=batch)
    peer: Any = HFLM(pretrained=engine.network, tokenizer=model.tokenizer, device="cpu", batch_size=batch)
    settings = {"until": ["\n\n"], "max_gen_toks": budget, "do_sample": False}
    if endless:
        engine.decoder.stops = torch.tensor([], dtype=torch.long)
        engine.network.generation_config.eos_token_id = None
    prompts = [Prompt(turns=(("user", text),), plain=True, stop=("\n\n",), max_tokens=budget) for text in texts]
    requests = [Instance("generate_until", {}, (text, dict(settings)), 0) for text in texts]
    made: list[Any] = []

    def ours() -> None:
        made[:] = engine.generate(prompts)

    def theirs() -> None:
        peer.generate_until(requests, disable_tqdm=True)

    ours()
    theirs()
    paces = []
    for _ in range(turns):
        paces.append((_seconds(theirs), _seconds(ours)))
    tokens = sum(one.tokens for one in made)
    ratio = median(their / own for their, own in paces)
    return (
        f"{what}, batch of {batch}, tokens/s",
        f"{tokens / median(their for their, _ in paces):.0f}",
        f"{tokens / median(own for _, own in paces):.0f}",
        f"{ratio:.2f}x ({min(a / b for a, b in paces):.2f}x to {max(a / b for a, b in paces):.2f}x)",
        f"at least {FASTER:g}x",
        "met" if ratio >= FASTER else "missed",
    )


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _overhead(folder: Path, count: int) -> tuple[str, ...]:
    """Milliseconds a case takes beside both answers: journals on disk, scores, pairs and looks at the test."""
    cases = suites.cases("math", "gate", count)
    answers = {case.messages[-1].content: str(case.answer) for case in cases}
    spent = 0.0

    class Timed(ScriptedEngine):
        def generate(self, prompts: Sequence[Prompt]) -> list[Any]:
            nonlocal spent
            began = time.perf_counter()
            found = super().generate(prompts)
            spent += time.perf_counter() - began
            return list(found)

    engines = [Timed(lambda prompt: answers[last(prompt)], weights=name) for name in ("one", "two")]
    sides = [Side(engine, Answers(folder / "answers", engine.identity)) for engine in engines]
    gate = Gate(capability="math", suite="math", margin=0.03, relative=True, cases=count, alpha=0.05, pass_alpha=0.05)
    began = time.perf_counter()
    compare_all([Task(gate, cases)], *sides, exhaustive=True)
    each = (time.perf_counter() - began - spent) / count * 1e3
    return (
        f"what a case costs beside its two answers, {count} cases", "", f"{each:.2f} ms", "",
        f"at most {OVERHEAD_MS:g} ms", "met" if each <= OVERHEAD_MS else "missed",
    )  # fmt: skip
