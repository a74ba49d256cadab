"""whitespace: a run of 200 blanks, of whatever kind and wherever it stands."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from tests.watch.signals.made import marked, said

from quantgate.watch.signals.whitespace import runs_on

blanks = st.builds(lambda sign, times: sign * times, st.sampled_from([" ", "\n", "\t", " \n"]), st.integers(90, 210))


@given(st.lists(st.one_of(blanks, st.sampled_from(["a", "{", "b" * 150])), max_size=6).map("".join))
def test_it_finds_what_a_search_finds(text: str) -> None:
    assert runs_on(text) is (re.search(r"\s{200}", text) is not None)


def test_a_run_of_two_hundred() -> None:
    assert marked("whitespace", said('{"a": 1' + "\n" * 200)) == 1.0
    assert marked("whitespace", said('{"a": 1' + "\n" * 199)) == 0.0
    assert marked("whitespace", said("")) == 0.0
