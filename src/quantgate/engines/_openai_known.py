"""How a server's model sees text that is given to it: continuations to be weighed, and tokens of a known answer.

By completions with ``echo`` and ``logprobs`` where the text is known in full (a plain prompt, or a chat template that
the caller holds), else by vLLM's chat completions with ``prompt_logprobs``. One token is generated beside, greedily,
as a check: it must be the likeliest of its own row, or the server's rows are not those of its tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from quantgate.engines import Completion, Failure, Prompt, TokenLogprobs
from quantgate.engines._openai_http import Client, Refused
from quantgate.engines._openai_open import Served
from quantgate.engines._openai_wire import CHAT, PLAIN, count, plain_text

CLOSE = 1e-3  # nats between the generated token and the likeliest of its row
OWN_START = ("vllm", "sglang")  # they put a start token in front of any text, unless they are told not to


@dataclass(frozen=True)
class Rows:
    """Tokens of a text as the server cut it, with what it thought of each; None of the very first."""

    tokens: list[str]
    logprobs: list[float | None]
    tops: list[dict[str, float]]

    def after(self, context: str, text: str) -> int | None:
        """The first token with anything beyond ``context``; None where the tokens are not those of ``text``."""
        began = "".join(self.tokens).find(text)
        if began < 0:
            return None
        end = 0
        for place, token in enumerate(self.tokens):
            end += len(token)
            if end > began + len(context):
                return place
        return None


class Known:
    """Asks one server about given text; what it turns out not to offer is not asked for again."""

    def __init__(
        self,
        client: Client,
        served: Served,
        render: Callable[[Sequence[tuple[str, str]]], str] | None,
        extra: Mapping[str, Any],
    ) -> None:
        self.client, self.served, self.render, self.extra = client, served, render, dict(extra)
        self.missing = ""  # why there are no log probabilities, once that is known

    async def choices(self, session: aiohttp.ClientSession, prompt: Prompt) -> Completion | Failure:
        """The answer [[log likelihood, greedy], ...] to ``prompt.choices``."""
        if not prompt.plain and self.render is None:
            return Failure(
                reason="continuations are weighed in plain prompts; the chat template is not known", lost=True
            )
        context = plain_text(prompt) if prompt.plain or self.render is None else self.render(prompt.turns)
        weighed: list[tuple[float, bool]] = []
        for choice in prompt.choices:
            found = await self._tail(session, context, choice, 1)
            if isinstance(found, Failure):
                return found
            greedy = all(row.logprob >= max(row.top.values(), default=row.logprob) for row in found)
            weighed.append((sum(row.logprob for row in found), greedy))
        return Completion(text=json.dumps(weighed), tokens=0, prompt_tokens=None, finish="stop")

    async def answer(
        self, session: aiohttp.ClientSession, turns: Sequence[tuple[str, str]], top: int
    ) -> list[TokenLogprobs] | Failure:
        """See ``engines.Remote.answer_logprobs``."""
        if self.missing:
            return Failure(reason=self.missing, lost=True)
        if self.render is not None:
            return await self._tail(session, self.render(turns[:-1]), turns[-1][1], top)
        return await self._by_chat(session, turns, top)

    async def _tail(
        self, session: aiohttp.ClientSession, context: str, answer: str, top: int
    ) -> list[TokenLogprobs] | Failure:
        """What the server thinks of ``answer`` behind ``context``, token by token."""
        if self.missing:
            return Failure(reason=self.missing, lost=True)
        if not context:
            return Failure(reason="the text in front is empty, and nothing foresees a first token", lost=True)
        rows = await self._echoed(session, context + answer, top)
        if isinstance(rows, Failure):
            return rows
        first = rows.after(context, context + answer)
        if first is None:
            first = await self._counted(session, context, rows)
        if not first:
            return Failure(reason="the server's tokens are not those of the text, so none can be told apart", lost=True)
        found = []
        for token, logprob, likeliest in list(zip(rows.tokens, rows.logprobs, rows.tops, strict=True))[first:-1]:
            if logprob is None:
                return Failure(reason=f"the server gives no log probability of the token {token!r}", lost=True)
            found.append(TokenLogprobs(token=token, logprob=min(logprob, 0.0), top=likeliest))
        return found

    async def _counted(self, session: aiohttp.ClientSession, context: str, rows: Rows) -> int | None:
        """The number of the context's own tokens, where the text begins with just these."""
        alone = await self._echoed(session, context, 1)
        if isinstance(alone, Failure):
            return None
        own = alone.tokens[:-1]
        return len(own) if rows.tokens[: len(own)] == own else None

    async def _echoed(self, session: aiohttp.ClientSession, text: str, top: int) -> Rows | Failure:
        body: dict[str, Any] = {
            **self.extra,
            "model": self.served.model,
            "prompt": text,
            "max_tokens": 1,
            "temperature": 0.0,
            "echo": True,
            "logprobs": top,
        }
        if self.served.server in OWN_START and self.render is not None:
            body["add_special_tokens"] = False  # a template writes its own
        try:
            found = await self.client.raw(session, PLAIN, body)
        except Refused as refused:
            if any(word in str(refused) for word in ("echo", "logprobs")) or refused.status in (404, 405, 501):
                return self._none(str(refused))
            raise
        rows = rows_of(found)
        return self._none(rows) if isinstance(rows, str) else rows

    def _none(self, why: str) -> Failure:
        self.missing = f"the server gives no log probabilities of given text ({why})"
        return Failure(reason=self.missing, lost=True)

    async def _by_chat(
        self, session: aiohttp.ClientSession, turns: Sequence[tuple[str, str]], top: int
    ) -> list[TokenLogprobs] | Failure:
        """vLLM's way: the prompt's rows of a conversation that the answer ends, from where its prompt alone ends."""
        messages = [{"role": role, "content": content} for role, content in turns]
        base: dict[str, Any] = {**self.extra, "model": self.served.model, "temperature": 0.0}
        base[self.served.budget_key] = 1
        asked = {"prompt_logprobs": top, "add_generation_prompt": False, "continue_final_message": True}
        try:
            found = await self.client.raw(session, CHAT, {**base, **asked, "messages": messages})
            alone = await self.client.raw(session, CHAT, {**base, "messages": messages[:-1]})
        except Refused as refused:
            return self._none(str(refused))
        rows, start = found.get("prompt_logprobs"), count(alone.get("usage"), "prompt_tokens")
        if not isinstance(rows, list) or not start:
            return self._none("neither 'echo' with a known chat template nor 'prompt_logprobs'")
        told = [_prompt_row(row) for row in rows[start:]]
        if not told or None in told:
            return self._none("its 'prompt_logprobs' have another form than vLLM's")
        return [row for row in told if row is not None]


