"""json_tools: read tool schemas in the prompt, answer with one JSON call by value, or abstain when no tool fits.

Kinds: a flat ``call``, a ``nested`` one (objects and lists among the arguments), ``abstain`` (no tool listed does what
is asked) and ``multi_turn`` (a follow-up changes one argument of an earlier call). Default lists two or three tools of
different families, and abstaining is right where no tool of any kind would serve; hard lists four to six in pairs of
near twins, leaves out the right one of a pair, shuffles the properties, nests deeper, changes two arguments at once and
names values that must be ignored.
"""

from __future__ import annotations

import json
import random
from typing import Any

from quantgate.evaluate.suites import Difficulty, Draft, Role, Split, Suite, split_of
from quantgate.evaluate.suites._tools import TOOLS, Field, Tool, Tree, elsewhere, fill, leaves, schema_of, shuffled

NO_TOOL = "no_tool"
KINDS = {"call": 0.30, "nested": 0.28, "abstain": 0.20, "multi_turn": 0.22}
FLAT = [tool for tool in TOOLS if not tool.nested]
NESTED = [tool for tool in TOOLS if tool.nested and not tool.deep]
DEEP = [tool for tool in TOOLS if tool.deep]
EASY = FLAT + NESTED
TALK = [tool for tool in EASY if len(tool.changeable) > 1]
FAMILIES = list(dict.fromkeys(tool.family for tool in EASY))
ALL_FAMILIES = list(dict.fromkeys(tool.family for tool in TOOLS))
MEMBERS = {family: [tool for tool in TOOLS if tool.family == family] for family in ALL_FAMILIES}

NEAR = (("alarm", "reminder", "event", "meeting"), ("package", "box"))  # one of these might do for another

HEADERS = ("You can call these tools:", "Here are your tools:", "These tools are there for you:")
FORMAT = (
    'Answer with one JSON object {"name": ..., "arguments": {...}} and nothing else. '
    "All arguments are required. If no tool fits, answer exactly no_tool."
)
RESULTS = (
    ('{{"status":"ok","number":{n}}}', "Done, the number is {n}."),
    ('{{"status":"ok","found":{n}}}', "Done, I found {n}."),
    ('{{"result":{n}}}', "The result is {n}."),
    ('{{"status":"ok"}}', "Done."),
)
FOLLOW_UPS = ("Now the same with {changes}.", "Again, but with {changes}.", "Do it once more with {changes}.")
NOISE = (
    "Forget what I said about {value}. ",
    "Last time it was {value}, not now. ",
    "I do not mean {value} any more. ",
)


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def draw_values(rng: random.Random, tree: Tree) -> dict[str, Any]:
    """A value for every leaf; two texts of one call differ, so that no argument is right by chance."""
    values: dict[str, Any] = {}
    for name, field in leaves(tree):
        value = field.draw(rng)
        while isinstance(value, str) and value in values.values():
            value = field.draw(rng)
        values[name] = value
    return values


def request_of(rng: random.Random, tool: Tool, values: dict[str, Any]) -> str:
    said = {name: field.say(values[name]) for name, field in leaves(tool.fields)}
    return rng.choice(tool.requests).format(**said)


def listed(rng: random.Random, tool: Tool, count: int, *, present: bool, hard: bool) -> list[Tool]:
    """The tools of the system message: ``tool`` among them or, where it is to be missing, not.

    Default: one tool of a family, and the asked tool's family is gone with it. Hard: pairs of twins, and the asked
    tool's twin stays when the tool itself is gone, so that the verb decides.
    """
    near = next((group for group in NEAR if tool.family in group), ()) if not present else ()
    others = [one for one in (ALL_FAMILIES if hard else FAMILIES) if one != tool.family and one not in near]
    rng.shuffle(others)
    if not hard:
        tools = [rng.choice(MEMBERS[family]) for family in others[: count - present]]
        tools += [tool] if present else []
    else:
        twins = [one for one in MEMBERS[tool.family] if present or one is not tool]
        pool = [one for family in others[:count] for one in MEMBERS[family]]
        tools = (twins + pool)[:count]
    rng.shuffle(tools)
    return tools


def show(rng: random.Random, tool: Tool, fields: Tree) -> tuple[str, str]:
    """The name that a tool goes by this time, and its line in the system message."""
    name = rng.choice(tool.names)
    return name, compact({"name": name, "parameters": schema_of(fields)})


def change(rng: random.Random, tool: Tool, values: dict[str, Any], count: int) -> tuple[str, dict[str, Any]]:
    """A follow-up that names ``count`` arguments with new values, and the values after it."""
    after, parts = dict(values), []
    for name, field in rng.sample(tool.changeable, count):
        after[name] = _other(rng, field, list(after.values()))
        parts.append(f"{name.replace('_', ' ')} {field.say(after[name])}")
    return rng.choice(FOLLOW_UPS).format(changes=" and ".join(parts)), after


