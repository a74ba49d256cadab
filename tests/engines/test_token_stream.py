"""Answers token by token are those of ``generate``, whatever was read before and whoever else is being answered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantgate.engines import Completion, Prompt
from quantgate.engines._kept import Keep, Kept, common
from quantgate.engines._pieces import Spelling, Stops
from quantgate.engines._sampling import Sampling, Taker
from quantgate.engines._token_stream import Answer, TokenStream
from quantgate.engines.torch import TorchEngine, open_engine
from quantgate.errors import EngineError
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize import Recipe, baseline
from quantgate.quantize.sweep import sweep

NOTHING = Keep(conversations=0)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small networks wait longer for a second thread than it saves, on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def plain(tiny: Any) -> TorchEngine:
    return open_engine(tiny, baseline(tiny), dtype="float32")


def ids_of(engine: TorchEngine, prompt: Prompt) -> list[int]:
    return engine.encode(prompt.turns)


def judged(engine: TorchEngine, prompt: Prompt) -> Completion:
    """The answer that evaluation sees."""
    [found] = engine.generate([prompt])
    assert isinstance(found, Completion)
    return found


def written(answer: Answer) -> tuple[str, str | None]:
    pieces = list(answer)
    assert all(piece.finish is None for piece in pieces[:-1])
    return "".join(piece.text for piece in pieces), pieces[-1].finish


# --- the same tokens ---


def test_answers_are_those_of_generate(plain: TorchEngine, prompts: list[Prompt]) -> None:
    stream = TokenStream(plain, NOTHING)
    for prompt, want in zip(prompts, plain.generate(prompts), strict=True):
        assert isinstance(want, Completion)
        answer = stream.texts(ids_of(plain, prompt), prompt.max_tokens)
        assert written(answer) == (want.text, want.finish)
        assert (len(answer.made), len(answer.prompt)) == (want.tokens, want.prompt_tokens)


def test_a_variant_answers_as_its_generate_does(tiny: Any, swept: Any, prompts: list[Prompt]) -> None:
    engine = open_engine(tiny, next(iter(swept.values())))
    stream = TokenStream(engine, NOTHING)
    for prompt in prompts[:6]:
        want = judged(engine, prompt)
        assert written(stream.texts(ids_of(engine, prompt), prompt.max_tokens)) == (want.text, want.finish)


def test_answers_that_take_turns_do_not_touch_each_other(plain: TorchEngine, prompts: list[Prompt]) -> None:
    stream = TokenStream(plain, NOTHING)
    alone = [written(stream.texts(ids_of(plain, one), 12))[0] for one in prompts[:5]]
    running = {at: stream.texts(ids_of(plain, one), 12) for at, one in enumerate(prompts[:5])}
    texts = dict.fromkeys(running, "")
    while running:
        for at, answer in list(running.items()):
            piece = next(answer)
            texts[at] += piece.text
            if piece.finish:
                del running[at]
    assert list(texts.values()) == alone


def test_a_long_prompt_is_read_slice_by_slice(tiny: Any, prompts: list[Prompt]) -> None:
    engine = open_engine(tiny, baseline(tiny), dtype="float32")
    ids = ids_of(engine, prompts[-1])
    want = written(TokenStream(engine, NOTHING).texts(ids, 12))
    engine.decoder.slice_tokens = 10
    pieces = list(TokenStream(engine, NOTHING).texts(ids, 12))
    reading = [piece for piece in pieces if not piece.tokens and not piece.finish]
    assert len(reading) == math.ceil(len(ids) / 10) - 1
    assert ("".join(piece.text for piece in pieces), pieces[-1].finish) == want


def test_what_does_not_fit_the_context_is_refused(plain: TorchEngine) -> None:
    stream = TokenStream(plain)
    for ids, most in (([1] * 250, 7), ([], 5), ([1], 0)):
        with pytest.raises(EngineError, match=f"prompt of {len(ids)} tokens and an answer of {most}"):
            stream.texts(ids, most)
    assert written(stream.texts([97] * 250, 6))[1] in ("stop", "length")


def test_an_engine_without_steps_is_refused() -> None:
    with pytest.raises(EngineError, match="does not answer token by token"):
        TokenStream(object())  # type: ignore[arg-type]


# --- reuse of what was read ---


def test_a_conversation_that_goes_on_reads_only_what_is_new(plain: TorchEngine, prompts: list[Prompt]) -> None:
    first = ids_of(plain, prompts[20])
    stream = TokenStream(plain)
    answer = stream.texts(first, 10)
    written(answer)
    longer = [*first, *answer.made, *ids_of(plain, prompts[3])]
    again = stream.texts(longer, 10)
    found = written(again)
    assert again.reused >= len(first) + len(answer.made) - 1
    assert found == written(TokenStream(plain, NOTHING).texts(longer, 10))


def test_an_answer_that_was_left_serves_the_next(plain: TorchEngine, prompts: list[Prompt]) -> None:
    stream = TokenStream(plain)
    ids = ids_of(plain, prompts[20])
    answer = stream.texts(ids, 10)
    next(answer), next(answer)
    answer.close()
    assert list(answer) == []
    again = stream.texts(ids, 10)
    assert written(again) == written(TokenStream(plain, NOTHING).texts(ids, 10))
    assert again.reused == len(ids) - 1


def reused_alike(engine: TorchEngine, prompts: list[Prompt]) -> None:
    """A second turn says the same with what the first one read and without it; both as ``generate`` does."""
    warm, cold = TokenStream(engine), TokenStream(engine, NOTHING)
    for prompt in prompts:
        ids = ids_of(engine, prompt)
        answer = warm.texts(ids, 12)
        want = judged(engine, Prompt(turns=prompt.turns, max_tokens=12))
        assert written(answer) == (want.text, want.finish)
        longer = [*ids, *answer.made, *ids]
        again = warm.texts(longer, 12)
        assert written(again) == written(cold.texts(longer, 12))
        assert again.reused >= len(ids)


@pytest.mark.parametrize("kv_cache", ["fp8", "int8"])
def test_rounded_caches_are_reused_as_they_are(kv_cache: str, tiny: Any, prompts: list[Prompt], tmp_path: Path) -> None:
    [made] = sweep(tiny, [[3] * 32], [Recipe(scheme="W8A16", method="rtn", kv_cache=kv_cache)], tmp_path)
    reused_alike(open_engine(tiny, made, dtype="float32"), prompts[9:15:2])


@pytest.mark.parametrize("kind", ["mistral", "qwen3"])
def test_windows_of_attention_are_reused_as_they_are(kind: str, prompts: list[Prompt], tmp_path: Path) -> None:
    window: dict[str, Any] = {"sliding_window": 8}
    if kind != "mistral":
        window |= {"use_sliding_window": True, "max_window_layers": 1, "head_dim": 32}
    model = open_model(save_random(tmp_path / kind, kind=kind, tied=False, **window))
    reused_alike(open_engine(model, baseline(model), dtype="float32"), prompts[9:15:2])


def test_the_oldest_conversation_is_given_up_first() -> None:
    kept: Kept[str] = Kept(Keep(conversations=2, least=1))
    kept.put([1, 2, 3], "a", 1)
    kept.put([4, 5, 6], "b", 1)
    assert kept.find([1, 2, 3, 9]) == (3, "a")
    kept.put([7, 8, 9], "c", 1)  # "b" was used longest ago
    assert kept.find([4, 5, 6, 9]) is None
    assert kept.find([1, 2, 3]) == (2, "a")  # one token is left to read


def test_what_is_kept_stays_within_its_bytes() -> None:
    kept: Kept[str] = Kept(Keep(bytes=10, least=1))
    kept.put([1, 1], "a", 6)
    kept.put([2, 2], "b", 6)
    assert [entry.held for entry in kept.entries] == ["b"]
    kept.put([3, 3], "larger than all", 11)
    assert [entry.held for entry in kept.entries] == ["b"]
    kept.put([2, 2, 2], "goes on from b", 8)
    assert [entry.held for entry in kept.entries] == ["goes on from b"]


@given(one=st.lists(st.integers(0, 1), max_size=20), other=st.lists(st.integers(0, 1), max_size=20))
def test_the_common_begin_is_counted(one: list[int], other: list[int]) -> None:
    count = common(one, other)
    assert one[:count] == other[:count]
    assert count == min(len(one), len(other)) or one[count] != other[count]


# --- text ---


def byte_text(ids: Sequence[int]) -> str:
    return bytes(ids).decode(errors="replace")


def runs(ids: Any) -> str:
    """Like SentencePiece's byte fallback: a run of bytes is one text, or as many broken characters as it has bytes."""
    text, run = "", b""
    for one in [*ids, None]:
        if one is not None and one < 256:
            run += bytes([one])
            continue
        try:
            text += run.decode()
        except UnicodeDecodeError:
            text += "\ufffd" * len(run)
        run = b""
        text += " w" if one is not None else ""
    return text[1:] if text.startswith(" ") else text  # and it strips the first blank