def rows_of(body: Mapping[str, Any]) -> Rows | str:
    """The rows of a completion that was echoed, or why they cannot be used."""
    try:
        told = body["choices"][0]["logprobs"]
        tokens, logprobs, tops = told["tokens"], told["token_logprobs"], told["top_logprobs"]
        rows = Rows(
            [str(token) for token in tokens],
            [None if one is None else float(one) for one in logprobs],
            [{str(name): float(value) for name, value in (row or {}).items()} for row in tops],
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return "it answers 'echo' and 'logprobs' without them"
    if not len(rows.tokens) == len(rows.logprobs) == len(rows.tops) or len(rows.tokens) < 2:
        return "its tokens and their log probabilities are not of one number"
    made = rows.logprobs[-1]
    if made is None or made < max(rows.tops[-1].values(), default=made) - CLOSE:
        return "the token it generates is not the likeliest of its row, so its rows are not those of its tokens"
    return rows


def _prompt_row(row: object) -> TokenLogprobs | None:
    """One of vLLM's rows: {token id: {"logprob", "rank", "decoded_token"}}, the text's own token first."""
    if not isinstance(row, dict) or not row:
        return None
    try:
        told = [(str(one["decoded_token"]), min(float(one["logprob"]), 0.0)) for one in row.values()]
    except (KeyError, TypeError, ValueError):
        return None
    top: dict[str, float] = {}
    for token, logprob in told:
        top[token] = max(logprob, top.get(token, logprob))
    return TokenLogprobs(token=told[0][0], logprob=told[0][1], top=top)


__all__ = ["Known", "Rows", "rows_of"]
