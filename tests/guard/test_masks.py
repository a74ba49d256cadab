"""Whatever an engine writes under a mask keeps the schema, however it picks among the tokens that are left."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

import quantgate.models
from quantgate.guard import masks
from quantgate.guard.admission import admit

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["cat", "dog"]},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,4}$"}, "maxItems": 3},
        "next": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}]},
    },
    "required": ["name", "age", "kind", "next"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(quantgate.models.__path__[0] + "/reference")


def asked(schema: Any) -> Any:
    return admit({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}})


def answered(mask: masks.TokenMask, tokenizer: Any, seed: int, most: int = 600) -> str:
    """What a model writes that likes every token equally."""
    chance = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    while not mask.ended and len(ids) < most:
        logits = torch.randn(
            len(tokenizer) + 64, generator=chance
        )  # a network may have more rows than there are tokens
        mask.allowed(logits)
        token = int(logits.argmax())
        assert logits[token] > -torch.inf and token < len(tokenizer)
        if token == tokenizer.eos_token_id:
            break
        assert mask.take(token)
        ids.append(token)
    return str(tokenizer.decode(ids))


@pytest.mark.parametrize("seed", range(8))
def test_a_model_that_picks_at_random_keeps_the_schema(tokenizer, seed):
    contract = asked(SCHEMA)
    mask = masks.vocabulary(tokenizer).mask(contract)
    assert mask is not None
    text = answered(mask, tokenizer, seed)
    assert contract.check({"content": text}, "stop") is None, text
    prefix = contract.prefix()
    assert all(prefix.feed(char) is None for char in text)


def test_a_token_that_may_not_come_is_refused_and_nothing_is_lost(tokenizer):
    mask = masks.vocabulary(tokenizer).mask(asked(SCHEMA))
    assert mask is not None
    wrong, right = (
        tokenizer.encode("x", add_special_tokens=False)[0],
        tokenizer.encode("{", add_special_tokens=False)[0],
    )
    assert not mask.take(wrong)
    assert mask.take(right) and not mask.ended and not mask.broken


def test_answers_of_one_contract_know_nothing_of_each_other(tokenizer):
    vocabulary, contract = masks.vocabulary(tokenizer), asked(SCHEMA)
    first = answered(vocabulary.mask(contract), tokenizer, 3)  # type: ignore[arg-type]
    assert first == answered(vocabulary.mask(contract), tokenizer, 3)  # type: ignore[arg-type]


def test_arguments_of_a_tool_have_a_mask_of_their_own_and_free_text_has_none(tokenizer):
    vocabulary = masks.vocabulary(tokenizer)
    tools = [{"type": "function", "function": {"name": "add", "parameters": SCHEMA}}]
    contract = admit({"tools": tools})
    assert vocabulary.mask(contract) is None and vocabulary.mask(contract, "other") is None
    mask = vocabulary.mask(contract, "add")
    assert mask is not None and json.loads(answered(mask, tokenizer, 1))["kind"] in ("cat", "dog")
    assert vocabulary.mask(admit({})) is None


@pytest.mark.parametrize("schema", [{"not": {"type": "string"}}, {"type": "string", "format": "made-up"}, True])
def test_what_cannot_be_compiled_has_no_mask_or_a_looser_one_and_the_check_stands(tokenizer, schema):
    contract = asked(schema)
    mask = masks.vocabulary(tokenizer).mask(contract)
    assert mask is None or not mask.broken
    assert contract.check({"content": "not JSON"}, "stop") is not None


def test_a_vocabulary_is_made_once_for_a_tokenizer(tokenizer):
    assert masks.vocabulary(tokenizer) is masks.vocabulary(tokenizer)


def test_a_mask_ends_runs_of_blanks(tokenizer):
    """A model that likes nothing better than blanks still comes to an end."""
    schema = {"properties": {"a": {"type": "null"}}, "required": ["a"], "additionalProperties": False}
    mask = masks.vocabulary(tokenizer).mask(asked({"type": "object", **schema}))
    assert mask is not None
    blank = torch.zeros(len(tokenizer))
    for token in range(len(tokenizer)):
        if not tokenizer.decode([token]).strip():
            blank[token] = 10.0
    ids: list[int] = []
    while not mask.ended and len(ids) < 300:
        logits = blank.clone()
        mask.allowed(logits)
        token = int(logits.argmax())
        assert mask.take(token)
        ids.append(token)
    assert mask.ended and json.loads(tokenizer.decode(ids)) == {"a": None}
