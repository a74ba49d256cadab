"""Mean KL to the baseline of GGUF files of equal size: ours, and llama.cpp's with an importance matrix and without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gguf.importance import importance_of
from benchmarks.gguf.judge import LEVEL, Distances, Interval, distances, mean, ratio
from benchmarks.gguf.quantizer import quantize
from benchmarks.peers.inputs import Subject
from benchmarks.peers.judge import Judge, engine_of
from benchmarks.tables import Table
from quantgate.engines.llamacpp import LlamaCppEngine
from quantgate.errors import ArtifactError
from quantgate.models import OpenedModel
from quantgate.quantize import Recipe
from quantgate.quantize.foreign.gguf import open_gguf_artifact
from quantgate.quantize.gguf import make_gguf
from quantgate.quantize.gguf.artifact import GgufArtifact
from quantgate.quantize.mix import linears
from quantgate.quantize.sweep import sweep

Say = Callable[[str], None]


@dataclass(frozen=True)
class Goal:
    """The largest ratio of our mean KL over llama.cpp's with importance that will do."""

    most: float
    below: bool = False  # the ratio must be less than ``most``, not equal to it

    def met(self, found: float) -> bool:
        return found < self.most if self.below else found <= self.most

    def __str__(self) -> str:
        return f"{'below' if self.below else 'at most'} {self.most:g}x"


LOWER, FOUR, FEW = Goal(1.0, below=True), Goal(0.70), Goal(0.50)
BLOCKS_OF_256: dict[str, Goal | None] = {  # scheme -> goal
    "Q6_K": LOWER, "Q5_K_M": LOWER, "Q5_K": LOWER, "Q4_K_M": FOUR, "Q4_K": FOUR,
    "Q3_K_M": FEW, "Q3_K": FEW, "Q2_K": FEW, "Q8_0": None, "Q4_0": None, "IQ4_NL": None,
}  # fmt: skip
BLOCKS_OF_32: dict[str, Goal | None] = dict.fromkeys(("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL"))
QUICK = ("Q4_K_M", "Q2_K", "Q4_0")
IN_LLAMA_CPP = ("Q4_K_M", "Q3_K_M")  # judged by llama.cpp's own logits as well
OURS: dict[str, dict[str, object]] = {
    "gptq": {"method": "gptq"},
    "rtn": {"method": "rtn", "options": {"clip": "hessian"}},
}
LIKE = 0.001  # by how much files of equal size may differ
THOUSAND = 1000  # nats are told in thousandths

COLUMNS = (
    "type", "MB", "ours", "ours, rtn", "llama.cpp, importance", "llama.cpp, none", "ours over importance", "goal", "",
)  # fmt: skip
CROSS = ("type", "ours", "llama.cpp, importance", "ratio", "of the decoded files")


@dataclass(frozen=True)
class Row:
    """One type: what was measured of our file and of llama.cpp's, and their bytes."""

    name: str
    goal: Goal | None
    ours: Distances
    rtn: Distances
    theirs: Distances  # with importance
    plain: Distances  # without
    bytes: int
    their_bytes: int

    @property
    def alike(self) -> bool:
        """Whether both files are of one size, up to LIKE."""
        return abs(self.bytes / self.their_bytes - 1) <= LIKE

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        if not self.alike:
            return f"no peer: {self.their_bytes / 1e6:.3f} MB"
        return "met" if self.goal.met(ratio(self.ours, self.theirs).value) else "missed"

    def cells(self) -> tuple[str, ...]:
        measured = [_thousandths(mean(one)) for one in (self.ours, self.rtn, self.theirs, self.plain)]
        goal = "" if self.goal is None else str(self.goal)
        return (
            self.name, f"{self.bytes / 1e6:.3f}", *measured, _times(ratio(self.ours, self.theirs)), goal, self.verdict,
        )  # fmt: skip


def compare(subject: Subject, folder: Path, *, quick: bool, threads: int, say: Say) -> list[Table]:
    """The table of one model; of one with blocks of 256 also that of llama.cpp's own logits."""
    model = subject.model
    wanted = {name: goal for name, goal in types_for(model).items() if not quick or name in QUICK}
    recipes = [
        Recipe.model_validate({"scheme": name, "label": f"{name}-{way}", **told})
        for name in wanted
        for way, told in OURS.items()
    ]
    say(f"gguf, {subject.name}: one sweep makes {len(recipes)} variants")
    made = dict(zip([one.name for one in recipes], sweep(model, subject.rows, recipes, folder / "ours"), strict=True))
    ours = {name: _of_blocks(artifact) for name, artifact in made.items()}
    theirs = of_llama_cpp(
        model, {name: ours[f"{name}-gptq"] for name in wanted}, subject.rows, folder / "llama.cpp", threads
    )
    judge = Judge(subject)
    say(f"gguf, {subject.name}: judging {4 * len(wanted)} files at {judge.tokens} positions")

    def judged(artifact: GgufArtifact) -> Distances:
        return distances(judge, engine_of(model, artifact))

    rows = []
    for name, goal in wanted.items():
        own, peer, plain = ours[f"{name}-gptq"], theirs[f"{name}-importance"], theirs[f"{name}-plain"]
        mine, rounded = judged(own), judged(ours[f"{name}-rtn"])
        rows.append(Row(name, goal, mine, rounded, judged(peer), judged(plain), _size(own), _size(peer)))
        say(f"  {name}: {rows[-1].cells()[6]}")
    about = notes(subject, judge, rows, next(iter(ours.values())))
    tables = [Table(COLUMNS, tuple(row.cells() for row in rows), f"GGUF, {subject.name}", about)]
    both = [row for row in rows if row.name in IN_LLAMA_CPP]
    if both:
        tables.append(_cross(subject, judge, both, ours, theirs, threads))
    return tables


