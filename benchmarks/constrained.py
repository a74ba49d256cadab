"""What holding an answer to a schema costs a token, in the torch engine on the built-in model: the same tokens twice.

The schema's masks choose the tokens of one answer; the same tokens are then written with nobody to hold them. The two
take turns, step by step of the same network on one thread, and CPU seconds are compared: another program on the machine
slows both, and counts for neither.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.result import Result
from quantgate.engines._kept import Keep
from quantgate.engines._sampling import Logprob, Mask, Sampling, Taker
from quantgate.engines._token_stream import Answer, TokenStream
from quantgate.engines.torch import open_engine
from quantgate.guard import masks
from quantgate.guard.admission import admit
from quantgate.models import REFERENCE, open_model
from quantgate.quantize import baseline

ROUNDS, BUDGET, TARGET = 12, 160, 0.05
FLAT = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 40}, "days": {"type": "integer"},
                   "kind": {"enum": ["a", "b"]}},
    "required": ["city", "days", "kind"], "additionalProperties": False,
}  # fmt: skip
NESTED = {
    "type": "object",
    "properties": {
        "people": {"type": "array", "minItems": 2, "maxItems": 4, "items": {"$ref": "#/$defs/person"}},
        "note": {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[a-z ]{1,30}$"}]},
    },
    "required": ["people", "note"], "additionalProperties": False,
    "$defs": {
        "person": {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "number"},
                           "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3}},
            "required": ["name", "age", "tags"], "additionalProperties": False,
        }
    },
}  # fmt: skip


class Forced(Taker):
    """Takes tokens that are known, after the work that a free answer takes for each."""

    def __init__(self, tokens: list[int]) -> None:
        super().__init__(Sampling())
        self.tokens = iter(tokens)

    def take(self, logits: Tensor) -> tuple[int, Logprob | None]:
        super().take(logits)
        return next(self.tokens), None


def run() -> list[Result]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _on(TokenStream(_engine(), Keep(conversations=0)))
    finally:
        torch.set_num_threads(before)


def _engine() -> Any:
    model = open_model(REFERENCE)
    return open_engine(model, baseline(model))


def _on(stream: TokenStream) -> list[Result]:
    vocabulary = masks.vocabulary(stream.engine.source.tokenizer)
    results = []
    for name, schema in (("flat", FLAT), ("nested", NESTED)):
        form = {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}
        contract = admit({"messages": [], "response_format": form})
        results.append(_pairs(stream, vocabulary, contract, name))
    return results


def _pairs(stream: TokenStream, vocabulary: masks.Vocabulary, contract: Any, name: str) -> Result:
    prompt = stream.ids(stream.engine.source.render([{"role": "user", "content": "Tell me about the trip."}]))
    ratios, held_us, free_us, count = [], list[float](), list[float](), 0
    for turn in range(ROUNDS + 1):
        seed = Sampling(temperature=0.8, seed=turn)
        tokens = _written(stream, prompt, Taker(seed, vocabulary.mask(contract), stream.engine.stops))[1]
        mask = vocabulary.mask(contract)
        assert mask is not None
        held = Answer(stream, prompt, len(tokens), Held(tokens, mask), ())
        free = Answer(stream, prompt, len(tokens), Forced(tokens), ())
        spent = _in_turns(held, free)
        if turn:  # the first one warms up
            ratios.append(spent[0] / spent[1])
            held_us.append(spent[0] / len(tokens) * 1e6)
            free_us.append(spent[1] / len(tokens) * 1e6)
            count += len(tokens)
    ratio = statistics.median(ratios) - 1
    return Result(
        what=f"an answer held to a {name} schema, per token: {count} tokens, each also written free, in turns",
        measured=f"{ratio:+.1%} CPU ({statistics.median(held_us):.0f} against {statistics.median(free_us):.0f} us)",
        target=f"<= {TARGET:.0%}",
        met=ratio <= TARGET,
    )


class Held(Taker):
    """Takes tokens that are known to be the ones that the mask allowed, after all the work of a mask."""

    def __init__(self, tokens: list[int], mask: Mask) -> None:
        super().__init__(Sampling(), mask)
        self.tokens = iter(tokens)

    @torch.inference_mode()
    def take(self, logits: Tensor) -> tuple[int, Logprob | None]:
        assert self.mask is not None
        self.mask.allowed(logits)
        int(logits.argmax())
        token = next(self.tokens)
        if not self.mask.take(token):
            raise SystemExit(f"constrained: token {token} was allowed once and is no more")
        return token, None


def _written(stream: TokenStream, prompt: list[int], taker: Taker) -> tuple[str, list[int]]:
    answer = Answer(stream, prompt, BUDGET, taker, ())
    text = "".join(piece.text for piece in answer)
    return text, answer.made


def _in_turns(held: Answer, free: Answer) -> tuple[float, float]:
    """CPU seconds of this thread, over all steps behind the first, which reads the prompt."""
    next(held), next(free)
    spent, running = [0.0, 0.0], 0
    while True:
        order = (0, 1) if running % 2 else (1, 0)
        ended = False
        for one in order:
            began = time.thread_time()
            piece = next((held, free)[one])
            spent[one] += time.thread_time() - began
            ended = ended or (one == 1 and piece.finish is not None)
        if ended:
            return spent[0], spent[1]
        running += 1
