"""What code can do to look right without being right: all of it fails, for the tests live in another process."""

from __future__ import annotations

import pytest

from quantgate.sandbox import Job, Outcome
from quantgate.sandbox.box import Box, outcome

TESTS = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(3) == 9\n\ncheck(square)\n"
CHEATS = {
    "exit at once": "import os\nos._exit(0)",
    "sys.exit at once": "import sys\nsys.exit(0)",
    "exit in the call": "import os\ndef square(x):\n    os._exit(0)",
    "sys.exit in the call": "import sys\ndef square(x):\n    sys.exit(0)",
    "quit": "def square(x):\n    raise SystemExit(0)",
    "stop like a user": "def square(x):\n    raise KeyboardInterrupt",
    "leave a loop of the tests": "def square(x):\n    raise StopIteration",
    "leave a generator of the tests": "def square(x):\n    raise GeneratorExit",
    "equal to everything": (
        "class Yes:\n    def __eq__(self, other):\n        return True\n    __hash__ = None\n"
        "def square(x):\n    return Yes()"
    ),
    "a number equal to everything": (
        "class Yes(int):\n    def __eq__(self, other):\n        return True\n    __hash__ = int.__hash__\n"
        "def square(x):\n    return Yes(0)"
    ),
    "a list, a tuple, a dict equal to everything": (
        "class L(list):\n    __eq__ = lambda a, b: True\nclass T(tuple):\n    __eq__ = lambda a, b: True\n"
        "class D(dict):\n    __eq__ = lambda a, b: True\n"
        "def square(x):\n    return L() if x == 2 else T()"
    ),
    "never unequal": (
        "class Y:\n    __ne__ = lambda a, b: False\n    __eq__ = lambda a, b: True\nsquare = lambda x: Y()"
    ),
    "a class in place of the function": (
        "class square:\n    def __init__(self, x): pass\n    __eq__ = lambda a, b: True"
    ),
    "rewrite assertions": (
        "import builtins\nbuiltins.AssertionError = Warning\nbuiltins.exec = lambda *a: None\n"
        "def square(x):\n    return 0"
    ),
    "rewrite every comparison of the process": (
        "import operator, json, os\noperator.eq = lambda a, b: True\njson.dumps = lambda *a, **k: 'true'\n"
        "def square(x):\n    return 0"
    ),
    "rewrite the check": "def check(candidate):\n    return True\ndef square(x):\n    return 0",
    "rewrite modules of the harness": (
        "import sys\nfor name, module in list(sys.modules.items()):\n    if name.startswith('inside'):\n"
        "        for key in list(vars(module)):\n            if callable(vars(module)[key]):\n"
        "                setattr(module, key, lambda *a, **k: None)\n"
        "def square(x):\n    return 0"
    ),
    "search frames, garbage and globals for the nonce": (
        "import gc, sys, inspect, os, re\n"
        "def square(x):\n"
        "    seen = [repr(one) for one in gc.get_objects() if isinstance(one, (str, bytes, dict, list, tuple))]\n"
        "    frame = sys._getframe()\n"
        "    while frame:\n        seen += [repr(frame.f_locals), repr(frame.f_globals)]\n"
        "        frame = frame.f_back\n"
        "    for found in {hit for one in seen for hit in re.findall(r'(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])', one)}:\n"
        "        for end in range(64):\n            try:\n"
        "                data = ('{\"passed\":\"' + found + '\"}').encode()\n"
        "                os.write(end, len(data).to_bytes(8, 'big') + data)\n"
        "            except OSError:\n                pass\n"
        "    return 0"
    ),
    "claim a pass on every descriptor": (
        "import os\ndata = b'{\"passed\":true}'\nfor end in range(3, 64):\n    try:\n"
        "        os.write(end, len(data).to_bytes(8, 'big') + data)\n    except OSError:\n        pass\n"
        "def square(x):\n    return 0"
    ),
    "answer before it is asked": (
        "import json, os\ndata = json.dumps({'result': 4, 'states': []}).encode()\n"
        "for _ in range(9):\n    os.write(5, len(data).to_bytes(8, 'big') + data)\nos._exit(0)"
    ),
    "offer a name that is no function": "square = 4",
    "offer a built-in type": "square = int",
    "no such function": "def cube(x):\n    return x ** 3",
    "not Python": "square(x) = x",
    "close the channel": "import os\nos.closerange(3, 64)\ndef square(x):\n    return 0",
    "send nonsense": "import os\nos.write(5, (9).to_bytes(8, 'big') + b'nonsense!')\ndef square(x):\n    return 0",
    "send a message without an end": (
        "import os\nos.write(5, (1 << 60).to_bytes(8, 'big'))\ndef square(x):\n    return 0"
    ),
    "send what is deeper than a stack": (
        "import os\ndata = b'[' * 100000\nos.write(5, len(data).to_bytes(8, 'big') + data)\n"
        "def square(x):\n    return 0"
    ),
    "offer names of another kind": (
        "import os, json\ndata = json.dumps({'names': {'square': {'error': [[], {}]}}}).encode()\n"
        "os.write(5, len(data).to_bytes(8, 'big') + data)"
    ),
    "kill the parent of both": "import os, signal\ndef square(x):\n    os.kill(os.getppid(), signal.SIGKILL)",
    "trace the tester": (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "def square(x):\n    for one in (1, os.getpid() - 1):\n        if libc.ptrace(16, one, 0, 0) == 0:\n"
        "            return x * x\n    return 0"
    ),
    "read the tester's memory": (
        "def square(x):\n    import os\n    for one in (1, os.getpid() - 1):\n        try:\n"
        "            open(f'/proc/{one}/mem', 'rb')\n            return x * x\n"
        "        except OSError:\n            pass\n"
        "    return 0"
    ),
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheat_does_not_pass(box: Box, name: str) -> None:
    job = Job(code=CHEATS[name], tests=TESTS, entry="square")
    outcome = box.run(job)
    assert outcome.verdict == "failed" and outcome.because, outcome
    assert box.run(Job(code="def square(x):\n    return x * x", tests=TESTS, entry="square")).verdict == "passed"


@pytest.mark.parametrize("name", CHEATS)
def test_cheat_does_not_pass_without_a_named_entry(any_box: Box, name: str) -> None:
    assert any_box.run(Job(code=CHEATS[name], tests=TESTS)).verdict == "failed"


def run(box: Box, code: str, tests: str, *, setup: str = "", entry: str | None = None) -> Outcome:
    return box.run(Job(code=code, tests=tests, setup=setup, entry=entry))


def test_helpers_of_the_setup_are_the_tests_own(any_box: Box) -> None:
    """HumanEval/32 tests with the prompt's ``poly``: the code's own must not be asked."""
    setup = (
        "def poly(xs, x):\n    return sum(c * x ** i for i, c in enumerate(xs))\n\ndef find_zero(xs):\n    '''doc'''\n"
    )
    tests = "assert abs(poly([-2, 1], find_zero([-2, 1]))) < 1e-6"
    honest = setup + "    return 2\n"
    cheat = setup + "    return 0\n\ndef poly(xs, x):\n    return 0\n"
    assert run(any_box, honest, tests, setup=setup, entry="find_zero").verdict == "passed"
    assert run(any_box, cheat, tests, setup=setup, entry="find_zero").verdict == "failed"


@pytest.mark.parametrize(
    ("tests", "rewritten"),
    [
        ("assert abs(f(2) - 4) < 1e-6", "abs = lambda x: 0"),
        ("assert sorted(f(2)) == [1, 4]", "sorted = lambda x: [1, 4]"),
        ("import math\nassert math.isclose(f(2), 4)", "class math:\n    isclose = lambda *a: True"),
        ("assert math.isclose(f(2), 4)", "class math:\n    isclose = lambda *a, **k: True"),
        ("assert len(set(f(2))) == 2", "set = list\nlen = lambda x: 2"),
        ("assert isinstance(f(2), str)", "isinstance = lambda *a: True"),
    ],
)
def test_builtins_and_standard_modules_are_the_tests_own(any_box: Box, tests: str, rewritten: str) -> None:
    assert run(any_box, f"{rewritten}\ndef f(x):\n    return [7]", tests).verdict == "failed"


@pytest.mark.parametrize(
    "tests",
    [
        "assert f() == 4",
        "assert 4 == f()",
        "assert not (f() != 4)",
        "assert f() in [4]",
        "assert 4 in f()",
        "assert abs(f() - 4) < 1e-6",
        "assert f() - 4 == 0",
        "assert f() > 3",
        "assert 3 < f()",
        "assert len(f()) == 4 and f()[0] == 1",
        "assert isinstance(f(), int)",
        "assert {4: True}.get(f())",
    ],
)
def test_an_object_never_decides_a_comparison_with_data(any_box: Box, tests: str) -> None:
    """Every special method there is says yes; what it says is data, and compared here, or it is not asked."""
    yes = (
        "class Yes:\n    def __len__(self): return 3\n    def __getitem__(self, at):\n"
        "        if at > 2: raise IndexError\n        return 0\n    def __hash__(self): return hash(4)\n"
    )
    names = ("eq", "ne", "lt", "le", "gt", "ge", "contains", "sub", "rsub", "add", "radd", "abs", "float", "int")
    yes += "".join(f"    __{name}__ = lambda self, *a: True\n" for name in names)
    assert run(any_box, f"{yes}def f():\n    return Yes()", tests).verdict == "failed"


def test_tests_that_never_call_the_code_are_broken_and_not_passed(any_box: Box) -> None:
    made = run(any_box, "def f():\n    return 1", "def check(candidate):\n    assert candidate() == 1")
    assert made.verdict == "broken" and "without using the code" in made.because
    assert run(any_box, "def f():\n    return 1", "this is no Python").verdict == "broken"
    assert run(any_box, "def f():\n    return 1", "f()", setup="raise ValueError('no')").verdict == "broken"


def test_only_the_very_nonce_passes() -> None:
    told = {"head": "", "tail": "", "printed": 0, "cpu_s": 0.0, "wall_s": 0.0, "memory_bytes": 0}
    told |= {"stopped": "", "tester": 0, "solver": 0}
    job = Job(code="", tests="")
    for verdict in (
        {},
        {"passed": True},
        {"passed": ""},
        {"passed": "ab" * 15 + "ac"},
        {"passed": None},
        {"failed": ""},
    ):
        assert outcome(told, verdict, "ab" * 16, job).verdict == "failed"
    assert outcome(told, {"passed": "ab" * 16}, "ab" * 16, job).verdict == "passed"
    assert outcome(told | {"stopped": "wall"}, {"passed": "ab" * 16}, "ab" * 16, job).verdict == "failed"


def test_what_code_says_cannot_speak_to_a_terminal(any_box: Box) -> None:
    made = run(any_box, "def f():\n    raise ValueError('\\x1b[2J\\ud800 gone')", "f()")
    assert made.because.startswith("ValueError: ?[2J? gone at 'f()'")


def test_many_runs_side_by_side_keep_their_order_and_their_own_verdicts(box: Box) -> None:
    jobs = [Job(code=f"def f():\n    return {at}", tests=f"assert f() == {at - at % 3}") for at in range(24)]
    done: list[int] = []
    found = box.run_many(jobs, side_by_side=8, tell=done.append)
    assert [one.verdict for one in found] == ["passed" if at % 3 == 0 else "failed" for at in range(24)]
    assert done == list(range(1, 25)) and all(f"f() gave {at}" in found[at].because for at in range(24) if at % 3)
