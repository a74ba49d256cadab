"""Prove, before anything is evaluated, that a runtime computes what its artifact says.

    found = prove(engine, GgufReference(model, artifact))      # engine: the llamacpp engine on the same artifact
    found.passed, found.sentence

Three things are compared: the chat template that the runtime has loaded, the tokens it makes of fixed texts and of every
piece of the vocabulary, and its logits on fixed token ids. The reference decodes the artifact's own numbers and runs
them in transformers, inputs and cache rounded as the runtime's kernels round them, so that what is left is the order of
sums. A runtime that misreads a block, loses a tensor or splits a word otherwise is far outside of that; the tolerances
below lie between the two, and docs/LOG.md has both sides.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from quantgate.engines import Identity
from quantgate.errors import EngineError
from quantgate.evaluate.drift import positions
from quantgate.records import Record

TEXTS = (
    "Hello, world! It's 3 o'clock; we'll meet at 12:45 (or so).",
    "def f(x):\n    return {'a': [1, 2.5, -3e10], \"b\": None}\n\n\n\t# end",
    "  leading, trailing  \n \n\t\t mixed   spaces \r\n",
    "1 22 333 4444 55555 666666 3.14159 1,000,000",
    "ΑΒΓ δέλτα Привет мир שלום עולם مرحبا नमस्ते 你好，世界 こんにちは 안녕하세요",
    "naïve café Ångström e\u0301 ﬁ ½ ™ → ∑ 🙂 👩‍🚀 🇪🇺",
    "DON'T don't Don'T I'LL they've ''quoted'' ``ticks`` ------ ====== ......",
)
TURNS = (
    (("user", "What is 17 + 25?"),),
    (("system", "Answer in JSON."), ("user", "Name three colours."), ("assistant", '["red"]'), ("user", "Two more.")),
)
MOST_PIECES = 4096  # of the vocabulary that are tokenized each by itself, and fed as ids
LENGTH = 256  # ids in a row
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
    """How far logits may be apart. Differences are taken after each position's mean is subtracted."""

    kl: float  # the largest divergence at any position, in nats
    token: float  # the largest error of one token's logit over all positions, as a share of the logits' spread


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


class Reference(Runtime, Protocol):
    """What a runtime is held against."""

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
    checks = [_template(engine, reference), _tokens(engine, reference), *_logits(engine, reference)]
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
    texts = [*TEXTS, *pieces, *(" ".join(pieces[at : at + 16]) for at in range(0, len(pieces), 16))]
    wrong = next((text for text in texts if engine.tokenize(text) != reference.tokenize(text)), None)
    if wrong is None:
        return Check(name="tokens", passed=True, asked="the baseline's", got=f"{len(texts)} texts tokenized alike")
    return Check(
        name="tokens",
        passed=False,
        asked=f"{reference.tokenize(wrong)[:8]}",
        got=f"{wrong[:40]!r} becomes {engine.tokenize(wrong)[:8]}",
    )


def _logits(engine: Runtime, reference: Reference) -> list[Check]:
    """Divergence of the next token's distribution, and the worst error of any single token's logit."""
    kl, spread = 0.0, 0.0
    squared: Tensor | None = None
    count = 0
    for ids in rows(reference):
        batch = torch.tensor([ids])
        ours, theirs = reference.logits(batch)[0], engine.logits(batch)[0]
        if ours.shape != theirs.shape or not (bool(ours.isfinite().all()) and bool(theirs.isfinite().all())):
            raise EngineError(
                f"the runtime gives logits {list(theirs.shape)}, the reference {list(ours.shape)}, or some are not "
                "finite; they cannot be compared"
            )
        kl = max(kl, float(positions(ours, theirs, batch[0]).kl.max()))
        centred = ours - ours.mean(-1, keepdim=True)
        error = (theirs - theirs.mean(-1, keepdim=True) - centred).double().square().sum(0)
        squared = error if squared is None else squared + error
        spread += float(centred.double().square().sum())
        count += len(ids)
    assert squared is not None  # rows() is never empty
    scale = (spread / (count * len(squared))) ** 0.5
    worst = float((squared / count).sqrt().max()) / max(scale, 1e-12)
    limit, token = reference.tolerance, int(squared.argmax())
    return [
        Check(name="logits", passed=kl <= limit.kl, asked=f"at most {limit.kl:.1e} nats", got=f"KL up to {kl:.1e} nats"),
        Check(name="logit of each token", passed=worst <= limit.token, asked=f"at most {limit.token:.1e} of the spread",
              got=f"errors up to {worst:.1e} of the spread (token {token})"),
    ]  # fmt: skip


def rows(reference: Reference) -> list[list[int]]:
    """The ids that are fed: conversations where there is a template, the fixed texts, and ids of the vocabulary."""
    found = [reference.encode(turns) for turns in TURNS] if reference.template else []
    found += [reference.tokenize(text)[:LENGTH] for text in TEXTS]
    ids = list(range(reference.vocabulary))
    random.Random(SEED).shuffle(ids)
    every = ids[:MOST_PIECES]
    found += [every[at : at + LENGTH] for at in range(0, len(every), LENGTH)]
    return [row for row in found if row]