def types_for(model: OpenedModel) -> dict[str, Goal | None]:
    """K-quants and some of 32 where every linear layer's rows divide into 256, else those of 32 alone."""
    columns = {model.files.entry(f"{layer}.weight").shape[1] for group in linears(model) for layer in group}
    return BLOCKS_OF_256 if all(width % 256 == 0 for width in columns) else BLOCKS_OF_32


def of_llama_cpp(
    model: OpenedModel, ours: dict[str, GgufArtifact], rows: Sequence[Sequence[int]], folder: Path, threads: int
) -> dict[str, GgufArtifact]:
    """``NAME-importance`` and ``NAME-plain``: every tensor in the type that it has in our file of that name.

    Raises ArtifactError where llama.cpp stores another type.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source, importance = make_gguf(model, folder / "F32.gguf", "F32").path, importance_of(model, rows)
    found = dict[str, GgufArtifact]()
    for name, own in ours.items():
        types = {tensor: one.type for tensor, one in own.tensors.file.tensors.items()}
        for way, told in (("importance", importance), ("plain", None)):
            label = f"{name}-{way}"
            quantize(source, folder / f"{label}.gguf", types, told, threads=threads)
            found[label] = open_gguf_artifact(folder / f"{label}.gguf", model)
    return found


def notes(subject: Subject, judge: Judge, rows: Sequence[Row], made: GgufArtifact) -> tuple[str, ...]:
    """``made`` is one of our files."""
    documents = sum(len(ids) for ids, _ in judge.batches)
    off = max(abs(row.bytes / row.their_bytes - 1) for row in rows)
    told = (
        f"{subject.name}: {len(subject.rows)} rows of {len(subject.rows[0])} tokens, {subject.about} "
        f"({documents} documents, {judge.tokens} positions). Mean KL to the baseline in thousandths of a nat a token, "
        f"of the decoded files in float32; in brackets {LEVEL:.0%} intervals, by drawing documents. "
        f"Sizes differ by {off:.3%} at most."
    )
    layers = [layer for group in linears(subject.model) for layer in group]
    plain = sorted({layer.rpartition(".")[2] for layer in layers if not made.stored(layer).type.quantized})
    return (
        (told, f"Rows of {', '.join(plain)} divide into no blocks: plain numbers in all files.") if plain else (told,)
    )


def _cross(
    subject: Subject,
    judge: Judge,
    rows: Sequence[Row],
    ours: dict[str, GgufArtifact],
    theirs: dict[str, GgufArtifact],
    threads: int,
) -> Table:
    """The same files run by llama.cpp, which rounds activations to 8 bits in front of every matrix of blocks."""
    lines = []
    for row in rows:
        files = (ours[f"{row.name}-gptq"], theirs[f"{row.name}-importance"])
        own, peer = (distances(judge, LlamaCppEngine(subject.model, one, threads=threads)) for one in files)
        decoded = _times(ratio(row.ours, row.theirs))
        lines.append((row.name, _thousandths(mean(own)), _thousandths(mean(peer)), _times(ratio(own, peer)), decoded))
    note = (
        "Logits by llama.cpp itself, against the same baseline in float32; what its 8-bit activations add is in both."
    )
    return Table(CROSS, tuple(lines), f"GGUF, {subject.name}, run by llama.cpp", (note,))


def _of_blocks(artifact: object) -> GgufArtifact:
    if not isinstance(artifact, GgufArtifact):
        raise ArtifactError(f"{artifact}: the sweep made no GGUF file of it; name a scheme of blocks")
    return artifact


def _size(artifact: GgufArtifact) -> int:
    """Bytes of the file."""
    return artifact.tensors.file.path.stat().st_size


def _thousandths(found: Interval) -> str:
    value, low, high = (f"{THOUSAND * one:.3g}" for one in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


def _times(found: Interval) -> str:
    return f"{found.value:.2f}x ({found.low:.2f} to {found.high:.2f})"
