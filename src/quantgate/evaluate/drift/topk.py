"""Drift where an engine tells the likeliest tokens alone: a lower bound of the full figures.

Both distributions are seen through one partition of the vocabulary: every token whose probability both sides told, and
one bucket for all the rest. By the data-processing inequality KL and total variation of the coarser pair are at most
those of the full one (Cover and Thomas, "Elements of Information Theory", 2nd ed., section 2.8; Csiszar 1967). A token
that one side left out of its likeliest stands in the rest on both sides, so the bound stays a bound. Tokens are told
apart by their texts, which is all that a server gives.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch

from quantgate.engines import Engine, Failure, Remote, Speller, TokenLogprobs
from quantgate.errors import EngineError
from quantgate.evaluate.drift.distances import TOP, Positions
from quantgate.evaluate.drift.figures import check, summarize
from quantgate.evaluate.drift.passages import Passage, is_structured, parts_of, pieces
from quantgate.evaluate.drift.places import Places
from quantgate.evaluate.drift.tables import groups_of, tables_of
from quantgate.evaluate.drift_record import Drift
from quantgate.evaluate.suites import Case

UNREADABLE = "�"  # part of a character: several tokens are written so, and they are not one
DUST = 1e-6  # probabilities come rounded: a rest that is smaller is none
GRAIN = 1e-9  # less than this is what sums of floats leave over
MAX_FAILED = 0.02  # of the cases; with more, what is left is a choice of the server's


def lower_bounds(base: Mapping[str, float], other: Mapping[str, float]) -> tuple[float, float]:
    """At least how large KL(P, Q) in nats and total variation are, of which both sides told some ln probabilities.

    >>> [round(one, 6) for one in lower_bounds({"a": math.log(0.5)}, {"a": math.log(0.25), "b": math.log(0.5)})]
    [0.143841, 0.25]
    """
    shared = [token for token in base if token in other and UNREADABLE not in token]
    pairs = [(math.exp(base[token]), math.exp(other[token])) for token in shared]
    p, q = (max(0.0, 1.0 - math.fsum(side)) for side in (zip(*pairs, strict=True) if pairs else ([], [])))
    pairs.sort(key=lambda pair: -pair[1])
    while pairs and q <= DUST and p > GRAIN:  # a rest that rounding may have eaten joins the unlikeliest token
        one, two = pairs.pop()
        p, q = p + one, q + two
    buckets = [*pairs, (p, q)]
    solid = [(one, two) for one, two in buckets if one > 0 and two > 0 and max(one / GRAIN, two / DUST) > 1]
    divergence = math.fsum(one * math.log(one / two) for one, two in solid)
    return max(0.0, divergence), math.fsum(abs(one - two) for one, two in buckets) / 2


class Local:
    """An engine with logits, asked as if it told its likeliest tokens alone, so that it can stand beside a server."""

    def __init__(self, engine: Engine) -> None:
        """Raises EngineError for an engine that cannot spell its tokens."""
        if not isinstance(engine, Speller):
            raise EngineError(
                f"engine {engine.identity.engine} does not say what its tokens stand for; measure drift on one that "
                "does, such as torch"
            )
        self.engine, self.speller = engine, engine
        self.unique: set[str] | None = None

    def _named(self, ids: Sequence[int], width: int) -> list[str]:
        """The tokens' texts, with the id where several have one text: those cannot be matched with a server's."""
        if self.unique is None:
            self.unique = {text for text, times in Counter(self.speller.spell(range(width))).items() if times == 1}
        texts = self.speller.spell(ids)
        return [text if text in self.unique else f"{text}#{one}" for one, text in zip(ids, texts, strict=True)]

    def answer_logprobs(self, turns: Sequence[tuple[str, str]], top: int) -> list[TokenLogprobs] | Failure:
        whole, prompt = self.engine.encode(turns), self.engine.encode(turns[:-1])
        found = []
        for ids, at, targets in pieces(parts_of([Passage(whole, len(prompt), 0)])[0], len(whole)):
            logs = self.engine.logits(ids, at).double().log_softmax(-1)
            values, order = logs.topk(min(top, logs.shape[-1]), dim=-1)
            told, texts = (
                logs.gather(-1, targets[:, None])[:, 0].tolist(),
                self._named(targets.tolist(), logs.shape[-1]),
            )
            for row, (token, logprob) in enumerate(zip(texts, told, strict=True)):
                best = dict(zip(self._named(order[row].tolist(), logs.shape[-1]), values[row].tolist(), strict=True))
                found.append(TokenLogprobs(token=token, logprob=logprob, top=best))
        return found


def remote_drift(
    baseline: Remote,
    variant: Remote,
    cases: Sequence[Case],
    progress: Callable[[int, int], None] | None = None,
    *,
    top: int = TOP,
) -> Drift:
    """The drift of one variant on the known answers of ``cases``; KL and total variation are lower bounds.

    Perplexities and the change of the true token's probability are exact: both sides tell them. Raises EngineError
    when more than 2 % of the cases fail or are cut into other tokens by the other side, and as ``check`` does.
    """
    answered = [case for case in cases if case.answer is not None]
    rows, failed = list[tuple[int, TokenLogprobs, TokenLogprobs, int]](), list[str]()
    for index, case in enumerate(answered):
        turns = [*((message.role, message.content) for message in case.messages), ("assistant", str(case.answer))]
        sides = [side.answer_logprobs(turns, top) for side in (baseline, variant)]
        problem = _problem(sides)
        if problem:
            failed.append(f"{case.id}: {problem}")
        else:
            rows += [(index, one, two, at) for at, (one, two) in enumerate(_pairs(sides), 1)]
        if progress:
            progress(index + 1, len(answered))
    if len(failed) > MAX_FAILED * len(answered):
        raise EngineError(f"drift cannot be measured: {len(failed)} of {len(answered)} cases failed, first {failed[0]}")
    seen = _positions(rows)
    check(seen)
    places = _places(rows, answered)
    groups = [one for one in groups_of(places, [], None) if one[0] != "position in the sequence"]
    return summarize(seen, places.document, tables=tables_of(seen, places, groups), lower_bound=True)


def _problem(sides: Sequence[list[TokenLogprobs] | Failure]) -> str:
    for name, side in zip(("baseline", "variant"), sides, strict=True):
        if isinstance(side, Failure):
            return f"{name}: {side.reason}"
    first, second = ([one.token for one in side] for side in sides if not isinstance(side, Failure))
    if len(first) != len(second) or any(one != two for one, two in zip(first, second, strict=True)):
        return f"the sides cut the answer into different tokens ({len(first)} and {len(second)})"
    return ""


def _pairs(sides: Sequence[list[TokenLogprobs] | Failure]) -> list[tuple[TokenLogprobs, TokenLogprobs]]:
    first, second = (side for side in sides if not isinstance(side, Failure))
    return list(zip(first, second, strict=True))


def _positions(rows: Sequence[tuple[int, TokenLogprobs, TokenLogprobs, int]]) -> Positions:
    bounds = [lower_bounds(_known(one), _known(two)) for _, one, two, _ in rows]
    numbers = torch.tensor([[kl, tv] for kl, tv in bounds], dtype=torch.float64).reshape(-1, 2)
    none = torch.full((len(rows),), torch.nan, dtype=torch.float64)

    def nll(side: int) -> torch.Tensor:
        return torch.tensor([-row[side].logprob for row in rows], dtype=torch.float64)  # type: ignore[union-attr]

    return Positions(
        kl=numbers[:, 0],
        nll_baseline=nll(1),
        nll_variant=nll(2),
        same_top=torch.tensor([_best(one) == _best(two) for _, one, two, _ in rows], dtype=torch.bool),
        tv=numbers[:, 1],
        top_baseline=none,
        top_variant=none,
        nucleus_baseline=none,
        nucleus_variant=none,
    )


def _known(one: TokenLogprobs) -> dict[str, float]:
    """What was told, the true token included, which both sides tell however unlikely it is."""
    return {**one.top, one.token: one.logprob}


def _best(one: TokenLogprobs) -> str:
    known = _known(one)
    return max(known, key=lambda token: known[token])


def _places(rows: Sequence[tuple[int, TokenLogprobs, TokenLogprobs, int]], cases: Sequence[Case]) -> Places:
    index = torch.tensor([row[0] for row in rows], dtype=torch.long)
    vocabulary = {token: at for at, token in enumerate(sorted({one.token for _, one, _, _ in rows}))}
    return Places(
        document=index,
        passage=index,
        position=torch.zeros_like(index),  # not told
        answer=torch.tensor([row[3] for row in rows], dtype=torch.long),
        token=torch.tensor([vocabulary[one.token] for _, one, _, _ in rows], dtype=torch.long),
        names=[(f"suite={case.suite}", *case.slices) for case in cases],
        structured=[is_structured(str(case.answer)) for case in cases],
    )
