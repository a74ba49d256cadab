"""Validators: what else a route asks of an answer, beyond its contract. One file each.

A validator's file ends with ``VALIDATOR = Plugin(Settings, make)``. ``Settings`` is a record, so that a misspelt key is
an error; ``make(settings)`` gives the validator. A route names validators with their settings, and under ``canary:``
what is stricter while the variant is a canary:

    validators:
      secrets: {kinds: [card number], canary: {kinds: []}}
      length: {characters: 4000}

``check`` judges a whole message. A validator that can also judge a text that is still being written (``reach`` is not
None) gives a ``Watch`` per text; ``reach`` is how many characters back it may find fault, so a stream in a window holds
back that many. Every validator brings an answer that it refuses and one that it passes: its proof at start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from quantgate import plugins
from quantgate.errors import UsageError
from quantgate.guard import Fault, Message
from quantgate.records import Record, parse


@dataclass(frozen=True, slots=True)
class Context:
    """What a validator may know of the request."""

    messages: Sequence[Message] = ()

    @property
    def asked(self) -> str:
        """The text of the last turn of the user."""
        turns = (one for one in reversed(self.messages) if one.get("role") == "user")
        return plain(next(turns, {}).get("content"))


NOTHING = Context()


@dataclass(frozen=True, slots=True)
class Proof:
    """An answer that a validator must refuse, and one that it must pass."""

    refuses: Message
    passes: Message
    context: Context = NOTHING


class Watch(Protocol):
    """One text that is still being written."""

    def feed(self, text: str) -> Fault | None: ...


class Validator(Protocol):
    name: str
    reach: int | None  # characters; None: judges whole answers alone

    def check(self, message: Message, context: Context) -> Fault | None:
        """Of a whole message."""
        ...

    def watch(self, where: str, context: Context) -> Watch:
        """Of a text named ``where``; only where ``reach`` is not None."""
        ...

    def proof(self) -> Proof: ...


@dataclass(frozen=True)
class Plugin:
    settings: type[Record]
    make: Callable[[Any], Validator]


def names() -> tuple[str, ...]:
    return plugins.names("validators")


def build(
    wanted: Mapping[str, Mapping[str, Any] | None], *, canary: bool, where: str = "validators"
) -> tuple[Validator, ...]:
    """The validators of a route, for a canary or for any other variant. Raises UsageError, UnknownName."""
    return tuple(_one(name, dict(settings or {}), canary, f"{where}.{name}") for name, settings in wanted.items())


def _one(name: str, settings: dict[str, Any], canary: bool, where: str) -> Validator:
    plugin: Plugin = plugins.get("validators", name, where=where)
    if "canary" in settings:
        stricter = settings.pop("canary")
        if not isinstance(stricter, Mapping) or not stricter:
            raise UsageError(f"{where}.canary: names nothing that is stricter; give settings of '{name}', or drop it")
        parse(plugin.settings, settings | dict(stricter), where=where)  # told at start, not with the first canary
        settings |= stricter if canary else {}
    return plugin.make(parse(plugin.settings, settings, where=where))


def check(validators: Sequence[Validator], message: Message, context: Context) -> Fault | None:
    """The first fault that one of them finds in a whole message. Content that is no one text, as a list of parts is
    none, is refused: words that are cut in two would be found in neither half."""
    if validators and not isinstance(message.get("content"), str | None):
        return Fault("malformed", "content", "the content is not a text")
    return next((fault for one in validators if (fault := one.check(message, context))), None)


def texts(message: Message) -> Iterator[tuple[str, str]]:
    """(where, text) of all that a message says: content, refusal, reasoning and the arguments of its calls."""
    for key in ("content", "refusal", "reasoning_content", "reasoning"):
        if text := plain(message.get(key)):
            yield key, text
    for at, call in enumerate(message.get("tool_calls") or ()):
        yield f"tool_calls[{at}].function.arguments", str(call["function"].get("arguments") or "")


def plain(content: Any) -> str:
    """The text of a content, which may be a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list | tuple) else ()
    return "\n".join(str(one.get("text") or "") for one in parts if isinstance(one, Mapping))


def refused(name: str, where: str, sentence: str) -> Fault:
    return Fault("validator", where, sentence, name)
