"""How one model stands to another: a smaller one, the same shape with other weights, or something else.

    found = kinship(baseline, other)      # reads every weight of both once
    found.relation, found.sentence        # "student", "a student: a smaller model of the same vocabulary; 4 blocks ..."

What another model learned from is in no file. What can be seen is told: shapes, numbers, and which tensors are the
baseline's own to the byte, under whatever name; blocks that were cut out leave the others as they were.
"""

from __future__ import annotations

from typing import Literal

from quantgate.models import OpenedModel
from quantgate.records import Record

Relation = Literal["student", "fine-tune", "other model"]
WORDS: dict[str, str] = {
    "student": "a student: a smaller model of the same vocabulary",
    "fine-tune": "other weights of the baseline's shape, as a fine-tune has",
    "other model": "another model",
}


class Kinship(Record):
    """A model beside the baseline."""

    relation: Relation
    ref: str  # what the user called it
    weights: str  # digest
    architecture: str
    blocks: int
    parameters: int  # numbers in its files (tied ones once)
    bytes: int  # of its tensors, as it is
    same_vocabulary: bool  # every token has one id in both
    own_parameters: int  # of ``parameters``, those in tensors that the baseline does not have, byte for byte
    baseline_blocks: int
    baseline_parameters: int

    @property
    def sentence(self) -> str:
        """What it is, in words.

        >>> print(Kinship(relation="student", ref="s", weights="", architecture="A", blocks=4, parameters=60, bytes=120,
        ...     same_vocabulary=True, own_parameters=9, baseline_blocks=6, baseline_parameters=100).sentence)
        a student: a smaller model of the same vocabulary; 4 blocks (baseline: 6), 60 parameters (baseline: 100), 9 of \
them its own and the others the baseline's, byte for byte
        """
        vocabulary = "" if self.same_vocabulary else "; its vocabulary is another"
        return (
            f"{WORDS[self.relation]}; {told_blocks(self.blocks)} (baseline: {self.baseline_blocks}), "
            f"{self.parameters:,} parameters (baseline: {self.baseline_parameters:,}), {self._own}{vocabulary}"
        )

    @property
    def _own(self) -> str:
        if self.own_parameters == self.parameters:
            return "all of them its own"
        if self.own_parameters == 0:
            return "all of them the baseline's, byte for byte"
        return f"{self.own_parameters:,} of them its own and the others the baseline's, byte for byte"


def told_blocks(count: int) -> str:
    return f"{count} block{'' if count == 1 else 's'}"


def kinship(baseline: OpenedModel, other: OpenedModel) -> Kinship:
    """What ``other`` is beside ``baseline``; reads every weight of both once, unless that was done already."""
    known = set(baseline.tensor_digests.values())
    entries = other.files.entries
    own = sum(entries[name].weights for name, digest in other.tensor_digests.items() if digest not in known)
    same = vocabulary_of(baseline) == vocabulary_of(other)
    return Kinship(
        relation=_relation(baseline, other, same_vocabulary=same),
        ref=other.ref,
        weights=other.weights_digest,
        architecture=other.architecture,
        blocks=other.depth,
        parameters=other.parameters,
        bytes=other.weights_bytes,
        same_vocabulary=same,
        own_parameters=own,
        baseline_blocks=baseline.depth,
        baseline_parameters=baseline.parameters,
    )


def vocabulary_of(model: OpenedModel) -> dict[str, int]:
    """Token -> id, added ones included."""
    return {str(token): int(at) for token, at in model.tokenizer.get_vocab().items()}


def is_same(baseline: OpenedModel, other: OpenedModel) -> bool:
    """Whether ``other`` is the baseline itself: the same numbers, in whatever type, and a configuration that computes
    the same with them."""
    if _computes(baseline) != _computes(other) or _shapes(baseline) != _shapes(other):
        return False
    return baseline.weights_digest == other.weights_digest or _same_numbers(baseline, other)


def _same_numbers(baseline: OpenedModel, other: OpenedModel) -> bool:
    """Of tensors in different types; those in one type differ already."""
    first, second = baseline.files, other.files
    unlike = [name for name, digest in baseline.tensor_digests.items() if other.tensor_digests[name] != digest]
    if any(first.entries[name].dtype == second.entries[name].dtype for name in unlike):
        return False
    return all(bool((first.read(name).double() == second.read(name).double()).all()) for name in unlike)


def _computes(model: OpenedModel) -> dict[str, object]:
    """The configuration without what says where the model comes from, and in which type it is stored."""
    left_out = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")
    return {key: value for key, value in model.config.to_dict().items() if key not in left_out}


def _relation(baseline: OpenedModel, other: OpenedModel, *, same_vocabulary: bool) -> Relation:
    if _shapes(baseline) == _shapes(other) and baseline.architecture == other.architecture:
        return "fine-tune" if baseline.weights_digest != other.weights_digest else "other model"
    return "student" if same_vocabulary and other.parameters < baseline.parameters else "other model"


def _shapes(model: OpenedModel) -> dict[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in model.files.entries.items()}
