"""Speculation by itself: two chains of tokens stand for the models, and their caches check every token that is fed."""

from __future__ import annotations

import ctypes
from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (quantgate[gguf])")

from quantgate.engines._llama_answers import Answerer, Row
from quantgate.engines._llama_choose import Likeliest, Rejection, distribution
from quantgate.engines._llama_drafts import Speculator, Tally

WORDS = 5


class Chain:
    """A context whose next token depends on the two before it; it refuses a token that is out of its place."""

    room = 512

    def __init__(self, seed: int, words: int = WORDS, scale: float = 2.0) -> None:
        self.table = np.random.default_rng(seed).normal(0, scale, (words, words, words)).astype(np.float32)
        self.cells: dict[int, list[int]] = {}

    def after(self, tokens: list[int]) -> Any:
        return self.table[tokens[-2] if len(tokens) > 1 else 0, tokens[-1]]

    def clear(self) -> None:
        self.cells = {}

    def forget(self, sequence: int, start: int) -> None:
        assert start < len(self.cells[sequence])
        del self.cells[sequence][start:]

    def decode(self, tokens: Any) -> Any:
        found = []
        for token, position, sequence, wanted in tokens:
            cells = self.cells.setdefault(sequence, [])
            assert position == len(cells)
            cells.append(token)
            if wanted:
                found.append(self.after(cells))
        return np.stack(found) if found else np.zeros((0, WORDS), dtype=np.float32)


def speculate(target: Chain, draft: Chain, rows: list[Row], tokens: int, choosers: Any, stops: Any = ()) -> Any:
    made, tally = Speculator(target, draft, tokens, set(stops)).answer(rows, choosers)  # type: ignore[arg-type]
    return made.made, tally


@given(st.integers(0, 10**6), st.integers(1, 6), st.lists(st.tuples(st.integers(1, 4), st.integers(1, 12)), min_size=1,
       max_size=4), st.sets(st.integers(0, WORDS - 1), max_size=1), st.booleans())  # fmt: skip
@settings(max_examples=150)
def test_greedy_answers_are_those_without_a_draft(
    seed: int, tokens: int, shapes: list[tuple[int, int]], stops: set[int], same: bool
) -> None:
    random = np.random.default_rng(seed)
    rows = [Row(at, random.integers(0, WORDS, size).tolist(), budget) for at, (size, budget) in enumerate(shapes)]
    target, draft = Chain(seed), Chain(seed if same else seed + 1)
    plain = Answerer(target, stops).answer(rows).made  # type: ignore[arg-type]
    made, tally = speculate(target, draft, rows, tokens, [Likeliest() for _ in rows], stops)
    assert made == plain
    written = sum(map(len, made)) - len(rows)
    assert tally.accepted <= tally.drafted and written <= tally.passes + tally.accepted
    if same:
        assert tally.accepted == tally.drafted


def test_drafts_that_stand_save_passes() -> None:
    rows = [Row(0, [1, 2], 41)]
    _, same = speculate(Chain(3), Chain(3), rows, 4, [Likeliest()])
    assert (same.passes, same.drafted, same.accepted) == (8, 32, 32)  # 40 tokens, five to a pass
    _, other = speculate(Chain(3), Chain(4), rows, 4, [Likeliest()])
    assert other.accepted < other.drafted and other.passes + other.accepted >= 40


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_rejection_keeps_the_targets_distribution(tokens: int) -> None:
    """Answers of three tokens over three words: the frequencies of all 27 against their exact chances."""
    words, count = 3, 6000
    target, draft = Chain(7, words, 1.5), Chain(8, words, 1.5)
    rows = [Row(at, [0, 1], 3) for at in range(count)]
    made, tally = speculate(target, draft, rows, tokens, [Rejection(0.8, 0, 1.0, seed) for seed in range(count)])
    assert 0.2 < tally.accepted / tally.drafted < 0.95
    wanted = []
    for answer in product(range(words), repeat=3):
        chance = 1.0
        for at, token in enumerate(answer):
            chance *= distribution(target.after([0, 1, *answer[:at]]), 0.8, 0, 1.0)[token]
        wanted.append(count * chance)
    seen = Counter(map(tuple, made))
    assert chisquare([seen[answer] for answer in product(range(words), repeat=3)], wanted).pvalue > 1e-3
    drafts = [count * one for one in distribution(draft.after([0, 1]), 0.8, 0, 1.0)]
    first = Counter(one[0] for one in made)
    assert chisquare([first[word] for word in range(words)], drafts).pvalue < 1e-3  # the test can tell them apart


def test_a_draft_that_says_what_the_target_says_always_stands() -> None:
    rows = [Row(at, [at % WORDS], 20) for at in range(50)]
    _, tally = speculate(Chain(1), Chain(1), rows, 3, [Rejection(1.0, 3, 0.9, seed) for seed in range(50)])
    assert isinstance(tally, Tally) and tally.accepted == tally.drafted > 0


def test_close_choices_are_counted() -> None:
    one = Likeliest()
    assert one.choose(np.array([1.0, 0.0, 0.999], dtype=np.float32), 0, None) == 0 and one.close == 1
    assert one.choose(np.array([1.0, 0.0, 0.5], dtype=np.float32), 0, 0) == 0 and one.close == 1


def test_distribution_by_hand() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    assert distribution(logits, 1.0, 0, 1.0) == pytest.approx([0.5, 0.3, 0.15, 0.05])
    assert distribution(logits, 1.0, 2, 1.0) == pytest.approx([0.625, 0.375, 0, 0])
    assert distribution(logits, 1.0, 0, 0.6) == pytest.approx([0.625, 0.375, 0, 0])
    assert distribution(logits, 0.5, 0, 0.5) == pytest.approx([1, 0, 0, 0])
    assert distribution(logits, 0.5, 2, 1.0) == pytest.approx([25 / 34, 9 / 34, 0, 0])


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(0.7, 0, 1.0), (1.3, 20, 1.0), (1.0, 0, 0.8), (1.5, 40, 0.9)]
)
def test_distribution_is_that_of_llama_cpps_samplers(temperature: float, top_k: int, top_p: float) -> None:
    import llama_cpp

    logits = np.random.default_rng(5).normal(0, 3, 300).astype(np.float32)
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    parts = [llama_cpp.llama_sampler_init_top_k(top_k)] if top_k else []
    parts += [llama_cpp.llama_sampler_init_top_p(top_p, 1)] if top_p < 1 else []
    parts += [llama_cpp.llama_sampler_init_temp(temperature), llama_cpp.llama_sampler_init_dist(1)]
    for part in parts:
        llama_cpp.llama_sampler_chain_add(chain, part)
    data = (llama_cpp.llama_token_data * 300)()
    for token, logit in enumerate(logits):
        data[token].id, data[token].logit, data[token].p = token, logit, 0.0
    array = llama_cpp.llama_token_data_array(data=data, size=300, selected=-1, sorted=False)
    llama_cpp.llama_sampler_apply(chain, ctypes.byref(array))
    found = np.zeros(300)
    for at in range(array.size):
        found[array.data[at].id] = array.data[at].p
    llama_cpp.llama_sampler_free(chain)
    assert distribution(logits, temperature, top_k, top_p) == pytest.approx(found / found.sum(), abs=1e-5)
