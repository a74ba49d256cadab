"""The comparability lock: what both sides of a comparison must have in common, or be told apart by name.

Two answers are a pair only if the question was the same: chat template, tokenizer, first tokens, sampling, what ends an
answer, its budget, the cases, the scorers and the sandbox they ran in. A difference refuses the comparison, field by
field with both values, unless the user accepts that field (``allow``); what is accepted stays in the evidence. Where
two machines may only differ in the last bits of a sum (threads, batches), it is noted and not locked.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from quantgate.engines import Identity
from quantgate.errors import ComparabilityError
from quantgate.evaluate import scorers
from quantgate.evaluate.suites import Case
from quantgate.records import Record, digest_file, digest_of

Allowed = Literal[
    "template", "tokenizer", "bos", "sampling", "stop_tokens", "stop_strings", "max_tokens", "sandbox"
]  # what a user may accept; other cases or other scorers make no pairs at all
TOLD = ("bos", "stop_tokens")  # what only engines tell that hold the tokenizer themselves
NOTED = ("threads", "batch", "device", "dtype", "cpu")  # keys of an identity's runtime
ROOM = "quantgate.evaluate."  # a scorer's version is that of what it imports from here
PER_SUITE = ("stop_strings", "max_tokens", "suites")  # a repair asks other cases than the run did


class Terms(Record):
    """How one side was asked and judged; digests unless said otherwise."""

    template: str
    tokenizer: str
    bos: str  # the tokens in front of every prompt, in words: "1 x token 0"; empty: the engine does not tell
    sampling: str
    stop_tokens: tuple[int, ...]  # ids that end an answer, by the model's own settings
    stop_strings: dict[str, tuple[str, ...]]  # capability -> texts that end an answer
    max_tokens: dict[str, tuple[int, ...]]  # capability -> the budgets of its cases
    suites: dict[str, str]  # capability -> digest of its cases
    scorers: dict[str, str]  # scorer -> digest of its source
    sandbox: str = ""  # the tier that generated code ran in; empty: none was run


class Difference(Record):
    """One thing that the two sides do not have in common."""

    field: str  # "template", "max_tokens of math"
    baseline: str
    variant: str

    def __str__(self) -> str:
        return f"{self.field}: baseline {self.baseline or '(none)'}, variant {self.variant or '(none)'}"


class Lock(Record):
    """What two sides were found to have in common, and what not."""

    baseline: Terms
    variant: Terms
    accepted: tuple[Difference, ...] = ()  # the user said that they may differ
    noted: tuple[Difference, ...] = ()  # may move the last bits of a number, and no more


def terms_of(identity: Identity, tasks: Mapping[str, Sequence[Case]], *, sandbox: str = "") -> Terms:
    """The terms on which the engine of that ``identity`` answers ``tasks`` (capability -> cases)."""
    return Terms(
        template=identity.template,
        tokenizer=identity.tokenizer,
        bos=identity.bos,
        sampling=identity.sampling,
        stop_tokens=identity.stops,
        stop_strings={
            name: tuple(sorted({one for case in cases for one in case.stop})) for name, cases in tasks.items()
        },
        max_tokens={name: tuple(sorted({case.max_tokens for case in cases})) for name, cases in tasks.items()},
        suites={name: digest_of(sorted(case.digest for case in cases)) for name, cases in tasks.items()},
        scorers={
            name: scorer_digest(name) for name in sorted({case.scorer for group in tasks.values() for case in group})
        },
        sandbox=sandbox,
    )


def comparable(
    baseline: Identity,
    variant: Identity,
    tasks: Mapping[str, Sequence[Case]],
    *,
    allow: Sequence[str] = (),
    sandboxes: tuple[str, str] = ("", ""),
) -> Lock:
    """Hold the two engines to the same terms. Raises ComparabilityError with every difference that is not allowed."""
    first, second = (
        terms_of(one, tasks, sandbox=tier) for one, tier in zip((baseline, variant), sandboxes, strict=True)
    )
    return Lock(
        baseline=first,
        variant=second,
        accepted=agreed(first, second, allow=allow),
        noted=(*_untold(first, second), *_noted(baseline, variant)),
    )


def agreed(first: Terms, second: Terms, *, allow: Sequence[str] = (), since: bool = False) -> tuple[Difference, ...]:
    """The differences between two terms, all of them among ``allow``. Raises ComparabilityError for any other.

    ``since``: the first terms are those of a finished run, whose cases are not the ones asked now.
    """
    found = [one for one in differences(first, second) if not (since and _key(one) in PER_SUITE)]
    refused = [one for one in found if _key(one) not in allow]
    if refused:
        raise ComparabilityError(_sentence(refused, since=since))
    return tuple(found)


def differences(first: Terms, second: Terms) -> list[Difference]:
    """Field by field, and in fields with a row per capability or scorer, row by row."""
    found = list[Difference]()
    for name in Terms.model_fields:
        one, two = getattr(first, name), getattr(second, name)
        if isinstance(one, dict):
            found += [
                Difference(field=f"{name} of {key}", baseline=_shown(one.get(key)), variant=_shown(two.get(key)))
                for key in sorted(one.keys() | two.keys())
                if one.get(key) != two.get(key)
            ]
        elif one != two and not (name in TOLD and (not one or not two)):
            found.append(Difference(field=name, baseline=_shown(one), variant=_shown(two)))
    return found


@cache
def scorer_digest(name: str) -> str:
    """Digest of a scorer's source and of all that it imports from quantgate.evaluate."""
    module = inspect.getmodule(scorers.get(name))
    if module is None or module.__file__ is None:
        raise ComparabilityError(f"scorer '{name}': has no source file to tell its version by; install it as a package")
    waiting, files = [module.__name__], dict[str, str]()
    while waiting:
        one = waiting.pop()
        file = sys.modules[one].__file__ if one in sys.modules else None
        if one not in files and file is not None:
            files[one] = digest_file(Path(file))
            waiting += [imported for imported in _imports(Path(file)) if imported.startswith(ROOM)]
    return digest_of(sorted(files.items()))


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def _untold(first: Terms, second: Terms) -> Iterator[Difference]:
    """What one side tells and the other, a server, does not: nobody knows whether they agree."""
    for name in TOLD:
        one, two = getattr(first, name), getattr(second, name)
        if one != two and (not one or not two):
            yield Difference(field=f"{name} (not told by one side)", baseline=_shown(one), variant=_shown(two))


def _noted(baseline: Identity, variant: Identity) -> Iterator[Difference]:
    first, second = (dict(part.partition("=")[::2] for part in one.runtime) for one in (baseline, variant))
    for key in NOTED:
        if first.get(key) != second.get(key) and baseline.engine == variant.engine:
            yield Difference(field=key, baseline=first.get(key, ""), variant=second.get(key, ""))


def _key(one: Difference) -> str:
    return one.field.partition(" of ")[0]


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _sentence(refused: Sequence[Difference], *, since: bool) -> str:
    told = "; ".join(map(str, refused))
    if since:
        return f"the run was judged on other terms than now: {told}; run it again, with: quantgate run"
    names = list(dict.fromkeys(_key(one) for one in refused))
    may = [name for name in names if name in get_args(Allowed)]
    do = f", or accept it with allow: [{', '.join(may)}]" if may == names else ""
    return f"the two sides cannot be compared: {told}; make them agree{do}"
