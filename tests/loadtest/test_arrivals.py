"""Arrivals: fixed by the seed, in order, at the rate; traces of three formats."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.errors import DataError, UnknownName, UsageError
from quantgate.loadtest.arrivals import draw, replay
from quantgate.loadtest.traces import TraceRow, read_trace

AZURE = Path(__file__).resolve().parents[3] / "shared" / "data" / "azure_llm_trace" / "AzureLLMInferenceTrace_conv.csv"
laws = st.sampled_from(["poisson", "constant", "bursts"])


@given(laws, st.floats(0.5, 500), st.floats(0.5, 8), st.integers(0, 2**32))
def test_times_ascend_inside_the_window_and_are_fixed_by_the_seed(
    law: str, rate: float, seconds: float, seed: int
) -> None:
    found = draw(law, rate, seconds, seed)
    assert list(found.times) == sorted(found.times)
    assert found.times and found.times[0] >= 0
    assert found.times[-1] <= max(seconds, 0.5 / rate)
    assert found.digest == draw(law, rate, seconds, seed).digest
    assert len(found.times) == len(found.prompt_tokens) == len(found.output_tokens)


@given(st.floats(20, 200), st.integers(0, 2**32))
def test_poisson_counts_lie_where_poisson_counts_lie(rate: float, seed: int) -> None:
    mean = rate * 10.0
    assert abs(len(draw("poisson", rate, 10.0, seed).times) - mean) <= 6.5 * math.sqrt(mean)


@given(st.integers(0, 2**32), st.floats(1, 50), st.floats(1.5, 10))
def test_another_rate_is_the_same_pattern_at_another_speed(seed: int, rate: float, faster: float) -> None:
    slow, fast = draw("poisson", rate, 20 / rate, seed), draw("poisson", rate * faster, 20 / rate / faster, seed)
    assert np.allclose(np.array(slow.times), np.array(fast.times) * faster, rtol=1e-9)


def test_bursts_vary_more_than_poisson_by_the_gamma_law() -> None:
    """The squared coefficient of variation of gamma intervals is 1 / shape."""
    for law, shape, expected in (("poisson", 1.0, 1.0), ("bursts", 0.25, 4.0)):
        gaps = np.diff(draw(law, 100.0, 400.0, 3, shape).times)
        assert gaps.var() / gaps.mean() ** 2 == pytest.approx(expected, rel=0.1)
        assert gaps.mean() == pytest.approx(0.01, rel=0.05)


def test_constant_arrivals_are_evenly_spaced_and_exactly_as_many_as_asked() -> None:
    found = draw("constant", 8.0, 2.0, 0)
    assert found.times == tuple(at / 8 for at in range(16))


def test_another_seed_is_another_schedule() -> None:
    assert draw("poisson", 8, 60, 0).times != draw("poisson", 8, 60, 1).times


@pytest.mark.parametrize(
    ("law", "rate", "seconds", "burstiness"),
    [("poisson", 0.0, 1, 1), ("poisson", -1.0, 1, 1), ("poisson", math.nan, 1, 1), ("poisson", math.inf, 1, 1),
     ("constant", 1.0, 0.0, 1), ("constant", 1.0, -3.0, 1), ("bursts", 1.0, 1.0, 0.0), ("constant", 1e6, 1e6, 1)],
)  # fmt: skip
def test_numbers_that_make_no_schedule_are_refused(law: str, rate: float, seconds: float, burstiness: float) -> None:
    with pytest.raises(UsageError):
        draw(law, rate, seconds, 0, burstiness)


def test_an_unknown_law_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'poisson'"):
        draw("poison", 1, 1, 0)


ROWS = [TraceRow(float(at * at), 10 + at, 5) for at in range(1, 11)]  # at 1, 4, 9 ... 100


def test_a_trace_is_replayed_from_its_first_request_at_its_own_speed() -> None:
    found = replay(ROWS)
    assert found.times == tuple(float(at * at - 1) for at in range(1, 11))
    assert found.rate == pytest.approx(9 / 99)
    assert found.prompt_tokens == tuple(range(11, 21)) and set(found.output_tokens) == {5}


def test_a_duration_cuts_a_trace() -> None:
    assert replay(ROWS, seconds=24).times == (0.0, 3.0, 8.0, 15.0)


@given(st.floats(0.1, 1000), st.integers(2, 10))
def test_a_rate_is_met_over_the_rows_that_are_played_and_their_pattern_stays(rate: float, count: int) -> None:
    found = replay(ROWS, rate=rate, seconds=count / rate)
    assert len(found.times) == count
    assert (count - 1) / found.times[-1] == pytest.approx(rate)
    assert found.drawn_rate == pytest.approx(rate)
    natural = np.array([row.at_s - 1 for row in ROWS[:count]])
    assert np.allclose(np.array(found.times) / found.times[-1], natural / natural[-1])


def test_a_trace_of_one_moment_is_refused() -> None:
    with pytest.raises(DataError, match="at one time"):
        replay([TraceRow(5.0, 1, 1)] * 4, rate=2.0)


@pytest.mark.skipif(not AZURE.exists(), reason="the Azure trace is not beside this checkout")
def test_the_azure_trace_reads_as_the_file_says() -> None:
    rows = read_trace(AZURE)
    assert len(rows) == AZURE.read_text().count("\n")  # a header and no last line end: as many rows as line ends
    assert [(row.prompt_tokens, row.output_tokens) for row in rows[:2]] == [(374, 44), (396, 109)]
    assert rows[1].at_s - rows[0].at_s == pytest.approx(4.314579, abs=2e-6)
    played = replay(rows, rate=8.0, seconds=60.0)
    assert len(played.times) == 480 and played.drawn_rate == pytest.approx(8.0)


def test_jsonl_traces_are_read_in_their_own_unit(tmp_path: Path) -> None:
    """Mooncake writes whole milliseconds, guidellm seconds; ``unit`` overrules both."""
    mooncake = tmp_path / "mooncake.jsonl"
    rows = [{"timestamp": at * 500, "input_length": 7, "output_length": 3, "hash_ids": [1]} for at in range(3)]
    mooncake.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_trace(mooncake) == [TraceRow(0.0, 7, 3), TraceRow(0.5, 7, 3), TraceRow(1.0, 7, 3)]
    assert read_trace(mooncake, "s")[1].at_s == 500.0
    guidellm = tmp_path / "guidellm.jsonl"
    guidellm.write_text('{"timestamp": 0.5, "prompt_tokens": 4}\n{"timestamp": 0, "output_tokens": 0}\n')
    assert read_trace(guidellm) == [TraceRow(0.0, None, 1), TraceRow(0.5, 4, None)]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.csv", "TIMESTAMP,ContextTokens\n", "line 1: no column GeneratedTokens"),
        ("a.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n", "line 2: 'yesterday,1,2'"),
        ("a.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1\n", "line 2: 2 cells"),
        ("a.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,-1,2\n", "not a number of tokens"),
        ("a.jsonl", '{"at": 1}\n', "line 1: no 'timestamp'"),
        ("a.jsonl", '{"timestamp": "noon"}\n', "not a number"),
        ("a.jsonl", '{"timestamp": 1, "input_length": 2.5}\n', "'input_length' is 2.5"),
        ("a.jsonl", '{"timestamp": 1}\n', "holds 1 requests"),
        ("a.jsonl", "<html>\n", "not valid JSON"),
        ("a.csv", "", "line 1: no column TIMESTAMP"),
    ],
)
def test_a_broken_trace_is_one_sentence_with_its_line(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        read_trace(file)
    assert str(file) in str(caught.value) and sentence in str(caught.value)


def test_a_trace_that_is_not_there_and_an_unknown_unit_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_trace(tmp_path / "none.csv")
    with pytest.raises(UnknownName, match="unit of time 'min'"):
        read_trace(tmp_path / "none.jsonl", "min")
