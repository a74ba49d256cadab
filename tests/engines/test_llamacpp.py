"""llama.cpp on the built-in model: the answers of its own kernels, caches, chance, grammars, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from quantgate.engines import Completion, Failure, Prompt
from quantgate.errors import EngineError, UnknownName
from quantgate.evaluate.gguf_reference import GgufReference
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize import baseline
from quantgate.quantize.foreign.gguf import open_gguf_artifact
from quantgate.quantize.gguf import make_gguf

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (quantgate[gguf])")
pytest.importorskip("gguf", reason="the package 'gguf' is not installed (quantgate[gguf])")

QUESTIONS = ["What is 17 + 25?", "Translate to French: the red house", "Name three colours.", "Say hello."]
PROMPTS = [Prompt(turns=(("user", text),), max_tokens=24) for text in QUESTIONS]
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model() -> Any:
    return open_model("quantgate/reference")


@pytest.fixture(scope="module")
def artifact(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_gguf_artifact(make_gguf(model, tmp_path_factory.mktemp("llama") / "r-Q8_0.gguf", "Q8_0").path, model)


@pytest.fixture(scope="module")
def opened(model: Any, artifact: Any) -> Any:
    """Open an engine on the file: ``opened(kv_cache="q8_0")``."""
    from quantgate.engines.llamacpp import open_engine

    return lambda **settings: open_engine(model, artifact, **{"threads": 1, "rows": 4, **settings})


def texts(answers: list[Any]) -> list[str]:
    assert all(isinstance(one, Completion) for one in answers), answers
    return [one.text for one in answers]


def test_it_answers_as_the_torch_engine_does_on_the_same_numbers(opened: Any, model: Any, artifact: Any) -> None:
    from quantgate.engines.torch import open_engine

    ours, theirs = opened(), open_engine(model, artifact, dtype="float32")
    for turns in ([("user", QUESTIONS[0])], [("user", "a"), ("assistant", "b"), ("user", "naïve 你好 🙂")]):
        assert ours.encode(turns) == theirs.encode(turns)
    same = sum(
        one == other for one, other in zip(texts(ours.generate(PROMPTS)), texts(theirs.generate(PROMPTS)), strict=True)
    )
    assert same >= 3  # 8-bit activations may turn a close call
    speed = ours.speed()
    assert (
        speed.prefill > 0
        and speed.decode > 0
        and speed.prefill_tokens == sum(len(ours.encode(p.turns)) for p in PROMPTS)
    )


def test_rows_of_a_batch_do_not_see_each_other(opened: Any) -> None:
    alone, together = opened(rows=1), opened(rows=4)
    assert texts(alone.generate(PROMPTS)) == texts(together.generate(PROMPTS))


def test_a_file_that_memory_cannot_hold_is_not_run(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor proven, which takes every number in float32."""
    artifact = opened().artifact
    monkeypatch.setattr("quantgate.quantize.machine.free", lambda: 7_000_000)
    with pytest.raises(EngineError, match=r"its proof decodes every number, which needs \d+\.\d MB of memory"):
        GgufReference(opened().source, artifact)
    monkeypatch.setattr("quantgate.quantize.machine.free", lambda: 1_000_000)
    with pytest.raises(EngineError, match=r"gguf: llama.cpp needs 5\.5 MB of memory, and 1\.0 MB are free; free some"):
        opened()


def test_kernels_and_identity_name_what_runs(opened: Any) -> None:
    engine = opened()
    assert {path.got.split(",")[0] for path in engine.kernels} == {"llama.cpp Q8_0 x Q8_0"}
    assert sum(path.linears for path in engine.kernels) == 7 * engine.source.depth + 1  # the table, tied
    assert any(part.startswith("llama-cpp-python=") for part in engine.identity.runtime)
    assert engine.system()["llama-cpp-python"] and opened(kv_cache="q8_0").identity.key != engine.identity.key


def test_rounded_caches_stay_near(opened: Any) -> None:
    ids = torch.tensor([opened().encode([("user", QUESTIONS[1])])])
    plain = opened().logits(ids)
    off = {
        kind: float((opened(kv_cache=kind).logits(ids) - plain).square().mean().sqrt() / plain.std())
        for kind in ("q8_0", "q4_0")
    }
    assert 0 < off["q8_0"] < off["q4_0"] < 0.5


