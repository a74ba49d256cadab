"""The shape of a student: what was asked, held against the teacher before anything slow, and as a configuration."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantgate.errors import ModelError, UsageError
from quantgate.models.anatomy import take_apart
from quantgate.models.text import tokenizer_digest, tokenizer_files
from quantgate.records import Record
from quantgate.train.options import DistillOptions

if TYPE_CHECKING:
    from quantgate.models import OpenedModel

NARROWED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")  # whose tensors we know how to cut
SCALED = ("gemma", "gemma2", "gemma3_text")  # embeddings are multiplied by the root of the width
LETTERS = {"layers": "l", "heads": "h", "feed_forward": "f", "hidden": "d"}
KEYS = {  # of a configuration, by what they are here
    "layers": "num_hidden_layers", "heads": "num_attention_heads", "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim", "feed_forward": "intermediate_size", "hidden": "hidden_size",
}  # fmt: skip
PER_BLOCK = ("layer_types", "mlp_layer_types", "no_rope_layers")  # lists with an entry for every block
FREE = {  # may differ from the teacher's in a configuration of a student's own: they change no number it computes
    *KEYS.values(), *PER_BLOCK, "architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path",
    "use_cache", "initializer_range", "attention_dropout", "id2label", "label2id", "pretraining_tp",
    "max_window_layers", "return_dict", "output_hidden_states", "chunk_size_feed_forward", "problem_type",
}  # fmt: skip


class Shape(Record):
    """How large the parts of a decoder are."""

    layers: int
    heads: int  # of attention
    kv_heads: int
    head_dim: int
    feed_forward: int  # channels between an MLP's projections; 0 where the architecture has no one such number
    hidden: int  # channels of the residual stream

    @property
    def group(self) -> int:
        """Attention heads that share keys and values."""
        return self.heads // self.kv_heads

    def narrower(self, teacher: Shape) -> list[str]:
        """The widths in which it is smaller."""
        return [name for name in ("heads", "feed_forward", "hidden") if getattr(self, name) < getattr(teacher, name)]


def shape_of(config: Any) -> Shape:
    heads = int(config.num_attention_heads)
    return Shape(
        layers=int(config.num_hidden_layers),
        heads=heads,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        feed_forward=int(getattr(config, "intermediate_size", None) or 0),
        hidden=int(config.hidden_size),
    )


def student_name(options: DistillOptions) -> str:
    """
    >>> student_name(DistillOptions(layers=3, hidden=192))
    'student-l3-d192'
    >>> student_name(DistillOptions(config="configs/small/config.json"))
    'student-small'
    """
    if options.config is not None:
        file = Path(options.config)
        stem = (file.parent if file.name == "config.json" else file).stem
        return f"student-{stem}" if stem else "student-config"
    asked = {name: getattr(options, name) for name in LETTERS}
    return "-".join(["student", *(f"{LETTERS[name]}{size}" for name, size in asked.items() if size)])


def wanted_shape(model: OpenedModel, options: DistillOptions) -> Shape:
    """The student's shape. Raises UsageError for one that cannot be cut out of ``model``, saying which and why not."""
    teacher = shape_of(model.config)
    if options.config is not None:
        want = _of_config(model, teacher, Path(options.config))
    else:
        asked = {name: size for name in LETTERS if (size := getattr(options, name)) is not None}
        for name, size in asked.items():
            if size > getattr(teacher, name):
                raise UsageError(_larger(name, size, teacher, model.ref))
        if teacher.heads and (heads := asked.get("heads")) and heads % teacher.group:
            raise UsageError(
                f"heads: {heads} are not whole groups; in {model.ref} {teacher.group} heads share their keys and "
                f"values, so choose a multiple of {teacher.group}"
            )
        kv_heads = asked.get("heads", teacher.heads) // teacher.group
        want = teacher.model_copy(update={**asked, "kv_heads": kv_heads})
    _refuse(model, teacher, want)
    return want


def _larger(name: str, size: int, teacher: Shape, ref: str) -> str:
    return f"{name}: {size} is more than the {getattr(teacher, name)} of {ref}; a student is cut out of its teacher"


