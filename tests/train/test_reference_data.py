"""What the reference model is trained on: tokens, documents, batches and the mixture."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from quantgate.errors import DataError
from quantgate.evaluate import suites
from quantgate.train.reference import tokenizer as bpe
from quantgate.train.reference.data import Document, Stream, batches, encode, of_draft
from quantgate.train.reference.loop import SHARES, Plan

WANTED = {name: 1.0 for name in SHARES}


@given(st.text(max_size=80))
def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False) == text


@given(st.integers(0, 10**9))
def test_a_number_is_its_digits(tokenizer: PreTrainedTokenizerFast, number: int) -> None:
    assert tokenizer.tokenize(f"{number}") == list(str(number))


def test_no_token_holds_two_digits(tokenizer: PreTrainedTokenizerFast) -> None:
    assert not [token for token in tokenizer.get_vocab() if sum(letter.isdigit() for letter in token) > 1]


@pytest.mark.parametrize("name", SHARES)
def test_training_sees_what_the_chat_template_writes(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    source = suites.drafts(suites.get(name), "train", 0)
    for _ in range(20):
        draft = next(source)
        messages = [{"role": role, "content": text} for role, text in draft.messages]
        document = of_draft(tokenizer, name, draft)
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert document.ids[: len(prompt)] == prompt
        wanted = [token for token, want in zip(document.ids, document.wanted, strict=True) if want]
        assert tokenizer.decode(wanted) == draft.answer + bpe.END
        assert document.ids[len(prompt) :] == wanted


def test_prompts_count_as_much_as_is_asked_for(tokenizer: PreTrainedTokenizerFast) -> None:
    turns: list[tuple[suites.Role, str]] = [("user", "one plus two"), ("assistant", "three")]
    document = encode(tokenizer, "x", turns, every_answer=True, prompts=0.25)
    (part,) = batches([document], tokenizer.pad_token_id)
    assert part.targets.tolist() == document.ids[1:]
    assert set(part.weights.tolist()) == {0.25, 1.0}
    answer = part.targets[part.weights == 1].tolist()
    assert tokenizer.decode(answer) == f"three{bpe.END}"


def test_every_answer_of_a_conversation_can_be_wanted(tokenizer: PreTrainedTokenizerFast) -> None:
    turns: list[tuple[suites.Role, str]] = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    every = encode(tokenizer, "x", turns, every_answer=True)
    last = encode(tokenizer, "x", turns, every_answer=False)
    assert tokenizer.decode([one for one, want in zip(every.ids, every.wanted, strict=True) if want]) == (
        f"b{bpe.END}d{bpe.END}"
    )
    assert tokenizer.decode([one for one, want in zip(last.ids, last.wanted, strict=True) if want]) == f"d{bpe.END}"


documents = st.lists(
    st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=2, max_size=40).map(
        lambda pairs: Document("x", [token for token, _ in pairs], [0.0, *(float(want) for _, want in pairs[1:])])
    ),
    min_size=1,
    max_size=20,
)


@given(documents, st.integers(40, 200))
def test_batches_hold_every_wanted_token_once_behind_its_own_past(given: list[Document], size: int) -> None:
    seen: Counter[tuple[tuple[int, ...], int]] = Counter()
    for part in batches(given, pad=0, tokens=size):
        assert part.ids.numel() <= max(size, part.ids.shape[1])
        places = part.answered.nonzero().tolist()
        assert part.owner.tolist() == [row for row, _ in places]
        for (row, column), target in zip(places, part.targets.tolist(), strict=True):
            seen[tuple(part.ids[row, : column + 1].tolist()), target] += 1
    wanted = Counter(
        (tuple(one.ids[:index]), one.ids[index])
        for one in given
        for index in range(1, len(one.ids))
        if one.wanted[index]
    )
    assert seen == wanted


def test_copy_drills_want_all_but_the_first_round(tokenizer: PreTrainedTokenizerFast) -> None:
    stream = Stream(tokenizer, 3)
    stream.restart(0, WANTED)
    for _ in range(50):
        drill = stream.copy_drill()
        # the first token of the second round could be anything; from then on each follows from what stands above
        start = drill.wanted.index(True)
        period = start - 2
        assert 2 <= period <= 24 and all(drill.wanted[start:])
        assert min(drill.ids[1:]) >= len(bpe.SPECIAL)
        assert drill.ids[start:] == drill.ids[start - period : -period]


def test_a_stream_depends_on_seed_step_and_shares_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    first, second = Stream(tokenizer, 3), Stream(tokenizer, 3)
    first.restart(0, WANTED)
    first.step(2000, 1024, 0.3)  # a past that the other one does not have
    first.restart(40, WANTED)
    second.restart(40, WANTED)
    for left, right in zip(first.step(4000, 1024, 0.3), second.step(4000, 1024, 0.3), strict=True):
        assert left.ids.tolist() == right.ids.tolist()
    other = Stream(tokenizer, 3)
    other.restart(41, WANTED)
    assert [part.ids.tolist() for part in other.step(4000, 1024, 0.3)] != [
        part.ids.tolist() for part in second.step(4000, 1024, 0.3)
    ]


def test_the_mixture_is_kept_in_tokens_and_lengths_are_obeyed(tokenizer: PreTrainedTokenizerFast) -> None:
    stream = Stream(tokenizer, 3)
    stream.restart(0, SHARES)
    spent, source = Counter[str](), stream.documents(1024)
    while spent.total() < 60_000:
        document = next(source)
        assert len(document.ids) <= 1024
        spent[document.suite] += len(document.ids)
    for name, share in SHARES.items():
        assert spent[name] / spent.total() == pytest.approx(share / sum(SHARES.values()), abs=0.02)


def test_a_length_that_no_document_has_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    stream = Stream(tokenizer, 3)
    stream.restart(0, {"json_tools": 1.0})
    with pytest.raises(DataError, match="suite 'json_tools': no document of at most 40 tokens among 1000"):
        next(stream.documents(40))


def test_a_word_is_the_same_tokens_wherever_it_stands(tokenizer: PreTrainedTokenizerFast) -> None:
    for word in ("Vera", "gorkstork", "kilos", "shuffled"):
        alone = tokenizer.tokenize(word)
        for around in ("to {} now", '"{}"', "-{}-", "({})", "\n{}:"):
            tokens = tokenizer.tokenize(around.format(word))
            assert any(tokens[start : start + len(alone)] == alone for start in range(len(tokens)))


def test_the_plan_warms_up_decays_to_nothing_and_lengthens() -> None:
    plan = Plan()
    rates = [plan.rate(step) for step in range(plan.steps)]
    assert max(rates) == 1.0 and rates.index(1.0) == plan.warmup_steps - 1 and rates[-1] < 1e-3
    assert all(
        early >= late for early, late in zip(rates[plan.warmup_steps :], rates[plan.warmup_steps + 1 :], strict=False)
    )
    assert [plan.length(int(part * plan.steps) + 1) for part, _ in plan.lengths] == [size for _, size in plan.lengths]
    shares = [plan.copy_share(step) for step in range(plan.steps)]
    assert shares == sorted(shares, reverse=True)
