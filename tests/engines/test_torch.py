"""The torch engine answers as transformers does, whatever else is in the batch, and says which kernels ran."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from quantgate.engines import Completion, Failure, Prompt
from quantgate.engines.torch import BATCH_ROWS, TorchEngine, open_engine
from quantgate.errors import EngineError, UnknownName
from quantgate.models import open_model
from quantgate.models.random import TEMPLATE, save_random
from quantgate.quantize import baseline


@pytest.fixture(scope="module")
def plain(tiny: Any) -> TorchEngine:
    return open_engine(tiny, baseline(tiny), dtype="float32")


@pytest.fixture(scope="module")
def answers(plain: TorchEngine, prompts: list[Prompt]) -> list[Any]:
    return plain.generate(prompts)


def bare(answers: list[Any]) -> list[Any]:
    """Without times."""
    return [(one.text, one.tokens, one.prompt_tokens, one.finish) for one in answers]


def ask(text: str, max_tokens: int = 8) -> Prompt:
    return Prompt(turns=(("user", text),), max_tokens=max_tokens)


def tokens_of(engine: TorchEngine, prompts: list[Prompt]) -> list[list[int]]:
    """Token ids of all answers, decoded as one batch."""
    rows = sorted(enumerate(engine.encode(prompt.turns) for prompt in prompts), key=lambda row: (len(row[1]), row[0]))
    made, *_ = engine.decoder.answer([ids for _, ids in rows], [prompts[at].max_tokens for at, _ in rows])
    return [tokens for _, tokens in sorted(zip([at for at, _ in rows], made, strict=True))]


def by_transformers(engine: TorchEngine, ids: list[list[int]], budget: int) -> list[list[int]]:
    """Greedy answers of transformers' own ``generate`` to a left-padded batch, up to the first stop token."""
    longest = max(map(len, ids))
    given = torch.tensor([[0] * (longest - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
    out = engine.network.generate(
        given, attention_mask=mask, do_sample=False, max_new_tokens=budget, eos_token_id=sorted(engine.stops),
        pad_token_id=0,
    )[:, longest:].tolist()  # fmt: skip
    ends = [next((at + 1 for at, one in enumerate(row) if one in engine.stops), budget) for row in out]
    return [row[:end] for row, end in zip(out, ends, strict=True)]


def with_stops(model: Any, folder: Path, stops: list[int]) -> Any:
    """The model again, with other stop tokens in its generation settings."""
    shutil.copytree(model.path, folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))
    return open_model(folder)


# --- the same tokens, however they are asked for ---


def test_answers_are_those_of_transformers_generate(plain: TorchEngine, prompts: list[Prompt]) -> None:
    ids = [plain.encode(prompt.turns) for prompt in prompts]
    want = by_transformers(plain, ids, 24)
    made = tokens_of(plain, prompts)
    assert made == [row[: prompt.max_tokens] for row, prompt in zip(want, prompts, strict=True)]
    assert len({token for row in made for token in row}) > 50  # they vary, so agreeing means something


def test_answers_do_not_depend_on_the_rest_of_the_batch(
    plain: TorchEngine, prompts: list[Prompt], answers: list[Any]
) -> None:
    assert bare([plain.generate([prompt])[0] for prompt in prompts]) == bare(answers)
    assert bare(plain.generate(prompts[::-1])) == bare(answers)[::-1]
    assert bare(plain.generate(prompts[5:12])) == bare(answers)[5:12]


@pytest.mark.parametrize("size", [1, 100, 10_000])
def test_answers_do_not_depend_on_how_prompts_are_sliced(
    size: int, tiny: Any, prompts: list[Prompt], answers: list[Any]
) -> None:
    engine = open_engine(tiny, baseline(tiny), dtype="float32")
    engine.decoder.slice_tokens = size
    assert bare(engine.generate(prompts)) == bare(answers)


def test_more_prompts_than_a_batch_holds_are_answered_alike(
    plain: TorchEngine, prompts: list[Prompt], answers: list[Any]
) -> None:
    many = prompts * 6
    assert len(many) > BATCH_ROWS
    assert bare(plain.generate(many)) == bare(answers) * 6


def test_two_runs_give_identical_completions(tiny: Any, swept: Any, prompts: list[Prompt]) -> None:
    for artifact in (baseline(tiny), swept["W4A16-rtn"], swept["W8A8-rtn"]):
        first, second = (bare(open_engine(tiny, artifact).generate(prompts)) for _ in range(2))
        assert first == second


@pytest.mark.parametrize("kind", ["mistral", "qwen2", "qwen3"])
def test_windows_and_mixed_layers_answer_as_transformers_does(kind: str, tmp_path: Path, prompts: list[Prompt]) -> None:
    window: dict[str, Any] = {"sliding_window": 8}
    if kind != "mistral":
        window |= {"use_sliding_window": True, "max_window_layers": 1, "head_dim": 32}
    model = open_model(save_random(tmp_path / kind, kind=kind, tied=False, **window))
    engine = open_engine(model, baseline(model), dtype="float32")
    assert engine.decoder.masks.reach == 8
    assert len(engine.decoder.masks.kinds) == (1 if kind == "mistral" else 2)
    some = [prompt.model_copy(update={"max_tokens": 12}) for prompt in prompts[::4]]
    want = by_transformers(engine, [engine.encode(prompt.turns) for prompt in some], 12)
    assert tokens_of(engine, some) == want


def test_eager_attention_gives_the_same_answers(plain: TorchEngine, prompts: list[Prompt], answers: list[Any]) -> None:
    plain.network.set_attn_implementation("eager")
    try:
        plain.decoder.masks.boolean = False
        assert bare(plain.generate(prompts)) == bare(answers)
    finally:
        plain.network.set_attn_implementation("sdpa")
        plain.decoder.masks.boolean = True


# --- ends of answers ---


def test_every_prompt_has_its_own_budget(prompts: list[Prompt], answers: list[Any]) -> None:
    assert [one.tokens for one in answers] == [prompt.max_tokens for prompt in prompts]  # none of them met a stop token
    assert {one.finish for one in answers} == {"length"}


def test_stop_tokens_of_the_generation_settings_end_answers(
    tiny: Any, plain: TorchEngine, prompts: list[Prompt], tmp_path: Path
) -> None:
    made = tokens_of(plain, prompts)
    stops = sorted({row[len(row) // 2] for row in made[4::3]})
    model = with_stops(tiny, tmp_path / "stops", stops)
    engine = open_engine(model, baseline(model), dtype="float32")
    assert engine.stops == {*stops, 256}
    assert engine.identity.key != plain.identity.key
    ends = [next((at for at, token in enumerate(row) if token in stops), None) for row in made]
    found = engine.generate(prompts)
    assert [one.tokens for one in found if isinstance(one, Completion)] == [
        len(row) if end is None else end for row, end in zip(made, ends, strict=True)
    ]
    assert [getattr(one, "finish", "") for one in found] == ["length" if end is None else "stop" for end in ends]
    assert len(stops) < sum(end is not None for end in ends) < len(ends)  # rows left the batch at different times
    ids = [engine.encode(prompt.turns) for prompt in prompts]
    want = [row[: prompt.max_tokens] for row, prompt in zip(by_transformers(engine, ids, 24), prompts, strict=True)]
    assert tokens_of(engine, prompts) == want


def test_model_without_a_stop_token_is_refused(tmp_path: Path) -> None:
    folder = save_random(tmp_path / "endless", eos_token_id=None)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").unlink()
    model = open_model(folder)
    with pytest.raises(EngineError, match="no token ends an answer; set eos_token_id"):
        open_engine(model, baseline(model))


# --- what cannot be answered ---


def test_prompt_that_does_not_fit_the_context_is_a_failure_and_the_others_are_answered(plain: TorchEngine) -> None:
    fits, over = ask("x" * (256 - 3 - 8)), ask("x" * (256 - 3 - 7))  # template: user, end, assistant
    first, second, third = plain.generate([over, fits, ask("x")])
    assert first == Failure(reason="prompt of 249 tokens and answer of 8 exceed the context of 256")
    assert isinstance(second, Completion) and isinstance(third, Completion)
    assert second.prompt_tokens == 248 and second.tokens in range(1, 9)


def test_no_prompts_give_no_answers(plain: TorchEngine) -> None:
    assert plain.generate([]) == []


def test_conversation_that_the_template_refuses_is_a_failure(tiny: Any, tmp_path: Path) -> None:
    folder = tmp_path / "strict"
    shutil.copytree(tiny.path, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    refuse = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    settings["chat_template"] = refuse + TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    model = open_model(folder)
    engine = open_engine(model, baseline(model))
    first, second = engine.generate([Prompt(turns=(("system", "s"), ("user", "u")), max_tokens=2), ask("u", 2)])
    assert isinstance(first, Failure) and "no system turns" in first.reason
    assert isinstance(second, Completion)


def test_wrong_settings_are_refused_in_one_sentence(tiny: Any) -> None:
    with pytest.raises(UnknownName, match="unknown dtype 'bf16'"):
        open_engine(tiny, baseline(tiny), dtype="bf16")
    with pytest.raises(UnknownName, match="unknown kernels 'atuo'; did you mean 'auto'"):
        open_engine(tiny, baseline(tiny), kernels="atuo")
    with pytest.raises(EngineError, match="device 'abacus' cannot be used"):
        open_engine(tiny, baseline(tiny), device="abacus")


# --- encode and logits ---


def test_encode_closes_an_answer_and_waits_for_one(plain: TorchEngine) -> None:
    a, b = plain.tokenizer.convert_tokens_to_ids(["a", "b"])
    assert plain.encode([("user", "a")]) == [258, a, 256, 259]  # <|user|> a <|end|> <|assistant|>
    assert plain.encode([("user", "a"), ("assistant", "b")]) == [258, a, 256, 259, b, 256]


def test_logits_are_float32_of_every_position_and_ignore_padding_on_the_right(plain: TorchEngine) -> None:
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    out = plain.logits(ids)
    assert (out.shape, out.dtype) == ((2, 4, 300), torch.float32)
    torch.testing.assert_close(out[1, :2], plain.logits(torch.tensor([[9, 10]]))[0], rtol=1e-4, atol=1e-4)


def test_first_token_is_the_likeliest_by_logits(plain: TorchEngine, prompts: list[Prompt]) -> None:
    for prompt, row in zip(prompts[:6], tokens_of(plain, prompts)[:6], strict=True):
        assert int(plain.logits(torch.tensor([plain.encode(prompt.turns)]))[0, -1].argmax()) == row[0]


# --- artifacts ---

PATHS = {
    "W4A16-rtn": "int4 packed kernel",
    "W4A16-g32-rtn": "int4 packed kernel",
    "W4A16-g64-rtn": "int4 packed kernel",
    "W4A16-channel-rtn": "int4 packed kernel",
    "W3A16-g64-rtn": "int4 packed kernel",
    "W2A16-g32-rtn": "int4 packed kernel",
    "W8A16-rtn": "int8 weight kernel",
    "W8A8-rtn": "int8 x int8 kernel",
    "W4A16-g16-rtn": "dequantized matmul",
    "W4A16-g32-asym-rtn": "dequantized matmul",
    "FP8_DYNAMIC-rtn": "dequantized matmul, activations emulated",
}


@pytest.mark.parametrize("name", sorted(PATHS))
def test_kernels_name_every_quantized_linear_and_its_path(name: str, tiny: Any, swept: Any) -> None:
    kernels = open_engine(tiny, swept[name]).kernels
    assert sum(path.linears for path in kernels) == len(swept[name].quantized) == 14
    assert {path.shape for path in kernels} == {(128, 128), (64, 128), (384, 128), (128, 384)}
    for path in kernels:
        assert path.scheme == swept[name].scheme.label
        assert path.got.startswith(PATHS[name])
        assert bool(path.because) == (path.asked != path.got) == (name in ("W4A16-g16-rtn", "W4A16-g32-asym-rtn"))


def test_float32_falls_back_from_weight_only_kernels_and_says_so(tiny: Any, swept: Any) -> None:
    for path in open_engine(tiny, swept["W4A16-rtn"], dtype="float32").kernels:
        assert path.got == "dequantized matmul"
        assert path.because == "activations in float32; the kernel takes bfloat16"
    assert not any(path.because for path in open_engine(tiny, swept["W8A8-rtn"], dtype="float32").kernels)


def test_baseline_has_no_kernel_paths(plain: TorchEngine) -> None:
    assert plain.kernels == ()


@pytest.mark.parametrize("name", ["W4A16-rtn", "W4A16-channel-rtn", "W3A16-g64-rtn", "W8A16-rtn", "W8A8-rtn"])
def test_kernels_and_dequantized_weights_agree_on_nearly_all_tokens(name: str, tiny: Any, swept: Any) -> None:
    """Measured: the same likeliest token at 98.5 to 99.7 % of 1152 positions (a random model's logits lie close
    together), logits 0.5 % apart; 0.9 % for W8A8, whose dequantized weights lose half a step to bfloat16."""
    ids = torch.randint(0, 256, (24, 48), generator=torch.Generator().manual_seed(3))
    fast = open_engine(tiny, swept[name])
    slow = open_engine(tiny, swept[name], kernels="dequantize")
    assert fast.identity.key != slow.identity.key
    first, second = (
        torch.cat([engine.logits(row[None]) for row in ids]) for engine in (fast, slow)
    )  # 48 rows: kernels
    assert (first.argmax(-1) == second.argmax(-1)).double().mean() >= 0.98
    assert 0 < (first - second).norm() / second.norm() <= 0.015


def test_identity_names_the_bytes_and_the_way_they_run(tiny: Any, swept: Any, plain: TorchEngine) -> None:
    four = open_engine(tiny, swept["W4A16-rtn"]).identity
    assert (four.weights, plain.identity.weights) == (swept["W4A16-rtn"].manifest.digest, tiny.weights_digest)
    assert "dtype=bfloat16" in four.runtime and "kernels=auto" in four.runtime
    assert four.key == open_engine(tiny, swept["W4A16-rtn"]).identity.key != plain.identity.key
