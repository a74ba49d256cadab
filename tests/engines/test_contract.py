"""What every engine promises. A new engine is tested here once it has an entry in ``MAKERS``."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from quantgate import plugins
from quantgate.engines import Completion, Failure, Prompt
from quantgate.engines._scripted_server import ScriptedServer
from quantgate.errors import MissingExtra
from quantgate.quantize import baseline

MAKERS = {
    "scripted": lambda open_engine, tiny: open_engine(lambda prompt: prompt.turns[-1][1][::-1]),
    "torch": lambda open_engine, tiny: open_engine(tiny, baseline(tiny), dtype="float32"),
    "llamacpp": lambda open_engine, tiny: open_engine(tiny, gguf_of(tiny), threads=1),
}
MANY = [Prompt(turns=(("system", "s"), ("user", "word " * at)), max_tokens=1 + at) for at in range(1, 9)]


def gguf_of(model: Any) -> Any:
    from quantgate.quantize.foreign.gguf import open_gguf_artifact
    from quantgate.quantize.gguf import make_gguf

    return open_gguf_artifact(make_gguf(model, model.path.parent / "tiny.gguf", "Q8_0").path, model)


@pytest.fixture(scope="module")
def server() -> Any:
    with ScriptedServer() as running:
        yield running


@pytest.fixture(scope="module", params=plugins.names("engines"))
def engine(request: Any, tiny: Any, server: Any) -> Any:
    if request.param == "openai":
        return plugins.get("engines", "openai")(server.url)
    try:
        open_engine = plugins.get("engines", request.param)
    except MissingExtra as told:
        pytest.skip(str(told))
    return MAKERS[request.param](open_engine, tiny)


def bare(answers: list[Any]) -> list[Any]:
    times = {"prefill_s": 0.0, "decode_s": 0.0, "latency_s": None, "ttft_s": None}
    return [one.model_copy(update=times) for one in answers]


def only_local(engine: Any) -> None:
    if engine.identity.engine == "openai":
        pytest.skip("a server gives neither ids nor logits")


def test_every_prompt_gets_one_answer_in_the_order_asked(engine: Any) -> None:
    answers = engine.generate(MANY)
    assert all(isinstance(one, Completion | Failure) for one in answers)
    assert bare(engine.generate(MANY[::-1])) == bare(answers)[::-1]
    assert engine.generate([]) == []


def test_asked_again_it_answers_the_same(engine: Any) -> None:
    assert bare(engine.generate(MANY)) == bare(engine.generate(MANY))


def test_answers_keep_their_budget_and_count_their_prompt(engine: Any) -> None:
    for prompt, answer in zip(MANY, engine.generate(MANY), strict=True):
        assert 0 <= answer.tokens <= prompt.max_tokens
        assert answer.finish == "stop" or answer.tokens == prompt.max_tokens
        assert engine.identity.engine == "openai" or answer.prompt_tokens == len(engine.encode(prompt.turns))
        assert answer.prefill_s >= 0 and answer.decode_s >= 0


def test_a_conversation_begins_with_the_ids_of_its_prompt(engine: Any) -> None:
    only_local(engine)
    prompt = engine.encode([("user", "How many?")])
    whole = engine.encode([("user", "How many?"), ("assistant", "Four.")])
    assert whole[: len(prompt)] == prompt and len(whole) > len(prompt)


def test_logits_cover_every_position_and_look_only_back(engine: Any) -> None:
    only_local(engine)
    ids = torch.tensor([engine.encode([("user", "abcdefgh")])])
    out = engine.logits(ids)
    chosen = torch.zeros_like(ids, dtype=torch.bool)
    chosen[0, 1] = chosen[0, -1] = True
    torch.testing.assert_close(engine.logits(ids, chosen), out[chosen], rtol=1e-4, atol=1e-4)
    assert out.dtype is torch.float32 and out.shape[:2] == ids.shape and out.isfinite().all()
    cut = ids.clone()
    cut[0, -1] = ids[0, 0]
    torch.testing.assert_close(engine.logits(cut)[0, :-1], out[0, :-1], rtol=1e-4, atol=1e-4)


def test_identity_has_digests_and_a_stable_key(engine: Any) -> None:
    identity = engine.identity
    assert all(part.startswith("sha256:") for part in (identity.weights, identity.tokenizer, identity.template))
    assert identity.key == engine.identity.key and identity.sampling == "greedy"
    assert isinstance(engine.kernels, tuple)