def _of_config(model: OpenedModel, teacher: Shape, path: Path) -> Shape:
    from transformers import AutoConfig

    file = path / "config.json" if path.is_dir() else path
    try:
        raw = json.loads(file.read_bytes())
        other = AutoConfig.for_model(raw["model_type"], **{k: v for k, v in raw.items() if k != "model_type"})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        first = (str(problem).strip().splitlines() or [""])[0][:160]
        raise UsageError(f"config: {file}: not a configuration of a model ({first}); name a config.json") from None
    _same_make(model, other, file)
    if tokenizer_files(file.parent) and tokenizer_digest(file.parent) != model.tokenizer_digest:
        raise UsageError(
            f"config: {file.parent}: its tokenizer is not that of {model.ref}, and a student learns the teacher's own "
            "tokens; leave the tokenizer files out, the teacher's are taken"
        )
    want = shape_of(other)
    for name in KEYS:
        if getattr(want, name) > getattr(teacher, name):
            raise UsageError(f"config: {file}: {_larger(name, getattr(want, name), teacher, model.ref)}")
    if want.head_dim != teacher.head_dim or want.heads != want.kv_heads * teacher.group:
        raise UsageError(
            f"config: {file}: {want.heads} heads of {want.head_dim} with {want.kv_heads} for keys and values cannot be "
            f"cut out of {model.ref}, which has {teacher.heads} of {teacher.head_dim} with {teacher.kv_heads}: heads "
            f"go in groups of {teacher.group} and keep their size"
        )
    return want


def _same_make(model: OpenedModel, other: Any, file: Path) -> None:
    mine, its = model.config.to_dict(), other.to_dict()
    if its.get("model_type") != mine.get("model_type"):
        raise UsageError(
            f"config: {file}: a model of type '{its.get('model_type')}', and {model.ref} is "
            f"'{mine.get('model_type')}'; a student takes its first weights from the teacher, so both are of one "
            "architecture"
        )
    if its.get("vocab_size") != mine.get("vocab_size"):
        raise UsageError(
            f"config: {file}: a vocabulary of {its.get('vocab_size')} tokens, and {model.ref} has "
            f"{mine.get('vocab_size')}; a student learns the teacher's own tokens, so leave it as it is"
        )
    for key in sorted((set(mine) | set(its)) - FREE):
        if mine.get(key) != its.get(key):
            raise UsageError(
                f"config: {file}: '{key}' is {its.get(key)!r}, and in {model.ref} {mine.get(key)!r}; weights that were "
                "trained with one do not fit the other, so leave it as it is"
            )


def _refuse(model: OpenedModel, teacher: Shape, want: Shape) -> None:
    kind = str(model.config.model_type)
    narrower = want.narrower(teacher)
    if not narrower and want.layers == teacher.layers:
        raise UsageError(
            f"a student of {want.layers} blocks and the teacher's widths is the whole of {model.ref}; ask for fewer"
        )
    if narrower and kind not in NARROWED:
        raise UsageError(
            f"{narrower[0]}: models of type '{kind}' are cut in depth alone; ask for 'layers', or take one of "
            f"{', '.join(NARROWED)}"
        )
    if "hidden" in narrower and kind in SCALED:
        raise UsageError(
            f"hidden: a model of type '{kind}' multiplies its embeddings by the root of its width, so the width stays; "
            "ask for layers, heads or feed_forward"
        )
    from huggingface_hub.errors import StrictDataclassError

    try:
        take_apart(configured(model.config, want, tuple(range(want.layers))), model.ref)
    except (StrictDataclassError, ValueError, ModelError, TypeError) as problem:
        first = (str(problem).strip().splitlines() or [""])[-1].strip().rstrip(".")[:200]
        raise UsageError(f"a student of that shape cannot be built: {first}; choose other numbers") from None


def configured(config: Any, shape: Shape, blocks: tuple[int, ...], dtype: str | None = None) -> Any:
    """``config`` with another shape; ``blocks`` are those of its own that are kept, in order."""
    made = copy.deepcopy(config)
    teacher = shape_of(config)
    for key in PER_BLOCK:
        values = getattr(made, key, None)
        if isinstance(values, list) and len(values) == teacher.layers:
            setattr(made, key, [values[block] for block in blocks])
    sparse = getattr(made, "mlp_only_layers", None)
    if isinstance(sparse, list):
        made.mlp_only_layers = [at for at, block in enumerate(blocks) if block in sparse]
    made.num_hidden_layers = shape.layers
    for name in ("heads", "kv_heads", "head_dim", "feed_forward", "hidden"):
        if getattr(shape, name) != getattr(teacher, name) or (name == "head_dim" and shape.narrower(teacher)):
            setattr(made, KEYS[name], getattr(shape, name))
    if dtype is not None:
        made.dtype = dtype
    type(made).from_dict(made.to_dict())  # its own checks, which setting a value passes by
    return made
