"""The proof at start: guards that fire are told, and one that does not fire keeps the gateway from serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from quantgate.errors import GuardDead, SchemaRefused, UsageError
from quantgate.guard import Contract, Fault, Message, Policy, validators
from quantgate.guard.admission import admit
from quantgate.guard.confirm import Rule, Rules
from quantgate.guard.selftest import Guarded, prove
from quantgate.guard.validators import Context, Proof, Watch

RULES = Rules(
    rules=(
        Rule(tool="transfer_*", when=("/amount > 100", '/to/bank == "DE"'), canary=()),
        Rule(tool="delete?*"),
        Rule(tool="pay", when=("/amount > 5", "/amount < 4")),
    ),
    other_person=True,
)
LIVE: dict[str, Any] = {
    "secrets": {},
    "forbidden": {"words": ["sesame"]},
    "degenerate": {},
    "length": {"characters": 80},
}
WHOLE: dict[str, Any] = LIVE | {"language": {}, "refusal": {}}


@pytest.mark.parametrize("stream", ["passthrough", "holdback", "window", "buffer"])
def test_every_policy_is_proven(stream: Policy) -> None:
    proofs = prove(admit, [Guarded("chat", stream)])
    assert {one.guard for one in proofs} == {
        "admission",
        "schema",
        "length",
        "tools",
        "ladder",
        f"chat: stream ({stream})",
    }
    assert all(one.fired for one in proofs)


def test_every_validator_and_every_rule_is_proven() -> None:
    whole = validators.build(WHOLE, canary=False)
    live = validators.build(LIVE, canary=True)
    routes = [
        Guarded("chat", "buffer", validators=whole, canary_validators=live, confirm=RULES),
        Guarded("talk", "window", window=4, validators=live),
    ]
    told = [one.guard for one in prove(admit, routes)]
    assert {f"chat: {name}" for name in WHOLE} | {f"talk: {name}" for name in LIVE} <= set(told)
    assert [one for one in told if "confirm" in one] == [f"chat: confirm {rule.tool}" for rule in RULES.rules]


def test_a_setting_that_would_disable_a_guard_is_refused_before_anything_is_proven() -> None:
    with pytest.raises(UsageError, match=r"talk: 'holdback' lets pieces leave before 'language'"):
        prove(admit, [Guarded("talk", "holdback", validators=validators.build({"language": {}}, canary=False))])


class Sleeps:
    """A validator that finds nothing, or something in everything."""

    name = "sleeps"
    reach: int | None = None

    def __init__(self, *, always: bool) -> None:
        self.always = always

    def check(self, message: Message, context: Context) -> Fault | None:
        return Fault("validator", "content", "is wrong", self.name) if self.always else None

    def watch(self, where: str, context: Context) -> Watch:
        raise NotImplementedError

    def proof(self) -> Proof:
        return Proof({"content": "bad"}, {"content": "good"})


@pytest.mark.parametrize(("always", "sentence"), [(False, "passes what"), (True, "refuses what it is there to pass")])
def test_a_validator_that_sleeps_is_dead(always: bool, sentence: str) -> None:
    with pytest.raises(GuardDead, match=rf"chat: sleeps: the guard {sentence}.*nothing is served"):
        prove(admit, [Guarded("chat", "buffer", validators=(Sleeps(always=always),))])


class Blind:
    """A contract that is another one, but for what it is told to overlook."""

    def __init__(self, contract: Contract, **instead: Any) -> None:
        self._contract, self._instead = contract, instead

    def __getattr__(self, name: str) -> Any:
        return self._instead.get(name, getattr(self._contract, name))


def blind(**instead: Any) -> Any:
    return lambda body: Blind(admit(body), **instead)


def takes_all(body: Mapping[str, Any]) -> Contract:
    try:
        return admit(body)
    except SchemaRefused:
        return admit({})


@pytest.mark.parametrize(
    ("admission", "sentence"),
    [
        (takes_all, "admission: the guard takes an impossible schema"),
        (blind(check=lambda message, finish: None), "schema: the guard passes"),
        (blind(check=lambda message, finish: Fault("schema", "content", "no")), "schema: the guard refuses"),
        (lambda body: admit({} if "tools" in body else body), "tools: the guard refuses a call that was offered"),
        (blind(repair=lambda message, finish: (dict(message), ("lie",))), "ladder: the guard lets an answer leave"),
    ],
)
def test_a_check_that_sleeps_is_dead(admission: Any, sentence: str) -> None:
    with pytest.raises(GuardDead, match=sentence):
        prove(admission, [Guarded("chat", "holdback")])
