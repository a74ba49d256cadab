from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.errors import UsageError
from quantgate.train import Document
from quantgate.train.loop import batches
from quantgate.train.order import batch_of, packed


def documents(lengths: list[int]) -> list[Document]:
    return [Document("made", [at + 1] * length, [0.0] + [1.0] * (length - 1)) for at, length in enumerate(lengths)]


lengths = st.lists(st.integers(2, 64), min_size=1, max_size=50)


@settings(max_examples=30)
@given(lengths, st.integers(64, 400), st.integers(0, 9))
def test_every_document_comes_once_before_any_comes_again(sizes: list[int], tokens: int, seed: int) -> None:
    some = documents(sizes)
    seen = [row for step in range(8) for batch in batches(some, tokens, step, seed) for row in batch.rows]
    counts = Counter(seen)
    assert max(counts[row] for row in range(len(some))) - min(counts[row] for row in range(len(some))) <= 1


@settings(max_examples=30)
@given(lengths, st.integers(64, 400), st.integers(0, 9), st.integers(0, 1000))
def test_a_step_follows_from_seed_and_step_alone_and_is_never_empty(
    sizes: list[int], tokens: int, seed: int, step: int
) -> None:
    some = documents(sizes)
    one, other = batches(some, tokens, step, seed), batches(some, tokens, step, seed)
    assert [batch.rows for batch in one] == [batch.rows for batch in other]
    found = sum(len(some[row].ids) for batch in one for row in batch.rows)
    assert 0 < found < tokens + 64


def test_another_seed_is_another_order() -> None:
    some = documents(list(range(10, 60)))
    orders = {tuple(row for batch in batches(some, 128, 0, seed) for row in batch.rows) for seed in range(5)}
    assert len(orders) == 5


@settings(max_examples=30)
@given(lengths, st.integers(32, 600))
def test_batches_hold_each_row_once_and_no_more_than_their_room(sizes: list[int], room: int) -> None:
    some = documents(sizes)
    parts = packed(some, range(len(some)), room)
    assert sorted(row for part in parts for row in part.rows) == list(range(len(some)))
    assert all(part.ids.numel() <= room or len(part.rows) == 1 for part in parts)


def test_little_is_padded() -> None:
    draw = torch.Generator().manual_seed(1)
    some = documents(torch.randint(20, 512, (4000,), generator=draw).tolist())
    padded = whole = 0
    for step in range(40):
        for batch in batches(some, 4096, step, 0):
            whole += batch.ids.numel()
            padded += int((batch.ids == 0).sum())
    assert padded / whole < 0.12


def test_a_batch_counts_the_next_token() -> None:
    some = [Document("a", [5, 6, 7], [0.0, 0.1, 1.0]), Document("b", [8, 9], [0.0, 1.0])]
    batch = batch_of(some, [0, 1])
    assert batch.ids.tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch.counted.tolist() == [[True, True, False], [True, False, False]]
    assert batch.targets.tolist() == [6, 7, 9]
    torch.testing.assert_close(batch.weights, torch.tensor([0.1, 1.0, 1.0]))
    assert [len(one.counted) for one in some] == batch.counted.sum(1).tolist()


@pytest.mark.parametrize("sizes", [[10, 90], []])
def test_a_step_that_holds_no_whole_conversation_is_refused(sizes: list[int]) -> None:
    with pytest.raises(UsageError, match=r"batch_tokens 64: the longest of \d conversations has (90|0) tokens"):
        batches(documents(sizes), 64, 0, 0)
