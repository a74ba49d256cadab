"""Prove, before anything is evaluated, that a runtime computes what its artifact says.

    found = prove(engine, GgufReference(model, artifact))      # engine: the llamacpp engine on the same artifact
    found.passed, found.sentence

Five things are compared.

    chat template   the one that the runtime has loaded
    tokens          what it makes of fixed texts and of every piece of the vocabulary
    matrices        each product of its forward pass: its own inputs, rounded as its kernels round them, times the
                    decoded weight, against its own outputs; sums in another order are all that is left, so that one
                    wrong nibble shows
    cache           each key and value as it stands in the cache, against what was given to it, turned and rounded as
                    a cache of the asked type does
    logits          of fixed token ids, against the artifact's numbers run by transformers: rotary embeddings, norms,
                    attention, whatever stands between the matrices

Products are held to a sharp tolerance because rounding errors do not add up in them. Logits cannot be: a sum in another
order rounds an activation to its other neighbour now and then, and a few layers later two correct programs are as far
apart as the rounding itself puts them. The tolerances lie between what correct runtimes and planted faults measured;
docs/LOG.md has both.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from quantgate.engines import Identity, Kept, Product
from quantgate.errors import EngineError
from quantgate.evaluate.drift import positions
from quantgate.records import Record

TEXTS = (
    "Hello, world! It's 3 o'clock; we'll meet at 12:45 (or so).",
    "def f(x):\n    return {'a': [1, 2.5, -3e10], \"b\": None}\n\n\n\t# end",
    "  leading, trailing  \n \n\t\t mixed   spaces \r\n",
    "1 22 333 4444 55555 666666 3.14159 1,000,000",
    "ΑΒΓ δέλτα Привет мир שלום עולם مرحبا नमस्ते 你好 世界 こんにちは 안녕하세요",
    "naïve café Ångström e\u0301 ﬁ ½ ™ → ∑ 🙂 👩‍🚀 🇪🇺",
    "DON'T don't Don'T I'LL they've ''quoted'' ``ticks`` ------ ====== ......",
)
TURNS = (
    (("user", "What is 17 + 25?"),),
    (("system", "Answer in JSON."), ("user", "Name three colours."), ("assistant", '["red"]'), ("user", "Two more.")),
)
MOST_PIECES = 4096  # of the vocabulary that are tokenized each by itself
MOST_IDS = 1024  # of the vocabulary that are fed
LENGTH = 256  # ids in a row
LEAST = 24  # rows of a product, so that a median means something
MOST_ROWS = 64
SEED = 20


class Check(Record):
    """One comparison of a runtime with its reference."""

    name: str
    passed: bool
    asked: str
    got: str


class Proof(Record):
    """Whether a runtime computes what its artifact says; names both sides."""

    engine: str  # identity digests
    reference: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(one.passed for one in self.checks)

    @property
    def sentence(self) -> str:
        """The first thing that is not as it should be, or that all is."""
        wrong = next((one for one in self.checks if not one.passed), None)
        if wrong is None:
            return "the runtime computes what the artifact says: " + "; ".join(one.got for one in self.checks)
        return f"the runtime does not compute what the artifact says: {wrong.name}: {wrong.got}, expected {wrong.asked}"


class Tolerance(Record):
    """How far a correct runtime may be from its reference."""

    kl: float  # mean divergence of the next token's distribution over all positions, in nats
    spread: float  # root mean square error of centred logits, as a share of their standard deviation


class Runtime(Protocol):
    """An engine whose own tokenizer and template can be looked at."""

    @property
    def identity(self) -> Identity: ...

    @property
    def template(self) -> str: ...

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text, nothing added."""
        ...

    def logits(self, ids: Tensor, at: Tensor | None = None) -> Tensor: ...

    def products(self, ids: Sequence[int]) -> list[Product]:
        """Inputs and outputs of every matrix for one row of ids."""
        ...

    def kept(self, ids: Sequence[int]) -> list[Kept]:
        """What the cache made of the keys and values of one row of ids."""
        ...


