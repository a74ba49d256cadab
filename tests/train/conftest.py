"""One small tokenizer for all tests of training."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from quantgate.evaluate import suites
from quantgate.train.reference import tokenizer as bpe
from quantgate.train.reference.loop import SHARES


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    texts = []
    for name in SHARES:
        source = suites.drafts(suites.get(name), "train", 0)
        for _ in range(60 if name != "long_context" else 5):
            draft = next(source)
            texts += [text for _, text in draft.messages] + [draft.answer]
    return bpe.train(texts, 512, 2048)
