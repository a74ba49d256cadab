"""What every engine promises. A new engine is tested here once it has an entry in ``MAKERS``."""

from __future__ import annotations

import json
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
PLAIN = Prompt(turns=(("user", "once upon a time"),), plain=True, max_tokens=12)
WEIGHED = Prompt(turns=(("user", "once upon"),), plain=True, choices=(" a time", " a", " the hill"))
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


def test_what_is_not_asked_changes_no_answer(engine: Any) -> None:
    bare_ones = engine.generate(MANY[:3])
    mixed = engine.generate([*MANY[:3], PLAIN, WEIGHED])
    assert bare(mixed[:3]) == bare(bare_ones)


def test_plain_text_is_read_as_it_is(engine: Any) -> None:
    plain, chat = engine.generate([PLAIN, PLAIN.model_copy(update={"plain": False})])
    assert plain.prompt_tokens < chat.prompt_tokens
    twice = PLAIN.model_copy(update={"turns": (("user", "once up"), ("user", "on a time"))})
    (parts,) = engine.generate([twice])
    assert bare([parts]) == bare([plain]) or type(engine).__name__ == "ScriptedEngine"  # which answers its last turn


def test_an_answer_ends_before_its_earliest_stop_text(engine: Any) -> None:
    prompts = [one.model_copy(update={"max_tokens": 40}) for one in MANY[2:]]
    for prompt, whole in zip(prompts, engine.generate(prompts), strict=True):
        assert len(whole.text) > 6
        first, second = whole.text[4:6], whole.text[2:4]
        wanted = whole.text[: min(whole.text.index(first), whole.text.index(second))]
        (cut,) = engine.generate([prompt.model_copy(update={"stop": (first, "", second)})])
        assert (cut.text, cut.finish) == (wanted, "stop") and cut.tokens <= whole.tokens
        (never,) = engine.generate([prompt.model_copy(update={"stop": ("\N{SNOWMAN} never said",)})])
        assert bare([never]) == bare([whole])


def test_stop_texts_of_one_prompt_leave_its_neighbours_alone(engine: Any) -> None:
    prompts = [one.model_copy(update={"max_tokens": 40}) for one in MANY[2:]]
    alone = engine.generate(prompts)
    stopped = [
        one.model_copy(update={"stop": (answer.text[3:5],)}) if at % 2 else one
        for at, (one, answer) in enumerate(zip(prompts, alone, strict=True))
    ]
    together = engine.generate(stopped)
    assert bare(together[::2]) == bare(alone[::2])
    assert all(answer.finish == "stop" for answer in together[1::2])


def test_choices_are_weighed_by_the_logits_behind_the_prompt(engine: Any) -> None:
    only_local(engine)
    (answer,) = engine.generate([WEIGHED])
    found = json.loads(answer.text)
    assert (answer.tokens, answer.finish, len(found)) == (0, "stop", len(WEIGHED.choices))
    for (weight, greedy), choice in zip(found, WEIGHED.choices, strict=True):
        context = ids_of(engine, WEIGHED.turns[0][1])
        whole = ids_of(engine, WEIGHED.turns[0][1] + choice)
        logs = engine.logits(torch.tensor([whole])).log_softmax(-1)[0]
        behind = range(len(context), len(whole))
        assert weight == pytest.approx(sum(float(logs[at - 1, whole[at]]) for at in behind), abs=1e-3)
        assert greedy == all(int(logs[at - 1].argmax()) == whole[at] for at in behind)


def test_the_greedy_answer_is_the_greedy_choice(engine: Any) -> None:
    only_local(engine)
    if type(engine).__name__ == "ScriptedEngine":
        pytest.skip("its answers come from the script")
    plain = [Prompt(turns=(("user", f"once {at}"),), plain=True, max_tokens=1) for at in range(40)]
    told = 0
    for prompt, whole in zip(plain, engine.generate(plain), strict=True):
        if len(whole.text) != 1 or not whole.text.isascii() or whole.text in "q j":
            continue  # a part of a character, or a text whose tokens are others behind this context
        (answer,) = engine.generate([prompt.model_copy(update={"choices": ("q", whole.text, "j")})])
        found = json.loads(answer.text)
        if len(ids_of(engine, prompt.turns[0][1] + whole.text)) == len(ids_of(engine, prompt.turns[0][1])) + 1:
            assert [greedy for _, greedy in found] == [False, True, False]
            assert found[1][0] > found[0][0]
            told += 1
    assert told


def test_choices_without_a_prompt_stand_behind_the_beginning_of_a_text(engine: Any) -> None:
    only_local(engine)
    bare_choices = Prompt(turns=(("user", ""),), plain=True, choices=("abc", "abd"))
    (answer,) = engine.generate([bare_choices])
    assert len({weight for weight, _ in json.loads(answer.text)}) == 2


def test_choices_beyond_the_context_are_a_failure(engine: Any) -> None:
    only_local(engine)
    if type(engine).__name__ == "ScriptedEngine":
        pytest.skip("bytes have no context worth filling")
    (answer,) = engine.generate([WEIGHED.model_copy(update={"choices": ("a", "long " * 300)})])
    assert isinstance(answer, Failure) and "exceed the context of 256" in answer.reason


def test_functions_are_part_of_the_prompt(engine: Any) -> None:
    asked = Prompt(turns=(("user", "Rain in Oslo?"),), max_tokens=4)
    offered = asked.model_copy(update={"tools": ({"name": "rain", "description": "d", "parameters": {}},)})
    plain, told = engine.generate([asked, offered])
    if isinstance(told, Failure):  # a context of 256 bytes holds no list of functions
        assert int(told.reason.split()[2]) > plain.prompt_tokens + 100
    else:
        assert told.prompt_tokens > plain.prompt_tokens + 80


def test_a_schema_nobody_can_hold_answers_to_is_no_exception(engine: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    (answer,) = engine.generate([MANY[0].model_copy(update={"answer_schema": schema, "max_tokens": 40})])
    assert isinstance(answer, Completion)


def ids_of(engine: Any, text: str) -> list[int]:
    """Token ids of a plain text."""
    if type(engine).__name__ == "ScriptedEngine":
        return list(text.encode())
    return [int(one) for one in engine.source.tokenizer(text)["input_ids"]]
