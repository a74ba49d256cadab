"""Which tokens may come next, so that an engine of this process writes nothing else: constrained decoding.

A mask is stricter than the checks: llguidance compiles a schema to a grammar that fixes the order of keys, which costs
the model nothing and makes the masks quick. What it compiles to allows no text that the whole check refuses, but for
what it cannot express (``lenient``) and for a limit that it meets in the middle; the checks stand behind it in any
case. Keys come in the order in which the schema names them.
"""

from __future__ import annotations

import json
import weakref
from collections import OrderedDict
from collections.abc import MutableMapping
from typing import Any

import numpy as np

from quantgate.guard import Contract
from quantgate.guard.contract import Demands
from quantgate.guard.limits import DEFAULT

REMEMBERED = 128  # compiled schemas of one vocabulary
BLANKS = r"( |\n {0,32})?"  # between the tokens of JSON: compact or indented, and no run of blanks without end
Grammar = Any  # llguidance.LLMatcher, at its start


class TokenMask:
    """Of one answer. Satisfies ``engines._sampling.Mask``."""

    __slots__ = ("_matcher", "_size")

    def __init__(self, matcher: Grammar, size: int) -> None:
        self._matcher, self._size = matcher, size

    def allowed(self, logits: Any) -> None:
        """Set the logits [vocabulary] of tokens that may not come next to -inf, in place.

        Nothing is masked any more where the grammar met a limit of its own: the checks judge what comes.
        """
        import torch

        if self.broken:
            return
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        if self._matcher.is_error():
            return
        size = min(self._size, logits.shape[-1])
        blocked = torch.from_numpy(bits[:size] == 0)
        logits[..., :size].masked_fill_(blocked.to(logits.device), -torch.inf)
        logits[..., size:] = -torch.inf

    def take(self, token: int) -> bool:
        """Go on by a token; False: it may not come here."""
        if self.broken:
            return True
        if self._matcher.validate_tokens([token]) != 1:
            return False
        return bool(self._matcher.consume_token(token))

    @property
    def ended(self) -> bool:
        """Whether the form is complete and nothing may follow."""
        return bool(self._matcher.is_stopped()) and not self.broken

    @property
    def broken(self) -> bool:
        """Whether the grammar met a limit of its own, so that nothing is masked from there on."""
        return bool(self._matcher.is_error())


class Vocabulary:
    """The tokens of one tokenizer, and the schemas that were compiled to masks over them."""

    def __init__(self, tokenizer: Any) -> None:
        """``tokenizer``: a fast one of transformers. Raises ValueError for any other."""
        from llguidance import LLTokenizer
        from llguidance.hf import from_tokenizer

        self._size = len(tokenizer)
        self._tokens = from_tokenizer(tokenizer, n_vocab=self._size, slices=LLTokenizer.json_slices())
        self._known: OrderedDict[str, Grammar | None] = OrderedDict()

    def mask(self, contract: Contract, tool: str | None = None) -> TokenMask | None:
        """Of the content, or of a tool's arguments; None: free, or a schema that cannot be compiled."""
        if not isinstance(contract, Demands):
            return None
        schema = contract.content if tool is None else contract.tools.get(tool)
        if schema is None:
            return None
        start = self._start(json.dumps(schema.raw))
        return None if start is None else TokenMask(start.deep_copy(), self._size)

    def _start(self, schema: str) -> Grammar | None:
        if schema not in self._known:
            self._known[schema] = self._compiled(schema, lenient=False) or self._compiled(schema, lenient=True)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(schema)
        return self._known[schema]

    def _compiled(self, schema: str, *, lenient: bool) -> Grammar | None:
        from llguidance import LLMatcher, LLParserLimits

        if not schema.startswith("{") or len(schema) > DEFAULT.schema_bytes:
            return None
        overrides: Any = {"whitespace_pattern": BLANKS, "lenient": lenient}
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides=overrides)
        except ValueError:
            return None
        matcher = LLMatcher(self._tokens, grammar, log_level=0, limits=LLParserLimits(verbose_errors=False))
        return None if matcher.is_error() else matcher


_VOCABULARIES: MutableMapping[Any, Vocabulary] = weakref.WeakKeyDictionary()


def vocabulary(tokenizer: Any) -> Vocabulary:
    """The vocabulary of a tokenizer, made once for it. Raises ValueError where it is no fast one."""
    if tokenizer not in _VOCABULARIES:
        _VOCABULARIES[tokenizer] = Vocabulary(tokenizer)
    return _VOCABULARIES[tokenizer]
