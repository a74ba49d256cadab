"""A user's own suite: every mistake is found before a model is asked, with file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantgate.errors import DataError, UnknownName
from quantgate.evaluate.files import check_cases, read_suite
from quantgate.evaluate.suites import Case, Message

GOOD = {"id": "a", "prompt": "Is it open?", "scorer": "exact", "reference": "yes"}


def write(folder: Path, *rows: Any) -> Any:
    path = folder / "support.jsonl"
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def test_suite_file_becomes_cases(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Bonjour?"}]
    full = {"messages": turns, "scorer": "contains", "reference": "salut", "slices": ["lang=fr"], "max_tokens": 4}
    first, second = read_suite(write(tmp_path, GOOD, "", full), "support")
    assert first == Case(
        suite="support",
        id="a",
        messages=(Message(role="user", content="Is it open?"),),
        scorer="exact",
        reference="yes",
    )
    assert second.id.startswith("support-") and second.slices == ("lang=fr",) and second.max_tokens == 4
    assert [message.role for message in second.messages] == ["system", "user"]


def test_made_up_id_names_the_content(tmp_path: Path) -> None:
    row = {key: GOOD[key] for key in ("prompt", "scorer", "reference")}
    (first,) = read_suite(write(tmp_path, row), "support")
    (again,) = read_suite(write(tmp_path, row), "support")
    (other,) = read_suite(write(tmp_path, row | {"reference": "no"}), "support")
    assert first.id == again.id != other.id


def test_byte_order_mark_and_unusual_line_separators_are_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "support.jsonl"
    row = json.dumps(GOOD | {"prompt": "one\u2028two\x85three"}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + row.encode() + b"\r\n")
    (case,) = read_suite(path, "support")
    assert case.messages[0].content == "one\u2028two\x85three"


BROKEN = {
    "not valid JSON (Expecting value, column 1); mend or remove the line": "{'id': 1}".replace("{'id'", "nonsense"),
    "expected a JSON object with messages, scorer and reference": [1],
    "'scorer': is missing; add it": {"prompt": "x", "reference": "y"},
    "unknown key 'refrence'; did you mean 'reference'?": {"prompt": "x", "scorer": "exact", "refrence": "y"},
    "unknown scorer 'exakt'; did you mean 'exact'?": GOOD | {"scorer": "exakt"},
    "'prompt' and 'messages' both say what is asked; keep one of them": GOOD | {"messages": []},
    "messages must end with the turn that the model answers, not with an answer": {
        "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
        "scorer": "exact",
        "reference": "y",
    },
    "messages must end with": {"messages": [], "scorer": "exact", "reference": "y"},
    "'messages.0.content': input should be a valid string, found 5": GOOD | {"prompt": 5},
    "max_tokens is 0; an answer needs at least 1 token": GOOD | {"max_tokens": 0},
    "its scorer cannot use the reference (exact: the reference is int": GOOD | {"reference": 5},
    "'answer' is meant to be right, but scorer 'exact' gives it 0 (expected 'yes'); mend one of the two": GOOD
    | {"answer": "no"},
    "NaN is not JSON; mend or remove the line": '{"prompt": "x", "scorer": "numeric", "reference": NaN}',
    "holds half of a character (a lone surrogate)": '{"prompt": "\\ud800", "scorer": "exact", "reference": "y"}',
}


@pytest.mark.parametrize("told", BROKEN)
def test_broken_line_is_told_with_its_number(tmp_path: Path, told: str) -> None:
    path = write(tmp_path, GOOD | {"id": "first"}, "", BROKEN[told])
    with pytest.raises((DataError, UnknownName)) as problem:
        read_suite(path, "support")
    assert str(problem.value).startswith(f"{path}, line 3: ")
    assert told in str(problem.value)


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_empty_suite_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "support.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=r"support\.jsonl: the suite is empty; a margin of 3 % needs about 150 cases"):
        read_suite(path, "support")


def test_file_that_cannot_be_read_is_told_with_the_key_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; name an existing one under capabilities: support: suite"):
        read_suite(tmp_path / "missing.jsonl", "support")
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        read_suite(tmp_path, "support")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "gr\xfcn"}')
    with pytest.raises(DataError, match="not UTF-8 text near byte 14; save it as UTF-8"):
        read_suite(tmp_path / "latin.jsonl", "support")


def test_duplicate_ids_are_refused_with_both_places(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"id 'a' occurs twice \(cases 1 and 3\); keep one of them"):
        read_suite(write(tmp_path, GOOD, GOOD | {"id": "b", "prompt": "2"}, GOOD | {"prompt": "3"}), "support")


def test_two_cases_that_ask_the_same_are_refused_whatever_their_wording_of_space_and_case(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'a' and 'b' ask the same \(cases 1 and 2\)"):
        read_suite(write(tmp_path, GOOD, GOOD | {"id": "b", "prompt": " is  it\nOPEN? "}), "support")


def test_built_in_suites_pass_the_same_check() -> None:
    from quantgate.evaluate import suites

    for name in suites.names():
        check_cases(suites.cases(name, "gate", 20, seed=0), name)
