"""llama.cpp token by token: the answers of its own ``generate``, several at once, within a form, and what it keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from quantgate.engines import Prompt
from quantgate.engines._kept import Keep
from quantgate.engines._token_stream import Answer, TokenStream
from quantgate.errors import EngineError
from quantgate.models import open_model
from quantgate.quantize.foreign.gguf import open_gguf_artifact
from quantgate.quantize.gguf import make_gguf

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (quantgate[gguf])")
pytest.importorskip("gguf", reason="the package 'gguf' is not installed (quantgate[gguf])")

QUESTIONS = ["What is 17 + 25?", "Translate to French: the red house", "Name three colours.", "Say hello."]
PROMPTS = [Prompt(turns=(("user", text),), max_tokens=12) for text in QUESTIONS]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from quantgate.engines.llamacpp import open_engine

    model = open_model("quantgate/reference")
    file = make_gguf(model, tmp_path_factory.mktemp("llama") / "r-Q8_0.gguf", "Q8_0").path
    return open_engine(model, open_gguf_artifact(file, model), threads=1, rows=1)


def written(answer: Answer) -> str:
    return "".join(piece.text for piece in answer)


def test_answers_are_those_of_generate_also_in_turns(engine: Any) -> None:
    want = [engine.generate([prompt])[0] for prompt in PROMPTS]
    stream = TokenStream(engine, Keep(conversations=0), at_once=4)
    answers = [stream.texts(engine.encode(prompt.turns), prompt.max_tokens) for prompt in PROMPTS]
    texts, running = [""] * len(answers), set(range(len(answers)))
    while running:
        for at in sorted(running):
            piece = next(answers[at])
            texts[at] += piece.text
            if piece.finish:
                running.remove(at)
    assert texts == [one.text for one in want]
    assert [len(one.made) for one in answers] == [one.tokens for one in want]


def test_a_conversation_that_goes_on_reads_only_what_is_new(engine: Any) -> None:
    stream = TokenStream(engine, Keep(least=4), at_once=2)
    first = engine.encode((("user", QUESTIONS[1]),))
    answer = stream.texts(first, 8)
    written(answer)
    longer = [*first, *answer.made, *engine.encode((("user", "And the blue one?"),))[1:]]
    again = stream.texts(longer, 8)
    text = written(again)
    assert again.reused >= len(first) + len(answer.made) - 1
    assert text == written(TokenStream(engine, Keep(conversations=0)).texts(longer, 8))


def test_no_more_answers_than_sequences_are_written_at_once(engine: Any) -> None:
    stream = TokenStream(engine, at_once=1)
    ids = engine.encode(PROMPTS[0].turns)
    first = stream.texts(ids, 4)
    next(first)
    with pytest.raises(EngineError, match="all 1 sequences"):
        next(stream.texts(ids, 4))
    first.close()
    assert written(stream.texts(ids, 4))


class Yes:
    """A form: the text "yes", token by token."""

    def __init__(self, engine: Any) -> None:
        self.left: list[int] = engine.tokens("yes", False)

    @property
    def ended(self) -> bool:
        return not self.left

    def allowed(self, logits: torch.Tensor) -> None:
        kept = logits[self.left[0]].clone()
        logits.fill_(-torch.inf)
        logits[self.left[0]] = kept

    def take(self, token: int) -> bool:
        return token == self.left.pop(0)


def test_a_form_holds_its_answers_too(engine: Any) -> None:
    stream = TokenStream(engine)
    assert written(stream.texts(engine.encode(PROMPTS[0].turns), 20, mask=Yes(engine))) == "yes"


def test_an_engine_with_sampling_of_its_own_is_refused(engine: Any) -> None:
    from quantgate.engines.llamacpp import open_engine

    warm = open_engine(engine.source, engine.artifact, temperature=0.5, threads=1)
    with pytest.raises(EngineError, match="leave 'temperature' and 'grammar' out"):
        TokenStream(warm)
