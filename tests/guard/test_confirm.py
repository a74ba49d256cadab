"""The confirmation gate: what a person must approve leaves once, exactly as approved, or not at all."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.guard.answers import Body, calling

from quantgate.errors import ApprovalRefused, DiskFull, RecordError, UsageError
from quantgate.guard.conditions import met
from quantgate.guard.confirm import Gate, Rule, Rules, hash_of
from quantgate.guard.proposals import TIDY, Event, Journal, Memory, Proposals, State
from quantgate.records import parse

RULES = Rules(rules=(Rule(tool="transfer*", when=("/amount > 100",), canary=()), Rule(tool="delete_account")))
PAYS = ("transfer_money", '{"amount": 500, "to": "DE1"}')
SOURCE = str(Path(__file__).resolve().parents[2] / "src")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["memory", "journal"])
def proposals(request: pytest.FixtureRequest, tmp_path: Path) -> Proposals:
    return Memory() if request.param == "memory" else Journal(tmp_path / "approvals.jsonl")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(proposals: Proposals, clock: Clock) -> Gate:
    return Gate(RULES, proposals, now=clock)


def held(gate: Gate, *calls: tuple[str, str], caller: str = "key1", canary: bool = False) -> Body:
    """The pending approval of an answer that is held."""
    told = gate.hold(calling(*(calls or (PAYS,))), caller=caller, canary=canary)
    assert told is not None
    found = told["quantgate"]["pending_approval"]
    assert isinstance(found, dict)
    return found


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(ApprovalRefused) as refused:
        act()
    return refused.value.code


def test_a_held_call_leaves_no_trace_of_itself_in_the_message(gate: Gate) -> None:
    message = calling(PAYS) | {"content": "I will pay."}
    told = gate.hold(message, caller="key1", canary=False)
    assert told is not None
    assert "tool_calls" not in told
    assert told["content"].startswith("I will pay.\n\nNot called yet: transfer_money.")
    assert "DE1" not in json.dumps(told)
    pending = told["quantgate"]["pending_approval"]
    assert set(pending) == {"id", "tools", "hash", "expires"}
    assert (pending["tools"], pending["expires"]) == (["transfer_money"], 1900.0)


@pytest.mark.parametrize(
    ("calls", "canary", "holds"),
    [
        ([("transfer_money", '{"amount": 100}')], False, False),
        ([("transfer_money", '{"amount": 100.5}')], False, True),
        ([("transfer_money", '{"amount": 1}')], True, True),
        ([("transfer_money", "{}")], False, True),
        ([("transfer_money", '{"amount": "1"}')], False, True),
        ([("transfer_money", '{"amount": true}')], False, True),
        ([("transfer_money", '{"amount": 1, "amount": 1000}')], False, True),
        ([("transfer_money", "not json")], False, True),
        ([("delete_account", "{}")], False, True),
        ([("look_up", '{"amount": 1000}')], True, False),
        ([("look_up", "{}"), ("delete_account", "{}")], False, True),
        ([], False, False),
    ],
)
def test_rules_say_which_calls_are_held(calls: list[tuple[str, str]], canary: bool, holds: bool) -> None:
    gate = Gate(RULES, Memory())
    assert (gate.hold(calling(*calls), caller="key1", canary=canary) is not None) is holds


@pytest.mark.parametrize(
    ("condition", "arguments", "holds"),
    [
        ("/a/b >= 2", {"a": {"b": 2}}, True),
        ("/a/1 < 0", {"a": [5, -1]}, True),
        ("/a/1 < 0", {"a": [5, 1]}, False),
        ("/a~1b == 1", {"a/b": 1}, True),
        ("/m~0n == 1", {"m~n": 2}, False),
        ('/to != "me"', {"to": "me"}, False),
        ('/to != "me"', {"to": "you"}, True),
        ('/to == "you"', {}, True),
        ("/on == true", {"on": 1}, True),
        ("/on == 1", {"on": True}, True),
        ("/to == null", {"to": "you"}, False),
        ("/to == null", {"to": None}, True),
        ('/to == "you"', {"to": ["you"]}, True),
        ("/n == 3", {"n": 3.0}, True),
        ("/n <= 3", {"n": 4}, False),
        ("/n <= 3", {"n": None}, True),
    ],
)
def test_conditions_read_arguments_by_pointer_and_hold_what_they_cannot_judge(
    condition: str, arguments: Any, holds: bool
) -> None:
    assert met(condition, arguments) is holds


@pytest.mark.parametrize("condition", ["amount > 1", "/amount", "/amount > lots", '/amount > "5"', "/a ~ 1", ""])
def test_a_condition_that_is_none_is_refused_at_start(condition: str) -> None:
    with pytest.raises(UsageError, match=r"serve\.yaml: 'rules\.0\.when'.*'"):
        parse(Rules, {"rules": [{"tool": "pay", "when": [condition]}]}, where="serve.yaml")


@pytest.mark.parametrize("tool", ["", "pay me", "delete[ab]", "x" * 65])
def test_a_rule_for_a_tool_that_nobody_can_offer_is_refused_at_start(tool: str) -> None:
    with pytest.raises(UsageError, match="no tool is named"):
        parse(Rules, {"rules": [{"tool": tool}]}, where="serve.yaml")


def test_the_approved_call_leaves_once_and_as_it_was(gate: Gate) -> None:
    pending = held(gate)
    gate.approve(pending["id"], by="ann", hash=pending["hash"])
    message = gate.redeem(pending["id"], caller="key1")
    assert [one["function"] for one in message["tool_calls"]] == [{"name": PAYS[0], "arguments": PAYS[1]}]
    assert refusal(lambda: gate.redeem(pending["id"], caller="key1")) == "approval_used"


def test_an_answer_of_several_calls_waits_whole(gate: Gate) -> None:
    pending = held(gate, ("look_up", "{}"), PAYS)
    assert pending["tools"] == ["look_up", "transfer_money"]
    gate.approve(pending["id"], by="ann", hash=pending["hash"])
    assert len(gate.redeem(pending["id"], caller="key1")["tool_calls"]) == 2


def test_nothing_leaves_without_a_yes(gate: Gate) -> None:
    pending = held(gate)
    assert refusal(lambda: gate.redeem(pending["id"], caller="key1")) == "approval_pending"
    gate.deny(pending["id"], by="ann")
    assert refusal(lambda: gate.redeem(pending["id"], caller="key1")) == "approval_denied"
    assert refusal(lambda: gate.approve(pending["id"], by="bob", hash=pending["hash"])) == "approval_decided"


def test_no_answer_by_the_expiry_means_no(gate: Gate, clock: Clock) -> None:
    pending, late = held(gate), held(gate)
    gate.approve(late["id"], by="ann", hash=late["hash"])
    clock.now += 900.0
    assert refusal(lambda: gate.approve(pending["id"], by="ann", hash=pending["hash"])) == "approval_expired"
    assert refusal(lambda: gate.redeem(late["id"], caller="key1")) == "approval_expired"
    assert gate.waiting() == []


def test_a_clock_that_is_set_back_gains_nobody_time(gate: Gate, clock: Clock) -> None:
    approved, open, late = held(gate), held(gate), held(gate)
    gate.approve(approved["id"], by="ann", hash=approved["hash"])
    clock.now += 1000.0
    assert refusal(lambda: gate.deny(late["id"], by="ann")) == "approval_expired"
    clock.now -= 1000.0
    assert refusal(lambda: gate.redeem(approved["id"], caller="key1")) == "approval_expired"
    assert refusal(lambda: gate.approve(open["id"], by="ann", hash=open["hash"])) == "approval_expired"


def test_another_caller_learns_nothing_of_it(gate: Gate) -> None:
    pending = held(gate)
    gate.approve(pending["id"], by="ann", hash=pending["hash"])
    assert refusal(lambda: gate.redeem(pending["id"], caller="key2")) == "approval_unknown"
    assert refusal(lambda: gate.redeem("ap_guess", caller="key1")) == "approval_unknown"
    assert gate.redeem(pending["id"], caller="key1")


@pytest.mark.parametrize(
    ("arguments", "same"),
    [
        ('{"to":"DE1","amount":500}', True),
        ({"to": "DE1", "amount": 500}, True),
        ('{"amount": 501, "to": "DE1"}', False),
        ('{"amount": 500, "to": "DE1", "x": null}', False),
        ('{"amount": 500, "to": "DE1", "amount": 500}', False),
        ("", False),
    ],
)
def test_edited_arguments_are_refused_and_the_same_in_other_words_are_not(
    gate: Gate, arguments: Any, same: bool
) -> None:
    pending = held(gate)
    gate.approve(pending["id"], by="ann", hash=pending["hash"])
    act = lambda: gate.redeem(pending["id"], caller="key1", calls=[(PAYS[0], arguments)])  # noqa: E731
    if same:
        assert act()["tool_calls"][0]["function"]["arguments"] == PAYS[1]
    else:
        assert refusal(act) == "approval_edited"


def test_another_tool_or_more_calls_are_refused(gate: Gate) -> None:
    pending = held(gate)
    gate.approve(pending["id"], by="ann", hash=pending["hash"])
    for calls in ([("transfer_all", PAYS[1])], [PAYS, PAYS], []):
        assert refusal(lambda calls=calls: gate.redeem(pending["id"], caller="key1", calls=calls)) == "approval_edited"  # type: ignore[misc]


def test_an_approval_without_the_right_hash_is_none(gate: Gate) -> None:
    pending, other = held(gate), held(gate)
    assert pending["hash"] != other["hash"]
    assert refusal(lambda: gate.approve(pending["id"], by="ann", hash=other["hash"])) == "approval_edited"
    assert refusal(lambda: gate.redeem(pending["id"], caller="key1")) == "approval_pending"


def test_other_rules_make_an_approval_void(gate: Gate, proposals: Proposals, clock: Clock) -> None:
    pending = held(gate)
    gate.approve(pending["id"], by="ann", hash=pending["hash"])
    stricter = Gate(RULES.model_copy(update={"expires": 60.0}), proposals, now=clock)
    assert refusal(lambda: stricter.redeem(pending["id"], caller="key1")) == "approval_stale"


def test_another_person_must_approve_where_the_rules_say_so(proposals: Proposals) -> None:
    gate = Gate(RULES.model_copy(update={"other_person": True}), proposals)
    pending = held(gate)
    assert refusal(lambda: gate.approve(pending["id"], by="key1", hash=pending["hash"])) == "approval_own"
    gate.approve(pending["id"], by="ann", hash=pending["hash"])


def test_a_caller_cannot_fill_the_list(proposals: Proposals) -> None:
    gate = Gate(RULES.model_copy(update={"waiting": 2}), proposals)
    first = held(gate), held(gate)
    assert refusal(lambda: held(gate)) == "approval_full"
    assert held(gate, caller="key2")
    gate.deny(first[0]["id"], by="ann")
    assert held(gate)


def test_who_did_what_is_on_record(tmp_path: Path) -> None:
    path = tmp_path / "approvals.jsonl"
    gate = Gate(RULES, Journal(path))
    for by in ("ann", "bob"):
        pending = held(gate)
        gate.approve(pending["id"], by=by, hash=pending["hash"])
    gate.redeem(pending["id"], caller="key1")
    steps = [json.loads(line) for line in path.read_text("utf-8").splitlines()[1:]]
    assert [(one["status"], one["by"]) for one in steps] == [
        ("proposed", "key1"),
        ("approved", "ann"),
        ("proposed", "key1"),
        ("approved", "bob"),
        ("executed", "key1"),
    ]
    assert path.stat().st_mode & 0o077 == 0


def test_arguments_go_when_proposals_are_finished_and_what_was_used_stays_used(tmp_path: Path) -> None:
    path = tmp_path / "approvals.jsonl"
    gate = Gate(RULES, Journal(path))
    used = [held(gate) for _ in range(TIDY)]
    waits = held(gate, ("delete_account", '{"name": "kept"}'))
    for one in used:
        gate.approve(one["id"], by="ann", hash=one["hash"])
        assert gate.redeem(one["id"], caller="key1")["tool_calls"]
    assert "DE1" not in path.read_text("utf-8")
    for again in (gate, Gate(RULES, Journal(path))):
        assert refusal(lambda again=again: again.redeem(used[0]["id"], caller="key1")) == "approval_used"  # type: ignore[misc]
    gate.approve(waits["id"], by="ann", hash=waits["hash"])
    assert "kept" in str(gate.redeem(waits["id"], caller="key1"))


def test_processes_that_share_a_journal_see_each_others_steps_also_after_it_was_tidied(tmp_path: Path) -> None:
    path = tmp_path / "approvals.jsonl"
    one, other = Gate(RULES, Journal(path)), Gate(RULES, Journal(path))
    for _ in range(TIDY + 5):
        pending = held(one)
        other.deny(pending["id"], by="ann")
    pending = held(other)
    assert [state.proposal.id for state in one.waiting()] == [pending["id"]]


def redeeming(path: Path, ids: list[str], start: Any, won: Any) -> None:
    gate = Gate(RULES, Journal(path))
    for id in ids:
        start.wait()
        with contextlib.suppress(ApprovalRefused):
            gate.redeem(id, caller="key1")
            with won.get_lock():
                won.value += 1


def test_of_many_processes_one_alone_gets_the_call(tmp_path: Path) -> None:
    path, fork = tmp_path / "approvals.jsonl", multiprocessing.get_context("fork")
    gate = Gate(RULES, Journal(path))
    pending = [held(gate) for _ in range(40)]
    for one in pending:
        gate.approve(one["id"], by="ann", hash=one["hash"])
    start, won = fork.Barrier(3), fork.Value("i", 0)
    ids = [one["id"] for one in pending]
    racers = [fork.Process(target=redeeming, args=(path, ids, start, won)) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0] * 3
    assert won.value == len(ids)


def test_a_step_waits_until_that_of_another_process_is_written(tmp_path: Path) -> None:
    path = tmp_path / "approvals.jsonl"
    pending = held(Gate(RULES, Journal(path)))
    seen: list[str] = []

    def second(state: State | None, latest: float) -> Event:
        seen.append(state.status if state else "")
        return Event(id=pending["id"], status="expired", at=latest)

    other = threading.Thread(target=Journal(path).change, args=(pending["id"], second))

    def first(state: State | None, latest: float) -> Event:
        other.start()
        other.join(0.3)
        assert seen == []
        return Event(id=pending["id"], status="denied", at=latest)

    Journal(path).change(pending["id"], first)
    other.join(60)
    assert seen == ["denied"]


ENDLESS = """
import sys
from quantgate.guard.confirm import Gate, Rule, Rules
from quantgate.guard.proposals import Journal
from pathlib import Path
gate = Gate(Rules(rules=(Rule(tool="*"),), waiting=10**6), Journal(Path(sys.argv[1])))
call = {"function": {"name": "pay", "arguments": '{"amount": 1}'}}
while True:
    told = gate.hold({"tool_calls": [call]}, caller="key1", canary=False)["quantgate"]["pending_approval"]
    print(told["id"], told["hash"], flush=True)
    gate.approve(told["id"], by="ann", hash=told["hash"])
    gate.redeem(told["id"], caller="key1")
    print("used", told["id"], flush=True)
