"""Where a variant drifts, without a verdict: what ``quantgate drift`` runs, on running text or on suites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate.errors import Stopped, UsageError
from quantgate.evaluate import suites
from quantgate.evaluate.files import read_suite
from quantgate.evaluate.suites import Case
from quantgate.models import OpenedModel, open_model
from quantgate.pipeline.lock import alone_in
from quantgate.pipeline.runtimes import TORCH, check_drafts, engine_for
from quantgate.pipeline.two_models import open_pair
from quantgate.report.drifts import DriftReport, drift_page
from quantgate.variant_config import RuntimeConfig

if TYPE_CHECKING:
    from quantgate.engines import Engine
    from quantgate.evaluate.drift.passages import Passage
    from quantgate.evaluate.drift_record import Drift
    from quantgate.quantize import Artifact

Progress = Callable[[str, int, int, str], None]
STAGE = "measuring the drift"


def measure_drift(
    baseline: str,
    variant: str,
    *,
    texts: Sequence[Path | str] = (),
    suite: Sequence[str] = (),
    cases: int = 160,
    context: int | None = None,
    tokens: int = 50_000,
    seed: int = 0,
    engine: str = TORCH,
    runtime: RuntimeConfig | None = None,
    out: Path | str = Path("runs/drift"),
    progress: Progress | None = None,
) -> DriftReport:
    """The drift of a variant on running ``texts`` or on known answers of suites; all built-in ones if none is named.

    Text is cut into windows of ``context`` tokens, by default as many as the model was made for, until ``tokens`` are
    scored; of a built-in suite the tune split is used, ``cases`` in all. ``out`` keeps what is measured, part by part,
    so a stopped measurement goes on; it gets drift.json and drift.html. Raises UsageError, DataError and ModelError
    before anything slow, EngineError where logits cannot be compared, Stopped on Ctrl-C.
    """
    if texts and suite:
        raise UsageError("drift: give texts or suites, not both; their positions do not belong in one table")
    folder = Path(out)
    asked = [] if texts else _cases(suite, cases, seed)
    model = open_model(baseline)
    width = _context(model, context)
    pair = open_pair(variant, model)
    if pair[0].tokenizer_digest != model.tokenizer_digest:
        raise UsageError(
            f"drift: {variant} has another tokenizer than {model.ref}, so no token can be compared with it"
        )
    passages = _windows(model, texts, width, tokens, seed)
    check_drafts(model, [runtime])

    def tell(done: int, parts: int) -> None:
        if progress:
            progress(STAGE, done, parts, "")

    try:
        with alone_in(folder):
            sides = _sides(model, pair, engine, runtime, folder)
            drift = _measured(sides, passages, asked, tell, folder / "parts")
            report = DriftReport(
                baseline=baseline,
                variant=variant,
                engines=(sides[0].identity.key, sides[1].identity.key),
                measured_on=tuple(Path(one).name for one in texts) or tuple(dict.fromkeys(one.suite for one in asked)),
                context=width if texts else None,
                drift=drift,
            )
            _write(report, folder)
    except KeyboardInterrupt:
        raise Stopped(f"stopped; what is measured is kept in {folder}, and the same command goes on from it") from None
    return report


def _cases(suite: Sequence[str], count: int, seed: int) -> list[Case]:
    """Cases with known answers: a file's own, or of the tune split, which no gate asks."""
    named, found = tuple(suite) or suites.names(), list[Case]()
    for one in named:
        if one.endswith(".jsonl"):
            found += read_suite(Path(one), Path(one).stem)
        else:
            found += suites.cases(one, "tune", max(1, count // len(named)), seed=seed)
    known = [case for case in found if case.answer is not None]
    if not known:
        raise UsageError("drift: no case has a known answer, which drift is measured on; add 'answer' to the cases")
    return known


def _context(model: OpenedModel, context: int | None) -> int:
    if context is not None and context > model.context:
        raise UsageError(f"drift: {model.ref} was made for {model.context} tokens, not {context}; give at most that")
    return context or model.context


def _windows(model: OpenedModel, texts: Sequence[Path | str], context: int, most: int, seed: int) -> list[Passage]:
    if not texts:
        return []
    from quantgate.evaluate.drift.texts import read_documents, windows

    def encode(text: str) -> list[int]:
        ids = model.tokenizer(text, verbose=False)["input_ids"]  # which would warn of documents longer than the context
        return [int(one) for one in ids]

    documents = [(Path(one).name, read_documents(Path(one))) for one in texts]
    return windows(documents, encode, context, start=model.tokenizer.bos_token_id, most=most, seed=seed)


def _sides(
    model: OpenedModel, variant: tuple[OpenedModel, Artifact], engine: str, runtime: RuntimeConfig | None, out: Path
) -> tuple[Engine, Engine]:
    from quantgate.quantize import baseline as as_baseline

    return engine_for(model, as_baseline(model), TORCH, out)[0], engine_for(*variant, engine, out, runtime)[0]


def _measured(
    sides: tuple[Engine, Engine],
    passages: Sequence[Passage],
    cases: Sequence[Case],
    tell: Callable[[int, int], None],
    keep: Path,
) -> Drift:
    from quantgate.evaluate.drift import drift_of, measure

    if not passages:
        return drift_of(*sides, cases, tell, keep=keep)
    return measure(sides[0], [sides[1]], passages, tell, keep=keep)[0]


def _write(report: DriftReport, out: Path) -> None:
    from quantgate.records import write_whole

    report.save(out / "drift.json")
    write_whole(out / "drift.html", drift_page(report).encode())