BYTES = st.lists(st.sampled_from([*b"ab {", *"é€🎉".encode(), 0xFF, 0x80, 0xE2]), max_size=30)


@given(ids=BYTES)
def test_pieces_of_bytes_are_the_text_of_all_bytes(ids: list[int]) -> None:
    spelling = Spelling(byte_text, lambda token: False)
    pieces = [spelling.push(one) for one in ids]
    assert "".join([*pieces, spelling.end()]) == byte_text(ids)


@given(text=st.text(max_size=20))
def test_no_piece_holds_half_a_character(text: str) -> None:
    spelling = Spelling(byte_text, lambda token: False)
    pieces = [spelling.push(one) for one in text.encode()]
    assert [piece for piece in pieces if piece] == list(text) or "\ufffd" in text


@given(ids=st.lists(st.sampled_from([*"aé".encode(), 0xFF, 256]), max_size=30))
def test_runs_of_byte_tokens_wait_for_their_end(ids: list[int]) -> None:
    spelling = Spelling(runs, lambda token: token < 256)
    pieces = [spelling.push(one) for one in ids]
    assert "".join([*pieces, spelling.end()]) == runs(ids)


@given(
    text=st.text("abc", max_size=30),
    stops=st.lists(st.text("abc", min_size=1, max_size=3), max_size=2),
    cuts=st.lists(st.integers(0, 30), max_size=6),
)
def test_stops_are_found_however_the_text_is_cut(text: str, stops: list[str], cuts: list[int]) -> None:
    """One stop text, or several of which none lies within another: then the first to end is the first to begin."""
    found = Stops(stops)
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    said = "".join(found.push(text[one:next]) for one, next in pairwise(edges)) + found.end()
    first = min((at for one in stops if (at := text.find(one)) >= 0), default=None)
    assert found.met == (first is not None)
    if len(set(stops)) == 1 or first is None:
        assert said == (text if first is None else text[:first])
    assert text.startswith(said) and not any(one in said for one in stops)