def test_chance_is_fixed_by_the_seed_alone(opened: Any) -> None:
    hot = {"temperature": 1.5, "top_p": 0.95, "top_k": 40}
    one, again, other = opened(**hot, seed=1), opened(**hot, seed=1, rows=1), opened(**hot, seed=2)
    first = texts(one.generate(PROMPTS))
    assert texts(one.generate(PROMPTS[::-1]))[::-1] == first == texts(again.generate(PROMPTS))
    assert texts(other.generate(PROMPTS)) != first
    assert one.identity.sampling != "greedy" and one.identity.key != other.identity.key


def test_answers_keep_to_a_grammar_or_a_schema(opened: Any) -> None:
    assert set(texts(opened(grammar='root ::= "yes" | "no"').generate(PROMPTS))) <= {"yes", "no"}
    for text in texts(opened(json_schema=SCHEMA).generate(PROMPTS)):
        assert set(json.loads(text)) == {"ok"} and isinstance(json.loads(text)["ok"], bool)
    with pytest.raises(EngineError, match=r"the grammar cannot be read by llama.cpp"):
        opened(grammar="root ::= (")
    with pytest.raises(EngineError, match=r"both 'grammar' and 'json_schema' are given"):
        opened(grammar='root ::= "a"', json_schema=SCHEMA)


def test_what_does_not_fit_is_a_failure_and_stops_nothing(opened: Any) -> None:
    long = Prompt(turns=(("user", "word " * 3000),), max_tokens=8)
    found = opened().generate([long, PROMPTS[0]])
    assert isinstance(found[0], Failure) and "exceed the context of 2048" in found[0].reason
    assert isinstance(found[1], Completion)


def test_every_product_is_seen(opened: Any, artifact: Any) -> None:
    engine = opened()
    found = engine.products(engine.encode([("user", QUESTIONS[0])]))
    named = {one.weight for one in found}
    assert named == {name for name, one in artifact.tensors.file.tensors.items() if len(one.shape) == 2}


def test_refusals(model: Any, artifact: Any, opened: Any, tmp_path: Path) -> None:
    from quantgate.engines.llamacpp import open_engine

    with pytest.raises(EngineError, match=r"llama.cpp runs GGUF files; name one, or choose the torch engine"):
        open_engine(model, baseline(model))
    with pytest.raises(UnknownName, match=r"unknown KV cache 'q8'; did you mean 'q8_0'"):
        opened(kv_cache="q8")
    narrow = open_model(save_random(tmp_path / "narrow", hidden=64, heads=8, kv_heads=4))
    file = open_gguf_artifact(make_gguf(narrow, tmp_path / "n.gguf", "Q8_0").path, narrow)
    with pytest.raises(EngineError, match=r"heads of 8 do not divide into q8_0's blocks of 32; choose f16"):
        open_engine(narrow, file, kv_cache="q8_0")


def test_a_file_that_llama_cpp_does_not_load_is_one_sentence(artifact: Any, tmp_path: Path) -> None:
    from quantgate.engines._llama import LlamaModel

    broken = tmp_path / "broken.gguf"
    broken.write_bytes(artifact.path.read_bytes()[:-100_000])
    with pytest.raises(EngineError, match=r"broken\.gguf: llama\.cpp does not load it \(.+\); "):
        LlamaModel(broken)


def test_a_prompts_schema_holds_its_answer_and_no_other(opened: Any) -> None:
    engine = opened()
    asked = Prompt(turns=(("user", "abc"),), max_tokens=60)
    free, held = engine.generate([asked, asked.model_copy(update={"answer_schema": SCHEMA})])
    assert isinstance(json.loads(held.text)["ok"], bool)
    assert free.text == engine.generate([asked])[0].text != held.text
    unguarded = opened(guard=False)
    assert unguarded.generate([asked.model_copy(update={"answer_schema": SCHEMA})])[0].text == free.text
    assert unguarded.identity.key != engine.identity.key


def test_a_schema_without_a_grammar_is_a_failure_of_its_prompt_alone(opened: Any) -> None:
    asked = Prompt(turns=(("user", "abc"),), max_tokens=4)
    bad, good = opened().generate([asked.model_copy(update={"answer_schema": {"$ref": "#/nowhere"}}), asked])
    assert isinstance(bad, Failure) and "no grammar" in bad.reason
    assert isinstance(good, Completion)
