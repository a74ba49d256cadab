"""Cut a student out of its teacher: measure what each part is worth, keep the parts that are worth most.

    shape = wanted_shape(model, options)                 # refuses what cannot be cut, before anything slow
    found = choose(model, shape, documents)              # what is kept, and the measurements that say so
    cut(model, shape, found.kept, folder)                # a Hugging Face folder in float32, to be trained

Blocks go first; heads, feed-forward channels and channels of the stream are measured in what is left. Whatever is kept
stands in its old order with its old numbers, but for the gains of norms over a narrower stream.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from quantgate.errors import DataError, UsageError
from quantgate.models.anatomy import Anatomy, take_apart
from quantgate.models.text import tokenizer_files
from quantgate.records import Record, folder_aside, write_whole
from quantgate.train import Document, Tell
from quantgate.train._importance import Widths, influence, look_at, measure_widths, remove_blocks
from quantgate.train._shapes import Shape, configured, shape_of, student_name, wanted_shape

if TYPE_CHECKING:
    from quantgate.models import OpenedModel

__all__ = ["Importance", "Kept", "Shape", "choose", "configured", "cut", "save_model", "student_name", "wanted_shape"]

AXES = {  # module -> what its rows and columns belong to
    "q_proj": ("heads", "hidden"), "k_proj": ("groups", "hidden"), "v_proj": ("groups", "hidden"),
    "o_proj": ("hidden", "heads"), "gate_proj": ("feed_forward", "hidden"), "up_proj": ("feed_forward", "hidden"),
    "down_proj": ("hidden", "feed_forward"), "embed_tokens": ("", "hidden"), "lm_head": ("", "hidden"),
    "q_norm": ("", ""), "k_norm": ("", ""),
}  # fmt: skip
OF_NORMS = ("hidden", "")  # all others


class Kept(Record):
    """The teacher's own numbers of what a student keeps; a block's lists are those of each kept block, in order."""

    blocks: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...] = ()  # key-value groups with their heads; empty: all
    feed_forward: tuple[tuple[int, ...], ...] = ()  # channels; empty: all
    hidden: tuple[int, ...] = ()  # channels of the stream; empty: all
    gains: dict[str, float] = {}  # norm (path in the teacher's memory) -> rms of the kept channels over that of all


class Removal(Record):
    """One block taken away: what the model would lose without each, those before it gone already."""

    block: int
    kl: dict[str, float]  # block -> mean KL to the teacher, nats a token; blocks that were not measured are left out


class Importance(Record):
    """What was measured, and what a student keeps for it."""

    shape: Shape
    kept: Kept
    tokens: int  # looked at
    influence: tuple[float, ...]  # Block Influence of every block of the teacher
    removed: tuple[Removal, ...] = ()  # in the order in which they went
    groups: tuple[tuple[float, ...], ...] = ()  # of every kept block: share of its output energy a group stands for
    lost: dict[str, tuple[float, ...]] = {}  # width -> share that was cut, of every kept block (hidden: one number)

    def told(self) -> list[str]:
        """Sentences on what went and what it was worth."""
        said = []
        for at, one in enumerate(self.removed):
            rest = ", ".join(f"{block}: {kl:.3g}" for block, kl in sorted(one.kl.items(), key=lambda x: x[1])[1:4])
            beside = f" (next: {rest})" if rest else ""
            said.append(f"block {one.block} goes {_ordinal(at)}: without it KL is {one.kl[str(one.block)]:.3g}{beside}")
        for name, shares in self.lost.items():
            said.append(f"{name}: what is cut stands for {max(shares):.1%} of what is read there, at most")
        return said


def _ordinal(at: int) -> str:
    return ("first", "second", "third")[at] if at < 3 else f"as number {at + 1}"


def choose(
    model: OpenedModel,
    shape: Shape,
    documents: Sequence[Document],
    *,
    device: torch.device | None = None,
    tell: Tell | None = None,
) -> Importance:
    """What a student of ``shape`` keeps of ``model``, measured on some of ``documents``. Raises DataError for none."""
    if not documents:
        raise DataError("importance is measured on conversations, and there are none; give traffic or suites")
    teacher = shape_of(model.config)

    def told(what: str, done: int, total: int) -> None:
        if tell is not None:
            tell(what, done, total)

    look = look_at(model, documents, device or torch.device("cpu"))
    influences = influence(look)
    rounds = remove_blocks(look, teacher.layers - shape.layers, influences, told)
    gone = [one.removed for one in rounds]
    blocks = tuple(at for at in range(teacher.layers) if at not in gone)
    found = Importance(
        shape=shape,
        kept=Kept(blocks=blocks),
        tokens=sum(int(counted.sum()) for _, counted, _ in look.batches),
        influence=tuple(influences),
        removed=tuple(Removal(block=one.removed, kl={str(k): v for k, v in one.measured.items()}) for one in rounds),
    )
    if not shape.narrower(teacher):
        return found
    told("importance of heads and channels", 0, 1)
    widths = measure_widths(look, teacher, gone, _final_norm(model.walker.anatomy))
    told("importance of heads and channels", 1, 1)
    return _narrowed(found, teacher, widths)


def _final_norm(anatomy: Anatomy) -> str:
    trunk = anatomy.blocks.rpartition(".")[0]
    return f"{trunk}.norm"


def _narrowed(found: Importance, teacher: Shape, widths: Widths) -> Importance:
    """The widths that are kept: the costliest to leave out, block by block, and the same channels everywhere."""
    shape, kept, lost = found.shape, dict[str, Any](), dict[str, tuple[float, ...]]()
    for name, parts, count, full in (
        ("groups", widths.groups, shape.kv_heads, teacher.kv_heads),
        ("feed_forward", widths.feed_forward, shape.feed_forward, teacher.feed_forward),
        ("hidden", [widths.hidden], shape.hidden, teacher.hidden),
    ):
        if count < full:
            best = [_largest(one, count) for one in parts]
            lost[name] = tuple(float(one.sum() - one[list(at)].sum()) for one, at in zip(parts, best, strict=True))
            kept[name] = best[0] if name == "hidden" else tuple(best)
    if channels := kept.get("hidden"):
        kept["gains"] = {
            path: float((moment[list(channels)].mean() / moment.mean()).sqrt())
            for path, moment in widths.moments.items()
        }
    groups = tuple(tuple(one.tolist()) for one in widths.groups)
    return found.model_copy(update={"kept": found.kept.model_copy(update=kept), "groups": groups, "lost": lost})


def _largest(costs: Tensor, count: int) -> tuple[int, ...]:
    """Where the ``count`` largest are, in order; of equal ones the first.

    >>> _largest(torch.tensor([0.0, 3.0, 1.0, 3.0]), 2)
    (1, 3)
    """
    return tuple(sorted(torch.sort(costs, descending=True, stable=True).indices[:count].tolist()))


def cut(model: OpenedModel, shape: Shape, kept: Kept, folder: Path, dtype: str = "float32") -> Path:
    """Write the untrained student as a Hugging Face folder. Raises UsageError where its tensors would not fit."""
    made = take_apart(configured(model.config, shape, kept.blocks), str(folder))
    old = model.walker.anatomy
    state, wanted, teacher = dict[str, Tensor](), made.model.state_dict(), shape_of(model.config)
    for path, name in made.stored.items():
        before, at = _place(made, kept.blocks, path)
        source = old.stored.get(before, name)
        if model.tied and source == f"{model.walker.head}.weight":
            continue
        tensor = _narrow(model.files.read(source).float(), before, at, kept, teacher)
        if tensor.shape != wanted[path].shape:
            raise UsageError(
                f"'{name}' would be {list(wanted[path].shape)} in a student of {model.ref}, and what is kept of "
                f"'{source}' is {list(tensor.shape)}: its blocks are not alike, so none can stand in another's place"
            )
        state[name] = tensor.to(getattr(torch, dtype)).contiguous()
    with save_model(model, configured(model.config, shape, kept.blocks, dtype), state, folder):
        pass
    return folder


def _place(anatomy: Anatomy, blocks: Sequence[int], path: str) -> tuple[str, int]:
    """Where a tensor of the student comes from: its path in the teacher, and the block's place in the student, or -1.

    ``anatomy`` is the student's.
    """
    prefix = f"{anatomy.blocks}."
    if not path.startswith(prefix):
        return path, -1
    at, _, rest = path.removeprefix(prefix).partition(".")
    return f"{prefix}{blocks[int(at)]}.{rest}", int(at)


def _narrow(tensor: Tensor, path: str, at: int, kept: Kept, teacher: Shape) -> Tensor:
    """The kept rows and columns of the teacher's tensor ``path``, which belongs to the student's block ``at``."""
    if not (kept.groups or kept.feed_forward or kept.hidden):
        return tensor
    module = path.rpartition(".")[0]
    axes = AXES.get(module.rpartition(".")[2], OF_NORMS)
    for axis, belongs in enumerate(axes[: tensor.dim()]):
        if (chosen := _indices(belongs, at, kept, teacher)) is not None:
            tensor = tensor.index_select(axis, chosen)
    return tensor * kept.gains[module] if module in kept.gains else tensor


def _indices(belongs: str, at: int, kept: Kept, teacher: Shape) -> Tensor | None:
    """Which rows or columns stay; None: all."""
    if belongs == "hidden" and kept.hidden:
        return torch.tensor(kept.hidden)
    if belongs == "feed_forward" and kept.feed_forward:
        return torch.tensor(kept.feed_forward[at])
    if belongs in ("heads", "groups") and kept.groups:
        width = teacher.head_dim * (teacher.group if belongs == "heads" else 1)
        return torch.cat([torch.arange(group * width, (group + 1) * width) for group in kept.groups[at]])
    return None


@contextmanager
def save_model(model: OpenedModel, config: Any, state: Mapping[str, Tensor], folder: Path) -> Iterator[Path]:
    """Tensors, configuration and the teacher's tokenizer and template, in a folder that is whole or not there.

    Yields it under another name, to put more into it. Raises DiskFull.
    """
    from quantgate.quantize.shards import write_tensors

    with folder_aside(folder) as aside:
        config.architectures = [type(model.walker.skeleton).__name__]
        write_whole(aside / "config.json", config.to_json_string(use_diff=True).encode())
        generation = model.path / "generation_config.json"
        for file in [*tokenizer_files(model.path), *([generation] if generation.is_file() else [])]:
            shutil.copyfile(file, aside / file.name)
        write_tensors(aside / "model.safetensors", state)
        yield aside