def test_a_stop_text_ends_an_answer_as_in_generate(plain: TorchEngine, prompts: list[Prompt]) -> None:
    stream = TokenStream(plain, NOTHING)
    for prompt in prompts[8:14]:
        text = judged(plain, Prompt(turns=prompt.turns, max_tokens=24)).text
        stop = next(one for one in text[2:] if one != "\ufffd")
        want = judged(plain, Prompt(turns=prompt.turns, max_tokens=24, stop=(stop,)))
        answer = stream.texts(ids_of(plain, prompt), 24, stop=[stop])
        assert written(answer) == (want.text, "stop")
        assert len(answer.made) == want.tokens


# --- chance and forms ---


class Digits:
    """A form: a run of digits of a length, then the end."""

    def __init__(self, engine: TorchEngine, length: int) -> None:
        self.digits, self.left = engine.tokens("0123456789", False), length

    @property
    def ended(self) -> bool:
        return self.left == 0

    def allowed(self, logits: Tensor) -> None:
        keep = logits[self.digits].clone()
        logits.fill_(-torch.inf)
        logits[self.digits] = keep

    def take(self, token: int) -> bool:
        self.left -= 1
        return token in self.digits


def test_a_form_holds_the_answer_and_ends_it(plain: TorchEngine, prompts: list[Prompt]) -> None:
    stream = TokenStream(plain)
    for sampling in (Sampling(), Sampling(temperature=1.5, seed=3)):
        text, finish = written(stream.texts(ids_of(plain, prompts[5]), 30, sampling, mask=Digits(plain, 6)))
        assert len(text) == 6 and text.isdigit() and finish == "stop"


def test_a_form_without_a_way_on_is_an_error(plain: TorchEngine, prompts: list[Prompt]) -> None:
    class Shut(Digits):
        def allowed(self, logits: Tensor) -> None:
            logits.fill_(-torch.inf)

    with pytest.raises(EngineError, match="no token may follow"):
        list(TokenStream(plain).texts(ids_of(plain, prompts[5]), 30, mask=Shut(plain, 3)))


def test_the_same_seed_gives_the_same_answer_and_another_one_another(plain: TorchEngine, prompts: list[Prompt]) -> None:
    stream = TokenStream(plain)

    def text(seed: int) -> str:
        return written(stream.texts(ids_of(plain, prompts[9]), 20, Sampling(temperature=1.0, seed=seed)))[0]

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(4)}) > 1


def drawn(count: int = 4000, **how: Any) -> Iterator[int]:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    taker = Taker(Sampling(temperature=1.0, seed=0, **how))
    return (taker.take(logits.clone())[0] for _ in range(count))


def test_tokens_are_drawn_by_their_chances() -> None:
    found = list(drawn())
    for token, share in enumerate((0.5, 0.3, 0.15, 0.05)):
        spread = math.sqrt(share * (1 - share) * len(found))
        assert abs(found.count(token) - share * len(found)) < 5 * spread


@pytest.mark.parametrize(
    ("how", "left"),
    [
        ({"top_p": 0.7}, {0, 1}), ({"top_p": 0.5}, {0}), ({"top_p": 0.0}, {0}), ({"top_k": 3}, {0, 1, 2}),
        ({"min_p": 0.25}, {0, 1, 2}), ({"bias": {0: -100.0}}, {1, 2, 3}),
    ],
)  # fmt: skip
def test_only_the_allowed_tokens_are_drawn(how: dict[str, Any], left: set[int]) -> None:
    assert set(drawn(**how)) == left


def test_penalties_make_written_tokens_less_likely() -> None:
    logits = torch.tensor([3.0, 2.5, 2.0])
    taker = Taker(Sampling(presence=0.4, frequency=0.5))
    assert [taker.take(logits.clone())[0] for _ in range(4)] == [0, 1, 0, 2]


def test_logprobs_are_the_models_own() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    token, told = Taker(Sampling(bias={2: 9.0}, logprobs=2)).take(logits)
    assert token == 2 and told is not None
    assert math.isclose(told.logprob, math.log(0.2), rel_tol=1e-5)
    assert [one for one, _ in told.top] == [0, 1]
