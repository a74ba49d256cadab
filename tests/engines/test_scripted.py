"""The scripted engine keeps the contract of an engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from quantgate import plugins
from quantgate.engines import Completion, Failure, Prompt
from quantgate.engines.scripted import END, VOCABULARY, ScriptedEngine


def ask(text: str, max_tokens: Any = 16) -> Any:
    return Prompt(turns=(("system", "be brief"), ("user", text)), max_tokens=max_tokens)


def test_mapping_answers_the_last_turn() -> None:
    engine = plugins.get("engines", "scripted")({"2 + 2": "4"}, otherwise="?")
    first, second = engine.generate([ask("2 + 2"), ask("3 + 3")])
    assert (first.text, first.tokens, first.finish) == ("4", 1, "stop")
    assert first.prompt_tokens == len("be brief") + len("2 + 2") + 2
    assert second.text == "?"
    assert [prompt.turns[-1][1] for prompt in engine.asked] == ["2 + 2", "3 + 3"]


def test_what_the_script_lacks_or_refuses_is_a_failure_not_an_exception() -> None:
    engine = ScriptedEngine({"2 + 2": "4", "crash": "5"}, fails=lambda prompt: prompt.turns[-1][1] == "crash")
    kinds = [type(answer) for answer in engine.generate([ask("2 + 2"), ask("crash"), ask("unknown")])]
    assert kinds == [Completion, Failure, Failure]


def test_answer_is_cut_to_its_budget() -> None:
    (answer,) = ScriptedEngine(lambda _: "grün" * 3).generate([ask("x", max_tokens=3)])
    assert isinstance(answer, Completion)
    assert (answer.text, answer.tokens, answer.finish) == ("gr", 3, "length")  # half a character is no character


@pytest.mark.parametrize("change", [{"weights": "b"}, {"template": "b"}, {"runtime": ("b",)}])
def test_identity_holds_everything_an_answer_depends_on(change: Any) -> None:
    assert ScriptedEngine({}, **change).identity.key != ScriptedEngine({}).identity.key
    assert ScriptedEngine({}).identity.key == ScriptedEngine({}).identity.key


def test_logits_depend_on_the_tokens_before_and_on_nothing_else() -> None:
    engine = ScriptedEngine({})
    ids = torch.tensor([[5, 6, 7], [5, 6, 8]])
    out = engine.logits(ids)
    assert out.shape == (2, 3, VOCABULARY) and out.dtype == torch.float32
    assert torch.equal(out[0, :2], out[1, :2]) and not torch.equal(out[0, 2], out[1, 2])
    assert torch.equal(engine.logits(torch.tensor([[5, 6, 7, END]]))[0, :3], out[0])
    assert torch.equal(ScriptedEngine({}, weights="other").logits(ids), out)
    assert not torch.equal(ScriptedEngine({}, tilt=0.1).logits(ids), out)
