"""What is learnt of a server before anything is asked of it: which model it serves, as what, and that it answers.

One GET /models and one request of a single token. What the server refuses of the usual form and can do without (a
seed, the old name of the budget) is left out from then on, and stands in the identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from quantgate.engines._openai_http import Again, Client, Lost, Refused
from quantgate.engines._openai_stream import Malformed
from quantgate.engines._openai_wire import CHAT, as_messages, count, known
from quantgate.errors import EngineError, hint

OFFERS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp", "library": "ollama"}  # owned_by -> server
BUDGETS = ("max_tokens", "max_completion_tokens")
READ = (  # two servers that count these alike probably have one template and one tokenizer
    [("user", "Hi")],
    [
        ("system", "Be brief."),
        ("user", "Straße 1234567, 東京: def f(x):\n    return x ** 2"),
        ("assistant", "  ok"),
        ("user", '{"a": [1, null]}'),
    ],
)


@dataclass(frozen=True)
class Served:
    """A model as its server told of it."""

    model: str  # the name to ask for
    reported: str  # the name that its answers bear
    server: str  # "vllm", "llama.cpp" ...; "" where it does not say
    root: str  # what the server says it has loaded; "" where it does not say
    context: int | None  # tokens
    version: str
    budget_key: str  # of a chat completion
    seeded: bool  # whether it takes a seed
    reads: tuple[int | None, ...] = ()  # tokens of the prompts in READ, as it counts them, template included

    @property
    def sentence(self) -> str:
        """Who answers."""
        program = f"{self.server} {self.version}".strip()
        return f"'{self.reported}'" + (f" by {program}" if program else "")


async def learn(client: Client, session: aiohttp.ClientSession, model: str, sampling: Mapping[str, Any]) -> Served:
    """Check the server and ask it one token. Raises EngineError with what to do."""
    listed = await _models(client, session, named=bool(model))
    names = [str(one["id"]) for one in listed]
    if not model:
        if len(names) != 1:
            has = known(names) if names else "none that it tells of"
            raise EngineError(f"{client.url}: has {len(names)} models ({has}); name one under 'model'")
        model = names[0]
    budget_key, seeded, reported = await _first_answer(client, session, model, sampling, names)
    if names and model not in names and reported != model:
        raise EngineError(f"{client.url}: was asked for '{model}' and answered as '{reported}'; {hint(model, names)}")
    base = {"model": model, budget_key: 1} | {name: one for name, one in sampling.items() if seeded or name != "seed"}
    card = next((one for one in listed if one["id"] == model), {})
    owner, context = str(card.get("owned_by") or ""), card.get("max_model_len")
    return Served(
        model=model,
        reported=reported,
        server=OFFERS.get(owner, ""),
        root=str(card.get("root") or ""),
        context=context if isinstance(context, int) else None,
        version=await _version(client, session),
        budget_key=budget_key,
        seeded=seeded,
        reads=tuple([await _counted(client, session, {**base, "messages": as_messages(one)}) for one in READ]),
    )


async def _models(client: Client, session: aiohttp.ClientSession, *, named: bool) -> list[dict[str, Any]]:
    """The models that a server lists; none where it has no such list, or cannot make it and one is ``named``."""
    try:
        found = await client.get_patiently(session, "/models")
    except Refused as refused:
        if refused.status in (404, 405, 501):
            return []
        raise EngineError(f"{client.url}/models: {refused}; is this the address of an OpenAI-compatible API?") from None
    except Lost as lost:
        if lost.reached and named:
            return []  # it may answer all the same, and then says who it is
        do = "it should end in /v1 at most servers; mend 'url'" if lost.reached else "start the server, or mend 'url'"
        raise EngineError(f"{client.url}/models: {lost}; {do}") from None
    rows = found.get("data")
    if not isinstance(rows, list) or not all(isinstance(one, dict) and "id" in one for one in rows):
        raise EngineError(
            f"{client.url}/models: holds no list of models; is this the address of an OpenAI-compatible API?"
        )
    return rows


async def _first_answer(
    client: Client, session: aiohttp.ClientSession, model: str, sampling: Mapping[str, Any], names: list[str]
) -> tuple[str, bool, str]:
    """The form of request that the server takes, and the name that it answers by."""
    refusal = ""
    for key in BUDGETS:
        for seeded in (True, False):
            body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], key: 1}
            body |= {name: value for name, value in sampling.items() if seeded or name != "seed"}
            try:
                answer = await client.ask(session, CHAT, body)
            except Refused as refused:
                if refused.status in (404, 405, 501) or "model" in refused.code:
                    raise EngineError(f"{client.url}: {refused}; {_do(model, names)}") from None
                refusal = refusal or str(refused)
                if not any(word in str(refused) for word in ("max_tokens", "seed")):
                    raise EngineError(f"{client.url}: refuses a first request of one token: {refused}") from None
                continue
            except Lost as lost:
                raise EngineError(f"{client.url}: {lost}; see what the server says") from None
            return key, seeded, answer.reply.model or model
    raise EngineError(f"{client.url}: refuses a first request of one token: {refusal}")


async def _counted(client: Client, session: aiohttp.ClientSession, body: dict[str, Any]) -> int | None:
    """Tokens of a prompt; None where the server does not say, or does not take such a conversation."""
    try:
        return count((await client.ask(session, CHAT, body)).reply.usage, "prompt_tokens")
    except (Refused, Lost):
        return None


def _do(model: str, names: list[str]) -> str:
    if names and model not in names:
        return f"it has no '{model}'; {hint(model, names)}"
    return "is it served under that name, and does 'url' end where the API begins, as in /v1?"


async def _version(client: Client, session: aiohttp.ClientSession) -> str:
    """What vLLM (/version), llama.cpp (/props: build_info) or Ollama (/api/version) say; "" where nobody does."""
    root = Client(client.url.removesuffix("/v1"), client.key, client.patience)
    for path, key in (("/version", "version"), ("/props", "build_info"), ("/api/version", "version")):
        try:
            found = (await root.get(session, path)).get(key)
        except (Again, Refused, EngineError, Malformed):
            continue
        if isinstance(found, str) and found.isprintable() and len(found) < 80:
            return found
    return ""