class Reference(Protocol):
    """What a runtime is held against."""

    @property
    def identity(self) -> Identity: ...

    @property
    def template(self) -> str: ...

    def tokenize(self, text: str) -> list[int]: ...

    def normal(self, text: str) -> str:
        """``text`` in the form of Unicode that the artifact asks text to be in, where it asks for one."""
        ...

    def logits(self, ids: Tensor, at: Tensor | None = None) -> Tensor: ...

    @property
    def matrices(self) -> frozenset[str]:
        """The names of the weights that a forward pass must multiply."""
        ...

    def errors(self, product: Product) -> tuple[Tensor, float]:
        """Errors of a product's outputs [tokens, out] in shares of their scale, and the largest that rounding explains.

        The scale of an output is |input| |row of the weight| / sqrt(in). Raises EngineError for an unknown weight.
        """
        ...

    def kept(self, found: Sequence[Kept]) -> str:
        """What is wrong with a cache's contents, "" where they are what they should be."""
        ...

    @property
    def pieces(self) -> Sequence[str]:
        """The texts of the vocabulary's ordinary tokens."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many ids there are."""
        ...

    @property
    def tolerance(self) -> Tolerance: ...

    def encode(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        """Token ids of a conversation that waits for an answer."""
        ...


def prove(engine: Runtime, reference: Reference) -> Proof:
    """Compare a runtime with its reference. Raises EngineError when either gives no finite logits."""
    checks = [each(engine, reference) for each in (_template, _tokens, _matrices, _cache, _logits)]
    return Proof(engine=engine.identity.key, reference=reference.identity.key, checks=tuple(checks))


def require(engine: Runtime, reference: Reference) -> Proof:
    """``prove``, for a caller that must not go on without it. Raises EngineError with the proof's sentence."""
    found = prove(engine, reference)
    if not found.passed:
        raise EngineError(f"{found.sentence}; make the file again, or judge it in another runtime")
    return found


def _template(engine: Runtime, reference: Reference) -> Check:
    wanted, found = reference.template, engine.template
    return Check(
        name="chat template",
        passed=wanted == found,
        asked=f"the baseline's ({len(wanted)} characters)",
        got="the baseline's chat template" if wanted == found else f"another one ({len(found)} characters)",
    )


def _tokens(engine: Runtime, reference: Reference) -> Check:
    pieces = list(reference.pieces)
    if len(pieces) > MOST_PIECES:
        pieces = random.Random(SEED).sample(pieces, MOST_PIECES)
    texts = [
        *map(reference.normal, TEXTS),
        *pieces,
        *(" ".join(pieces[at : at + 16]) for at in range(0, len(pieces), 16)),
    ]
    wrong = next((text for text in texts if engine.tokenize(text) != reference.tokenize(text)), None)
    if wrong is None:
        return Check(name="tokens", passed=True, asked="the baseline's", got=f"{len(texts)} texts tokenized alike")
    return Check(
        name="tokens",
        passed=False,
        asked=f"{reference.tokenize(wrong)[:8]}",
        got=f"{wrong[:40]!r} becomes {engine.tokenize(wrong)[:8]}",
    )


def _matrices(engine: Runtime, reference: Reference) -> Check:
    """Every product, of many rows at once and of single ones: kernels differ."""
    many = _many(reference)
    runs = engine.products(many), [one for token in many[:LEAST] for one in engine.products([token])]
    asked = "every output within what sums in another order explain"
    worst, count = 0.0, 0
    for how, run in zip(("", ", one row at a time"), runs, strict=True):
        if missing := sorted(reference.matrices - {one.weight for one in run}):
            return Check(name="matrices", passed=False, asked=asked, got=f"'{missing[0]}' is not multiplied{how}")
        for product in _stacked(run):
            errors, limit = reference.errors(product)
            off = errors.median(0).values  # over tokens: a code rounded otherwise is one token's matter
            worst, count = max(worst, float(off.max()) / limit), count + 1
            if not float(off.max()) <= limit:
                got = f"'{product.weight}' row {int(off.argmax())} is off by {float(off.max()):.1e} of its scale{how}"
                return Check(name="matrices", passed=False, asked=f"at most {limit:.0e}", got=got)
    return Check(
        name="matrices", passed=True, asked=asked, got=f"{count} products, errors up to {worst:.0e} of what is allowed"
    )


def _cache(engine: Runtime, reference: Reference) -> Check:
    found = engine.kept(_many(reference))
    asked = "keys and values turned and rounded as the cache's type says"
    wrong = reference.kept(found)
    kinds = "/".join(sorted({one.kind for one in found}))
    right = f"keys and values of {len(found) // 2} layers kept as {kinds} as they should be"
    return Check(name="cache", passed=not wrong, asked=asked, got=wrong or right)


def _many(reference: Reference) -> list[int]:
    """Ids of a row that is long enough for a median over its tokens."""
    return next(row for row in rows(reference) if len(row) >= LEAST)[:MOST_ROWS]


def _stacked(run: Sequence[Product]) -> list[Product]:
    """One product per weight, with the rows of all; tied embeddings are a table of rows and a matrix, so two."""
    parts: dict[tuple[str, int], list[Product]] = {}
    for one in run:
        parts.setdefault((one.weight, one.outputs.shape[-1]), []).append(one)
    return [
        Product(
            weight=weight,
            inputs=np.concatenate([one.inputs.reshape(len(one.outputs), -1) for one in found]),
            outputs=np.concatenate([one.outputs for one in found]),
        )
        for (weight, _), found in parts.items()
    ]


def _logits(engine: Runtime, reference: Reference) -> Check:
    """Divergence and error over every position of every row."""
    divergence, error, total, count = 0.0, 0.0, 0.0, 0
    for ids in rows(reference):
        batch = torch.tensor([ids])
        ours, theirs = reference.logits(batch)[0], engine.logits(batch)[0]
        if ours.shape != theirs.shape or not (bool(ours.isfinite().all()) and bool(theirs.isfinite().all())):
            raise EngineError(
                f"the runtime gives logits {list(theirs.shape)}, the reference {list(ours.shape)}, or some are not "
                "finite; they cannot be compared"
            )
        divergence += float(positions(ours, theirs, batch[0]).kl.sum())
        one, other = (logits.double() - logits.double().mean(-1, keepdim=True) for logits in (ours, theirs))
        error += float((other - one).square().mean(-1).sum())
        total += float(one.square().mean(-1).sum())
        count += len(ids)
    kl, spread = divergence / count, (error / max(total, 1e-30)) ** 0.5
    limit = reference.tolerance
    return Check(
        name="logits",
        passed=kl <= limit.kl and spread <= limit.spread,
        asked=f"at most {limit.kl:.1e} nats and {limit.spread:.1e} of the spread",
        got=f"mean KL {kl:.1e} nats, errors {spread:.1e} of the logits' spread over {count} positions",
    )


def rows(reference: Reference) -> list[list[int]]:
    """The ids that are fed: conversations where there is a template, the fixed texts, and ids of the vocabulary."""
    found = [reference.encode(turns) for turns in TURNS] if reference.template else []
    found += [reference.tokenize(text)[:LENGTH] for text in TEXTS]
    ids = list(range(reference.vocabulary))
    random.Random(SEED).shuffle(ids)
    every = ids[:MOST_IDS]
    found += [every[at : at + LENGTH] for at in range(0, len(every), LENGTH)]
    return [row for row in found if row]
