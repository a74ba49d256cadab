"""One walk over the decoder blocks makes all variants.

Per block: load its weights, run the calibration set through it once while H is collected for every distinct input,
solve every layer for every recipe (those of one method and one input together), write what was solved, release. So
memory holds one block, its statistics and the activations, however deep the model is, and ten variants read the model
as often as one.

The activations are those of the full-precision model for every recipe: that is what makes the statistics shareable.
A recipe that asks for those of its own quantized blocks pays for them itself (``propagate``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from quantgate.errors import Stopped
from quantgate.models import OpenedModel
from quantgate.quantize.artifact import Artifact, baseline, identity, open_artifact
from quantgate.quantize.assemble import assemble, ready
from quantgate.quantize.experts import Crowd
from quantgate.quantize.gguf.blocks import package
from quantgate.quantize.hadamard import Rotation
from quantgate.quantize.heap import keep_heap_small, release_freed
from quantgate.quantize.journal import Journal, refuse_strangers
from quantgate.quantize.kv_cache import Ranges, attention_of
from quantgate.quantize.manifest import Calibration, Recipe, tool_version
from quantgate.quantize.outside import Outside
from quantgate.quantize.past import Past
from quantgate.quantize.pieces import Pieces
from quantgate.quantize.plan import Variant, plan
from quantgate.quantize.propagate import Streams, propagated
from quantgate.quantize.reuse import Reuse
from quantgate.quantize.shards import SHARD_BYTES
from quantgate.quantize.solve import solve
from quantgate.quantize.statistics import Batch, Statistics, batches
from quantgate.records import digest_of

Progress = Callable[[str, int, int], None]  # stage ("check", "quantize", "write"), done, total
PROBE_TOKENS = 64  # real ones, of the longest sample: what saturates on them is no place for channel scales
BATCH_TOKENS = 4096  # padded tokens that go through a block together
LAYOUT = 1  # raised when the same inputs would give other bytes


@dataclass(frozen=True)
class Sweep:
    """Everything a walk needs, checked and named."""

    model: OpenedModel
    variants: list[Variant]
    batches: list[Batch]
    calibration: Calibration | None
    device: torch.device
    seed: int
    progress: Progress

    def inputs(self, variant: Variant) -> str:
        """Digest of all that decides the bytes of one variant's artifact."""
        return digest_of(
            [
                LAYOUT,
                [tool_version(), torch.__version__, self.device.type, self.seed],
                identity(self.model).model_copy(update={"ref": ""}).body(),
                self.calibration and self.calibration.body(),
                [variant.recipe.body(), variant.method_name, variant.options.body()],
            ]
        )


def sweep(
    model: OpenedModel,
    samples: Sequence[Sequence[int]] | None,
    recipes: Sequence[Recipe],
    out_dir: Path | str,
    *,
    progress: Progress | None = None,
    seed: int = 0,
    device: str = "auto",
    batch_tokens: int = BATCH_TOKENS,
    shard_bytes: int = SHARD_BYTES,
    reuse: Reuse | None = None,
) -> list[Artifact]:
    """Quantize ``model`` by every recipe; one artifact each, in order, in ``out_dir/<recipe name>``.

    ``samples`` are token ids, one list per calibration sample; None works for methods that need no data. The recipe
    BF16 is the model itself and writes nothing. An artifact that is already there with the same inputs is taken as it
    is, and a killed sweep goes on after the last finished block, to the same bytes (given the same machine and number
    of threads). ``reuse`` holds finished blocks of earlier sweeps, of this model or of another fine-tune of the same
    base: those that would become the same bytes are taken over, and what was is told there.

    Raises, before anything slow: UsageError, FormatError, DataError, BadTensor, ArtifactError (a foreign folder in the
    way). Later: DiskFull and Stopped (Ctrl-C), both with the finished blocks kept.
    """
    out = Path(out_dir)
    variants = plan(model, recipes, calibrated=samples is not None)
    refuse_strangers(out, [variant.name for variant in variants])
    vocabulary = int(model.config.vocab_size)
    cut = [] if samples is None else batches(samples, vocabulary, model.context, batch_tokens)
    run = Sweep(
        model, variants, cut, None if samples is None else Calibration.of([list(one) for one in samples]),
        _device(device), seed, progress or (lambda _stage, _done, _total: None),
    )  # fmt: skip
    made = {variant.name: ready(out / variant.name, run.inputs(variant)) for variant in variants}
    missing = [variant for variant in variants if made[variant.name] is None]
    journal = Journal(out, digest_of([run.inputs(variant) for variant in variants]))
    if any(variant.file is not None for variant in missing):
        package()  # told now, not when everything is solved
    if missing:
        with _stoppable(out):
            model.check(lambda done, total: run.progress("check", done, total))
            keep_heap_small()
            journal.open()
            _walk(run, missing, journal, reuse)
            for at, variant in enumerate(missing):
                made[variant.name] = _publish(run, variant, journal, shard_bytes)
                run.progress("write", at + 1, len(missing))
    journal.close()  # also what a sweep that was killed after its last artifact left behind
    return [made.get(recipe.name) or baseline(model, recipe) for recipe in recipes]