"""


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "approvals.jsonl"
    told: list[str] = []
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": SOURCE},
        )
        assert child.stdout is not None
        for _ in range(25):
            told.append(child.stdout.readline().strip())
        child.send_signal(signal.SIGKILL)
        told += [line.strip() for line in child.stdout if line.endswith("\n")]
        child.wait(60)
        child.stdout.close()
    known = {state.proposal.id: state.status for state in Journal(path).all()}
    for line in told:
        first, second = line.split()
        assert first in known if first != "used" else known[second] == "executed"


@pytest.mark.parametrize("lost", [1, 20, 200])
def test_a_row_that_was_cut_never_happened(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "approvals.jsonl"
    gate = Gate(RULES, Journal(path))
    first = held(gate)
    whole = path.stat().st_size
    held(gate)
    os.truncate(path, path.stat().st_size - lost)
    again = Gate(RULES, Journal(path))
    assert [one.proposal.id for one in again.waiting()] == [first["id"]]
    assert path.stat().st_size == whole
    assert held(again)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda text: text.replace('"status"', '"stat"', 1), "unknown key 'stat'"),
        (lambda text: text.replace("{", "", 2), "no journal of approvals"),
        (
            lambda text: "\n".join([*text.splitlines()[:1], "nothing", *text.splitlines()[1:], ""]),
            "no step of an approval",
        ),
    ],
)
def test_a_journal_that_is_broken_is_told(tmp_path: Path, edit: Callable[[str], str], sentence: str) -> None:
    path = tmp_path / "approvals.jsonl"
    held(Gate(RULES, Journal(path)))
    path.write_text(edit(path.read_text("utf-8")))
    with pytest.raises(RecordError, match=sentence):
        Journal(path)


def test_a_journal_that_is_gone_lets_nothing_leave(tmp_path: Path) -> None:
    path = tmp_path / "approvals.jsonl"
    gate = Gate(RULES, Journal(path))
    held(gate)
    path.unlink()
    with pytest.raises(RecordError, match="is gone"):
        held(gate)


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Lets no file of this process grow beyond a size: a full disk, as write sees it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)


def test_a_step_that_cannot_be_written_did_not_happen(tmp_path: Path) -> None:
    path = tmp_path / "approvals.jsonl"
    gate = Gate(RULES, Journal(path))
    pending = held(gate)
    size = path.stat().st_size
    with small_files(size + 40), pytest.raises((DiskFull, OSError)):
        gate.approve(pending["id"], by="ann", hash=pending["hash"])
    assert path.stat().st_size == size
    assert refusal(lambda: gate.redeem(pending["id"], caller="key1")) == "approval_pending"
    gate.approve(pending["id"], by="ann", hash=pending["hash"])
    assert gate.redeem(pending["id"], caller="key1")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abcdef", max_size=3), VALUES, max_size=4), st.randoms(use_true_random=False))
def test_the_hash_is_that_of_the_value_and_not_of_its_writing(arguments: dict[str, Any], random: Any) -> None:
    items = list(arguments.items())
    random.shuffle(items)
    texts = [json.dumps(dict(items), indent=2), json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))]
    hashes = {hash_of("n", "c", "p", [("t", one)]) for one in (*texts, arguments)}
    assert len(hashes) == 1
    assert hashes.isdisjoint({hash_of("n", "c", "p", [("t", arguments | {"x": 1})])})