def _other(rng: random.Random, field: Field, used: list[Any]) -> Any:
    value = field.draw(rng)
    while value in used:  # every changeable field has more values than one call uses
        value = field.draw(rng)
    return value


def noise(rng: random.Random, tool: Tool, values: dict[str, Any]) -> str:
    """A sentence with a value that looks like an argument and is none."""
    _, field = rng.choice(tool.changeable)
    return rng.choice(NOISE).format(value=field.say(_other(rng, field, list(values.values()))))


def draw(rng: random.Random, difficulty: Difficulty) -> Draft:
    hard = difficulty == "hard"
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    pool = {"call": FLAT, "nested": DEEP + NESTED if hard else NESTED, "abstain": EASY, "multi_turn": TALK}[kind]
    tool, count, present = rng.choice(pool), rng.choice((4, 5, 6) if hard else (2, 3)), kind != "abstain"
    values = draw_values(rng, tool.fields)
    tools = listed(rng, tool, count, present=present, hard=hard)
    system, shown = _system(rng, tools, hard)
    name, fields = shown[tools.index(tool)] if present else ("", tool.fields)
    request = request_of(rng, tool, values)
    identity = [kind, tool.names[0], values]
    if not present and not hard:
        problem, request = elsewhere(rng)
        identity = [kind, problem]
    if hard and kind != "multi_turn" and tool.changeable and rng.random() < 0.5:
        request = noise(rng, tool, values) + request
    turns: list[tuple[Role, str]] = [("system", system), ("user", request)]
    if kind == "multi_turn":
        result, reply = rng.choice(RESULTS)
        n = rng.randint(10, 999)
        call = compact({"name": name, "arguments": fill(fields, values)})
        follow, values = change(rng, tool, values, 2 if hard else 1)
        turns += [("assistant", call), ("tool", result.format(n=n)), ("assistant", reply.format(n=n)), ("user", follow)]
        identity.append(values)
    reference: dict[str, Any] = {"name": name, "arguments": fill(fields, values)}
    return Draft(
        identity=compact(identity),
        messages=turns,
        answer=compact(reference) if present else NO_TOOL,
        scorer="tool_call",
        reference=reference if present else {"abstain": True},
        slices={"kind": kind, "tools": str(count)},
        max_tokens=144,
    )


def draw_many(rng: random.Random, questions: int, split: Split = "train") -> list[tuple[Role, str]]:
    """One list of one to three tools and about ``questions`` requests, every answer right: training text.

    Requests are of the default difficulty and of the kinds that ``draw`` makes; problems of other splits are left out.
    """
    asked = rng.choice(EASY)
    tools = listed(rng, asked, rng.choice((1, 2, 3)), present=True, hard=False)
    system, shown = _system(rng, tools, False)
    families = {one.family for one in tools}
    families |= {family for group in NEAR if families & set(group) for family in group}
    absent = [one for one in EASY if one.family not in families]
    turns: list[tuple[Role, str]] = [("system", system)]

    def take(kind: str, request: str, answer: str, *problem: Any) -> bool:
        if split_of("json_tools", compact([kind, *problem])) != split:
            return False
        turns.extend([("user", request), ("assistant", answer)])
        return True

    while sum(role == "user" for role, _ in turns) < questions:
        chance = rng.random()
        if chance < 0.15:
            problem, request = elsewhere(rng)
            take("abstain", request, NO_TOOL, problem)
            continue
        if chance < 0.35:
            tool = rng.choice(absent)
            values = draw_values(rng, tool.fields)
            take("abstain", request_of(rng, tool, values), NO_TOOL, tool.names[0], values)
            continue
        index = rng.randrange(len(tools))
        tool, name = tools[index], shown[index][0]
        values, kind = draw_values(rng, tool.fields), "nested" if tool.nested else "call"
        call = compact({"name": name, "arguments": fill(tool.fields, values)})
        if not take(kind, request_of(rng, tool, values), call, tool.names[0], values):
            continue
        result, reply = rng.choice(RESULTS)
        n = rng.randint(10, 999)
        turns += [("tool", result.format(n=n)), ("assistant", reply.format(n=n))]
        if len(tool.changeable) > 1 and rng.random() < 0.5:
            follow, after = change(rng, tool, values, 1)
            call = compact({"name": name, "arguments": fill(tool.fields, after)})
            take("multi_turn", follow, call, tool.names[0], values, after)
    return turns


def _system(rng: random.Random, tools: list[Tool], hard: bool) -> tuple[str, list[tuple[str, Tree]]]:
    """The system message, and the name and property order under which each tool stands in it."""
    lines, shown = [rng.choice(HEADERS)], list[tuple[str, Tree]]()
    for one in tools:
        order = shuffled(one.fields, rng) if hard else one.fields
        name, line = show(rng, one, order)
        lines.append(line)
        shown.append((name, order))
    return "\n".join([*lines, FORMAT]), shown


SUITE = Suite(
    name="json_tools",
    about="An agent calls the wrong tool, invents an argument, or calls one where it should not.",
    draw=draw,
    margin=0.03,
)
