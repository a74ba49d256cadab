"""The scripted engine: answers from a mapping or a function instead of from a model.

For tests of everything above the engines (journals, comparisons, early stopping, pipelines) and for trying a suite's
scorers without a model. It keeps the whole contract: an identity that enters every cache key, failures on chosen
prompts, logits that depend on nothing but what came before, and a count of what it was asked.

    engine = open_engine({"What is 2 + 2?": "4"}, otherwise="I do not know.")
    engine = open_engine(lambda prompt: last(prompt).upper(), fails=lambda prompt: "crash" in last(prompt))
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from quantgate.engines import Completion, Failure, Identity, KernelPath, Prompt
from quantgate.engines._choices import Weigher
from quantgate.engines._stops import stops_of
from quantgate.models.tools import in_words
from quantgate.records import digest_of

if TYPE_CHECKING:
    from torch import Tensor

VOCABULARY = 257  # the bytes, and the end of a turn
END = 256
CLOSED = "\x03"  # END, where a chat is written as a text
ROOM = 1 << 20  # bytes of a prompt with its choice
Answer = Callable[[Prompt], str]


class ScriptedEngine:
    """See ``engines.Engine``. ``asked`` lists every prompt that reached ``generate``, in order, over all calls."""

    def __init__(
        self,
        answers: Mapping[str, str] | Answer,
        *,
        otherwise: str | None = None,
        fails: Callable[[Prompt], bool] | None = None,
        weights: str = "scripted",
        template: str = "scripted",
        runtime: tuple[str, ...] = (),
        tilt: float = 0.0,
    ) -> None:
        """``answers`` maps the last turn's text to an answer, or is a function of the prompt.

        A prompt that the mapping lacks gets ``otherwise``, and is a Failure where that is None; so is every prompt that
        ``fails`` accepts. ``weights``, ``template`` and ``runtime`` enter the identity as they would for a model.
        ``tilt`` moves the logits away from those of an engine without it: 0 is no drift at all.
        """
        self.answer, self.otherwise, self.fails, self.tilt = answers, otherwise, fails, tilt
        self.asked: list[Prompt] = []
        self.kernels: tuple[KernelPath, ...] = ()
        self.identity = Identity(
            engine="scripted",
            weights=digest_of(weights),
            tokenizer=digest_of("bytes"),
            template=digest_of(template),
            runtime=runtime,
        )

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion | Failure]:
        """One answer per prompt, cut at its stop texts and to its budget; a token is a byte.

        Of ``choices``, one that is the script's answer is certain, beside -1 a byte for the others; where the script
        says something else they are weighed by the logits.
        """
        self.asked += prompts
        return [self._one(prompt) for prompt in prompts]

    def _one(self, prompt: Prompt) -> Completion | Failure:
        if self.fails is not None and self.fails(prompt):
            return Failure(reason="the script says that this prompt fails")
        script = self.answer
        text = script.get(last(prompt), self.otherwise) if isinstance(script, Mapping) else script(prompt)
        if text is None:
            return Failure(reason="the script has no answer to this prompt")
        if prompt.choices:
            return self._weighed(prompt, text)
        whole = text.encode()
        cut = whole[: prompt.max_tokens]
        stop = stops_of(prompt.stop, lambda tokens: bytes(tokens).decode(errors="ignore"))
        told, tokens = (stop and stop.cut(list(cut))) or (cut.decode(errors="ignore"), len(cut))
        return Completion(
            text=told,
            tokens=tokens,
            prompt_tokens=len(self._text(prompt)[0].encode()),
            finish="stop" if len(cut) == len(whole) or tokens < len(cut) else "length",
        )

    def _weighed(self, prompt: Prompt, text: str) -> Completion | Failure:
        weigher = Weigher(self._text, lambda text, _special: list(text.encode()), END, self.logits, ROOM)
        (found,) = weigher.answers([prompt]).values()
        if isinstance(found, Failure) or text not in prompt.choices:
            return found
        sure = [(0.0, True) if one == text else (-1.0 * len(one.encode()), False) for one in prompt.choices]
        return found.model_copy(update={"text": json.dumps(sure)})

    def _text(self, prompt: Prompt) -> tuple[str, bool]:
        """A prompt as one text, each turn of a chat closed by a byte of its own."""
        turns = in_words(prompt.turns, prompt.tools)
        return "".join(content if prompt.plain else content + CLOSED for _, content in turns), False

    def encode(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        """The bytes of every turn, each turn closed by ``END``.

        >>> ScriptedEngine({}).encode([("user", "Hi"), ("assistant", "!")])
        [72, 105, 256, 33, 256]
        """
        return [token for _, content in turns for token in (*content.encode(), END)]

    def spell(self, ids: Sequence[int]) -> list[str]:
        """
        >>> ScriptedEngine({}).spell([123, 256])
        ['{', '<end>']
        """
        return ["<end>" if one == END else bytes([one]).decode(errors="replace") for one in ids]

    def logits(self, ids: Tensor, at: Tensor | None = None) -> Tensor:
        """Float32 [batch, length, 257]: a fixed random row per position, drawn from the tokens up to it."""
        import torch

        out = torch.empty(*ids.shape, VOCABULARY)
        for row, tokens in enumerate(ids.tolist()):
            state = hashlib.blake2b(digest_size=7)
            for place, token in enumerate(tokens):
                state.update(token.to_bytes(2, "big"))
                seeded = torch.Generator().manual_seed(int.from_bytes(state.digest(), "big"))
                out[row, place] = 2.0 * torch.randn(VOCABULARY, generator=seeded)
                out[row, place] += self.tilt * torch.randn(VOCABULARY, generator=seeded)
        return out if at is None else out[at]


def last(prompt: Prompt) -> str:
    """The text of the turn that waits for an answer."""
    return prompt.turns[-1][1]


def open_engine(answers: Mapping[str, str] | Answer, **settings: object) -> ScriptedEngine:
    """A scripted engine; ``settings`` are those of ``ScriptedEngine``."""
    return ScriptedEngine(answers, **settings)  # type: ignore[arg-type]


ENGINE = open_engine