def _walk(run: Sweep, variants: list[Variant], journal: Journal, reuse: Reuse | None) -> None:
    """Solve every block that neither the journal nor earlier work has; finished ones are at most run forward."""
    names = [variant.name for variant in variants]
    groups = [run.model.linears(block) for block in range(run.model.depth)]
    outside = Outside(run, variants)
    open_blocks = [block for block in range(run.model.depth + outside.steps) if not journal.done(block, names)]
    total, done = sum(map(len, groups)) + outside.steps, 0
    rotation = _rotation(run, variants)
    hidden = run.model.embed([batch.ids for batch in run.batches]) if run.batches and open_blocks else []
    streams = Streams(run, variants, hidden)
    past = Past(reuse, run, variants, outside) if reuse and open_blocks else None
    begin = 0
    if past is not None:
        open_blocks = past.bring(journal, open_blocks, hidden)
        begin = 0 if streams.streams else past.begin(open_blocks, hidden)
        done = sum(map(len, groups[:begin]))
    for index in range(begin, outside.walked(open_blocks)):
        at = (done, total) if index in open_blocks else None
        _block(run, variants, rotation, streams, journal, hidden, index, at)
        release_freed()
        done += len(groups[index])
        if past is not None:
            past.keep(journal, index, hidden, solved=index in open_blocks)
    if run.model.depth in open_blocks:
        outside.solve(hidden, journal)
        if past is not None:
            past.keep(journal, run.model.depth, hidden, solved=True)
    run.progress("quantize", total, total)


def _block(
    run: Sweep,
    variants: list[Variant],
    rotation: Rotation | None,
    streams: Streams,
    journal: Journal,
    hidden: list[Tensor],
    index: int,
    progress: tuple[int, int] | None,
) -> None:
    """One block: solved, and put into the journal, unless ``progress`` (layers done, of how many) is None.

    ``hidden``, what the block is given, becomes what it gives, a batch at a time. Everything else that the block needed
    is let go when this returns, before the next one is read.
    """
    groups = run.model.linears(index)
    with run.model.block(index, run.device) as block:
        if progress is None:
            for at, one in enumerate(hidden):
                hidden[at] = block(one).cpu()
            streams.advance(block, journal)
            return
        journal.begin(index)
        probe = hidden[-1][:1, :PROBE_TOKENS].clone() if hidden else None
        ranges = block.cache = Ranges() if any(variant.recipe.kv_cache for variant in variants) else None
        tokens = sum(int(batch.real.sum()) for batch in run.batches)
        statistics = Statistics(block, groups if run.batches else [], tokens)
        before = list(hidden) if streams.streams else []
        for at, batch in enumerate(run.batches):
            hidden[at] = statistics.forward(hidden[at], batch).cpu()
        statistics.close()
        block.cache = None
        held = {group[0]: statistics.take(group[0]) for group in groups} if run.batches else {}
        sharing = [variant for variant in variants if not propagated(variant)]
        pieces = Pieces(run, sharing, Crowd.of(block, groups, held))
        pieces.balance(block, groups, held, probe)
        pieces.turn(block, rotation)
        own = streams.solve(block, groups, before, held, solve) if streams.streams else []
        del before
        for at, group in enumerate(groups):
            solve(pieces, block, group, held.pop(group[0], None))
            run.progress("quantize", progress[0] + at + 1, progress[1])
        of = {variant.name: some for some in (pieces, *own) for variant in some.variants}
        for variant in variants:
            some = of[variant.name]
            some.turn_rest(variant)
            if ranges is not None and variant.recipe.kv_cache:
                some.cache(variant, attention_of(groups), ranges)
            journal.write(index, variant.name, some.tensors.pop(variant.name), some.piece(variant))
        journal.finish(index, [variant.name for variant in variants])
        if index + 1 < run.model.depth:
            streams.advance(block, journal)


def _publish(run: Sweep, variant: Variant, journal: Journal, shard_bytes: int) -> Artifact:
    """Put the finished blocks and the kept tensors together under the variant's name."""
    steps = range(run.model.depth + bool(variant.ends.coded))
    solved = {name: entry for block in steps for name, entry in journal.tensors(block, variant.name).items()}
    pieces = [journal.piece(block, variant.name) for block in steps]
    rotation = _rotation(run, [variant])
    assemble(
        journal.whole(variant.name),
        run.model,
        variant,
        solved,
        {fate.name: fate for piece in pieces for fate in piece.fates},
        around=None if rotation is None else (rotation, journal.folder / f"{variant.name}.around.safetensors"),
        shard_bytes=shard_bytes,
        calibration=run.calibration,
        inputs=run.inputs(variant),
        device=run.device.type,
        seed=run.seed,
        ledger=(*variant.notes(), *(note for piece in pieces for note in piece.ledger)),
    )
    return open_artifact(journal.publish(variant.name), verify=False)


def _rotation(run: Sweep, variants: Sequence[Variant]) -> Rotation | None:
    """The one rotation of all variants that ask for one; its signs follow from the seed."""
    asked = any(variant.recipe.rotation for variant in variants)
    return Rotation.of(int(run.model.config.hidden_size), run.seed) if asked else None


def _device(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


@contextmanager
def _stoppable(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(f"{out}: stopped; the finished blocks are kept, the same sweep goes on from there") from None
