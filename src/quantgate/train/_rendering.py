"""Conversations as token ids in which answers are known from prompts, whatever the chat template.

The last answer stands behind exactly what an engine would ask: the template's text up to where an answer begins, and
then the answer with the template's own mark of its end, each tokenized by itself. Earlier answers are found by
rendering the conversation up to each of them: where that is the beginning of the whole, the answer follows it. A
template that rewrites what came before (Mistral's moves the system prompt) hides them, and they count as prompts do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from quantgate.calibrate import Conversation, Turns
from quantgate.calibrate.conversation import spoken
from quantgate.calibrate.render import texts_of
from quantgate.errors import DataError
from quantgate.models import OpenedModel
from quantgate.train import Document

PROBE = "quantgate-probe"
AT_ONCE = 512  # conversations that are tokenized together


@dataclass(frozen=True)
class Drawn:
    """A conversation that may become a document."""

    source: str
    conversation: Conversation


@dataclass(frozen=True)
class _Pieces:
    """``asked`` as an engine would be given it, with the earlier answers in it, and the answer with its end."""

    asked: str
    answer: str = ""
    spans: list[tuple[int, int]] = field(default_factory=list)  # characters of ``asked``, [from, to)
    hidden: int = 0  # answers whose place the template does not tell
    alike: bool = False  # not even the last answer's place is known, so all tokens count alike


@dataclass
class Told:
    """What a stranger should know of the rendering, counted."""

    alike: int = 0  # conversations all of whose tokens count alike
    hidden: int = 0  # earlier answers that count as prompts do
    refused: int = 0  # conversations that the template refuses
    cut: int = 0  # conversations cut to the token limit
    unanswered: int = 0  # of those, the ones cut in front of their answer


def of_turns(turns: Turns) -> Conversation:
    return Conversation(tuple({"role": role, "content": content} for role, content in turns))


def documents(
    model: OpenedModel, drawn: Sequence[Drawn], *, prompts: float, limit: int, told: Told
) -> list[Document | None]:
    """A document of at most ``limit`` tokens for each, whatever is longer cut; None where nothing in it would count.

    Tokens of answers count 1, all others ``prompts``. Raises ModelError for a model without a chat template.
    """
    end, found = ending(model), list[Document | None]()
    for at in range(0, len(drawn), AT_ONCE):
        part = drawn[at : at + AT_ONCE]
        pieces = [_pieces(model, one.conversation, end, told) for one in part]
        asked = _encoded(model, [one.asked for one in pieces if one], offsets=any(one.spans for one in pieces if one))
        answers = iter(_encoded(model, [one.answer for one in pieces if one])[0])
        rows = zip(*asked, strict=True)
        for one, piece in zip(part, pieces, strict=True):
            found.append(
                None if piece is None else _document(one, piece, next(rows), next(answers), prompts, limit, told)
            )
    return found


def ending(model: OpenedModel) -> str:
    """What the template writes behind an answer, up to its first special token; the tokenizer's own where it has none.

    ChatML's is ``<|im_end|>``.
    """
    from jinja2 import TemplateError

    tokenizer = model.tokenizer
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": PROBE}]
    try:
        text = str(tokenizer.apply_chat_template(chat, tokenize=False)) if tokenizer.chat_template else ""
    except (TemplateError, TypeError, ValueError):
        text = ""
    _, seen, after = text.rpartition(PROBE)
    marks = [after.index(one) + len(one) for one in tokenizer.all_special_tokens if one in after]
    after = after[: min(marks)] if marks else after.rstrip()
    return after if seen and after else tokenizer.eos_token or ""


def _pieces(model: OpenedModel, conversation: Conversation, end: str, told: Told) -> _Pieces | None:
    try:
        found = _split(model, conversation, end)
    except DataError:
        told.refused += 1
        return None
    told.hidden += found.hidden
    told.alike += found.alike
    return found


def _split(model: OpenedModel, conversation: Conversation, end: str) -> _Pieces:
    whole = texts_of(model, conversation)
    if conversation.answer is None:
        asked, answer = whole[0], ""
    elif len(whole) == 2:
        asked, answer = whole[0], whole[1] + end
    else:  # one text, by a template that knows tools
        asked = "".join(texts_of(model, _first(conversation, len(conversation.messages) - 1)))
        if not whole[0].startswith(asked):
            return _Pieces(whole[0], alike=True)
        answer = whole[0][len(asked) :].rstrip()
    spans, hidden = list[tuple[int, int]](), 0
    last = len(conversation.messages) - (conversation.answer is not None)
    for at, message in enumerate(conversation.messages[:last]):
        if message["role"] == "assistant" and at:
            place = _place(model, conversation, at, asked, end)
            spans += [place] if place else []
            hidden += place is None
    return _Pieces(asked, answer, spans, hidden)


def _place(model: OpenedModel, conversation: Conversation, at: int, asked: str, end: str) -> tuple[int, int] | None:
    """Where in ``asked`` message ``at`` stands with its end, or None where the template does not tell."""
    before = "".join(texts_of(model, _first(conversation, at)))
    if not asked.startswith(before):
        return None
    said = spoken(conversation.messages[at])
    for text in (said, said.strip()):
        if asked.startswith(text + end, len(before)):
            return len(before), len(before) + len(text + end)
    through = texts_of(model, _first(conversation, at + 1))
    if len(through) == 1 and asked.startswith(through[0].rstrip()):
        return len(before), len(through[0].rstrip())
    return None


def _first(conversation: Conversation, count: int) -> Conversation:
    return Conversation(conversation.messages[:count], conversation.tools, conversation.response_format)


def _encoded(
    model: OpenedModel, texts: list[str], *, offsets: bool = False
) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
    """Token ids, and the characters that each stands for where they are asked and the tokenizer knows them."""
    if not texts:
        return [], []
    offsets = offsets and bool(model.tokenizer.is_fast)
    more: dict[str, Any] = {"return_offsets_mapping": True} if offsets else {}
    found = model.tokenizer(texts, add_special_tokens=False, verbose=False, **more)
    return found["input_ids"], found["offset_mapping"] if offsets else [[] for _ in texts]


def _document(
    drawn: Drawn,
    piece: _Pieces,
    asked: tuple[list[int], list[tuple[int, int]]],
    answer: list[int],
    prompts: float,
    limit: int,
    told: Told,
) -> Document | None:
    ids, places = asked
    wanted = [1.0 if piece.alike else prompts] * len(ids)
    if places:
        for start, end in piece.spans:
            for at, (low, high) in enumerate(places):
                if low < end and high > start and high > low:
                    wanted[at] = 1.0
    elif piece.spans:
        told.hidden += len(piece.spans)  # a tokenizer that does not know its characters
    ids, wanted = [*ids, *answer], [*wanted, *(1.0 for _ in answer)]
    told.cut += len(ids) > limit
    told.unanswered += len(ids) > limit and max(wanted[:limit]) < max(wanted)
    ids, wanted = ids[:limit], [0.0, *wanted[1:limit]]
    if not any(wanted):
        return None
    return Document(drawn.source, ids, wanted, drawn.conversation.turns)
