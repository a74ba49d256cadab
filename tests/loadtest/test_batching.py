"""Our own engine under load: requests that wait are decoded together, and every token has its time."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.engines import Completion, Failure, Prompt
from quantgate.engines.scripted import open_engine
from quantgate.errors import DataError, EngineError, RecordError, Stopped, UsageError
from quantgate.loadtest import Heard, arrivals
from quantgate.loadtest.batching import Batched
from quantgate.loadtest.objectives import parse_objective
from quantgate.loadtest.prompts import Counter, assumed, from_traffic, linear, make, prompts_for
from quantgate.loadtest.result import LoadResult
from quantgate.models import open_model
from quantgate.pipeline.loading import Wanted, load_test
from quantgate.plugins import get
from quantgate.quantize import baseline

SOURCE = Path(__file__).resolve().parents[2] / "src"
AZURE = Path(__file__).resolve().parents[3] / "shared" / "data" / "azure_llm_trace" / "AzureLLMInferenceTrace_conv.csv"
PROMPTS = [Prompt(turns=(("user", f"What is {at} plus {at + 3}?"),), max_tokens=4 + at) for at in range(6)]


class Slow:
    """A scripted engine that takes a while for a batch, and remembers how large each one was."""

    def __init__(self, **more: Any) -> None:
        self.inner = open_engine(lambda prompt: "yes", **more)
        self.identity, self.kernels, self.sizes = self.inner.identity, (), list[int]()
        self.logits, self.encode = self.inner.logits, self.inner.encode

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion | Failure]:
        self.sizes.append(len(prompts))
        time.sleep(0.1)
        if any(prompt.max_tokens == 99 for prompt in prompts):
            raise RuntimeError("out of memory")
        return self.inner.generate(prompts)


def ask_together(engine: Any, prompts: Sequence[Prompt], rows: int) -> list[Heard]:
    async def go() -> list[Heard]:
        async with Batched(engine, rows=rows) as target:
            return list(await asyncio.gather(*[target.ask(one) for one in prompts]))

    return asyncio.run(go())


def test_what_waits_is_decoded_together_up_to_the_rows_and_the_wait_is_the_queue() -> None:
    engine = Slow()
    heard = ask_together(engine, PROMPTS, rows=4)
    assert max(engine.sizes) <= 4 and sum(engine.sizes) == 7 and len(engine.sizes) <= 4, engine.sizes  # one warms up
    assert max(one.stages["queue"] for one in heard) >= 0.09
    assert all(one.first is None and "prefill" not in one.stages for one in heard), "this engine tells no steps"
    assert all(one.tokens == 3 and one.last is not None for one in heard)


def test_an_engine_that_fails_loses_its_batch_and_goes_on() -> None:
    async def go() -> list[Heard]:
        async with Batched(Slow(), rows=2) as target:
            bad = await target.ask(Prompt(turns=(("user", "x"),), max_tokens=99))
            return [bad, await target.ask(PROMPTS[0])]

    bad, good = asyncio.run(go())
    assert "out of memory" in bad.lost and not good.lost


def test_an_engine_that_cannot_answer_at_all_is_told_at_once() -> None:
    with pytest.raises(EngineError, match="does not answer: the script says"):
        ask_together(Slow(fails=lambda _prompt: True), PROMPTS, rows=2)
    with pytest.raises(EngineError, match="at least 1 row"):
        Batched(Slow(), rows=0)


@pytest.fixture(scope="module")
def reference() -> Any:
    return open_model("quantgate/reference")


def test_the_torch_engine_tells_every_token_and_answers_as_without_a_watch(reference: Any) -> None:
    engine = get("engines", "torch")(reference, baseline(reference), rows=8)
    alone = engine.generate(PROMPTS)
    heard = ask_together(engine, PROMPTS, rows=8)
    assert [one.tokens for one in heard] == [one.tokens for one in alone]
    for one in heard:
        assert one.first is not None and one.last is not None and one.tokens is not None
        assert one.sent < one.first <= one.last
        assert len(one.gaps_s) == max(0, one.tokens - 1)
        assert set(one.stages) == {"queue", "prefill", "decode"}
        assert sum(one.stages.values()) == pytest.approx(one.last - one.sent, abs=1e-4)
    assert engine.watch is None
    again = [one.text for one in engine.generate(PROMPTS) if isinstance(one, Completion)]
    assert again == [one.text for one in alone]


def test_a_full_answer_goes_on_to_its_budget_beside_others_that_end(reference: Any) -> None:
    engine = get("engines", "torch")(reference, baseline(reference), rows=8)
    asked = [Prompt(turns=one.turns, max_tokens=120) for one in PROMPTS]
    mixed = [one.model_copy(update={"full": at % 2 == 0}) for at, one in enumerate(asked)]
    plain, found = engine.generate(asked), engine.generate(mixed)
    assert any(one.finish == "stop" for one in plain), "else nothing is shown"
    for at, (alone, one) in enumerate(zip(plain, found, strict=True)):
        if at % 2 == 0:
            assert (one.tokens, one.finish) == (120, "length")
        else:
            assert (one.tokens, one.finish) == (alone.tokens, alone.finish)
    assert asked[0].digest == Prompt(turns=asked[0].turns, max_tokens=120, full=False).digest
    assert "full" not in asked[0].body()


def test_a_real_run_of_two_arms_on_the_built_in_model(tmp_path: Path) -> None:
    """The model against itself: the whole path, and a ratio whose interval is made of stretches."""
    wanted = Wanted(
        rate=8.0, seconds=3.0, suites=("math",), blocks=6, objectives=(parse_objective("e2e-p95=60s"),), seed=1
    )
    seen: list[tuple[int, int]] = []
    found = load_test("quantgate/reference", "quantgate/reference", wanted, out=tmp_path,
                      progress=lambda _stage, done, total, _note: seen.append((done, total)))  # fmt: skip
    assert found.arms == ("baseline", "reference") and not found.partial
    for one in found.results:
        measured = one.measured
        assert measured.sent == measured.answered == found.asked[0].requests and not measured.lost
        assert {stage.stage for stage in measured.stages if stage.reported} == {"queue", "prefill", "decode"}
        assert measured.token_rate and measured.at("tpot", 0.5)
    assert seen[-1] == (2 * found.asked[0].requests,) * 2
    ratio = next(one for one in found.pairs if one.latency == "tpot").ratios[0]
    assert ratio.value is not None and 0.2 < ratio.value < 5
    assert LoadResult.load(tmp_path / "load.json") == found
    page = (tmp_path / "load.html").read_text()
    assert "<svg" in page and "unknown" in page and "http" not in page.replace("http-equiv", "")


@pytest.mark.skipif(not AZURE.exists(), reason="the Azure trace is not beside this checkout")
def test_a_replayed_trace_asks_prompts_of_its_lengths(reference: Any) -> None:
    from quantgate.loadtest.traces import read_trace

    engine = get("engines", "torch")(reference, baseline(reference))
    schedule = arrivals.replay(read_trace(AZURE), rate=8.0, seconds=5.0)
    counter = Counter(lambda text: len(engine.encode((("user", text),))), "by the model's tokenizer", exact=True)
    sources = from_traffic([(("user", "The quick brown fox jumps over the lazy dog near the river bank."),)], 8)
    found, fitted = prompts_for(schedule, sources, counter, context=reference.context, seed=0)
    assert len(found) == 40 == fitted.made
    for prompt, length, output in zip(found, schedule.prompt_tokens, schedule.output_tokens, strict=True):
        assert length is not None and output is not None
        budget = min(output, reference.context // 2)
        tokens = counter.tokens(prompt.turns[0][1])
        room = min(length, reference.context - budget - 1)
        assert prompt.max_tokens == budget and tokens + budget <= reference.context
        assert abs(tokens - room) <= max(8, 0.05 * room)
    assert len({prompt.turns[0][1][:20] for prompt in found}) > 5, (
        "beginnings differ, so no cache answers for the model"
    )


def test_a_server_s_tokens_are_counted_from_two_of_its_answers() -> None:
    counter = linear(("x" * 100, 35), ("x" * 2100, 535))
    assert counter.tokens("x" * 1000) == 260 and "4.00 characters a token" in counter.by
    text, tokens = make(["word"] * 9, 200, assumed(), random.Random(0))
    assert abs(tokens - 200) <= 4 and tokens == assumed().tokens(text)


@given(st.integers(1, 3000), st.integers(1, 40), st.integers(20, 400), st.integers(0, 9))
def test_a_made_prompt_never_exceeds_the_room_that_it_has(tokens: int, each: int, most: int, seed: int) -> None:
    counter = Counter(lambda text: 9 + each * len(text.split()), "by hand")
    text, count = make(["word"] * 50, min(tokens, most), counter, random.Random(seed), most)
    assert count == counter.tokens(text)
    assert count <= most or text == "word"


def test_a_server_s_context_keeps_room_for_what_is_only_estimated() -> None:
    schedule = arrivals.draw("constant", 5, 2, 0)
    long = schedule.model_copy(update={"prompt_tokens": (900,) * 10, "output_tokens": (100,) * 10})
    source = [Prompt(turns=(("user", "one two three four five six seven"),), max_tokens=8)]
    found, fitted = prompts_for(long, source, assumed(), context=1000, seed=0)
    assert fitted.cut == 10 and all(assumed().tokens(one.turns[0][1]) + 100 <= 0.96 * 1000 for one in found)


def test_an_artifact_is_loaded_alone_by_the_model_that_its_manifest_names(tmp_path: Path, reference: Any) -> None:
    from quantgate.quantize import Recipe
    from quantgate.quantize.sweep import sweep

    sweep(reference, None, [Recipe(scheme="W8A16", method="rtn", label="W8A16")], tmp_path / "made")
    wanted = Wanted(rate=5.0, seconds=1.0, suites=("math",), law="constant")
    found = load_test(str(tmp_path / "made" / "W8A16"), None, wanted, out=tmp_path / "out")
    assert found.arms == ("W8A16",) and found.results[0].measured.answered == 5
    (tmp_path / "made" / "W8A16" / "manifest.json").unlink()
    with pytest.raises(UsageError, match="does not say which model it was made from; name that one with --of"):
        load_test(str(tmp_path / "made" / "W8A16"), None, wanted, out=tmp_path / "out")
    with pytest.raises(UsageError, match="--of"):
        load_test(str(tmp_path / "some.gguf"), None, wanted, out=tmp_path / "out")


def test_no_prompt_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="no prompt to ask"):
        prompts_for(arrivals.draw("constant", 1, 1, 0), [], assumed(), context=None, seed=0)


def test_an_address_and_a_model_are_no_pair(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="serve both"):
        load_test("quantgate/reference", "http://127.0.0.1:1/v1", Wanted(), out=tmp_path)
    with pytest.raises(UsageError, match="serve both"):
        load_test("http://127.0.0.1:1/v1", "quantgate/reference", Wanted(), out=tmp_path)


def command(tmp_path: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "quantgate", "loadtest", "quantgate/reference", "--rate", "5/s", "-s", "math", "-q",
            "--out", str(tmp_path), "--blocks", "4", *options]  # fmt: skip


def test_ctrl_c_keeps_what_was_measured_and_the_same_command_goes_on(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    line = command(tmp_path, "--duration", "8s", "--ttft-p95", "60s")
    process = subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 90
    while time.monotonic() < until:
        journals = list((tmp_path / "journal").glob("*.jsonl")) if (tmp_path / "journal").exists() else []
        if journals and journals[0].read_bytes().count(b"\n") >= 2:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == Stopped.exit_code, told
    assert "holds what was measured" in " ".join(told.split())
    partial = LoadResult.load(tmp_path / "load.json")
    assert partial.partial and partial.verdict == "inconclusive" and 0 < partial.results[0].measured.answered < 40
    whole = json.loads(journals[0].read_text().splitlines()[1])
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 3), done.stderr
    found = LoadResult.load(tmp_path / "load.json")
    assert not found.partial and found.results[0].measured.answered == found.asked[0].requests
    assert json.loads(journals[0].read_text().splitlines()[1]) == whole, "what was whole is not asked again"


def test_a_journal_that_is_cut_loses_its_last_line_and_a_broken_one_is_told(tmp_path: Path) -> None:
    wanted = Wanted(rate=10.0, seconds=1.0, suites=("math",), blocks=2, law="constant")
    first = load_test("quantgate/reference", None, wanted, out=tmp_path)
    (journal,) = (tmp_path / "journal").glob("*.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + lines[1] + lines[2][:40])
    again = load_test("quantgate/reference", None, wanted, out=tmp_path)
    assert again.results[0].measured.answered == first.results[0].measured.answered == 10
    assert journal.read_bytes().splitlines(keepends=True)[1] == lines[1]
    journal.write_bytes(lines[0] + b"{}\n" + lines[2])
    with pytest.raises(RecordError, match="line 2: no stretch of a load test"):
        load_test("quantgate/reference", None, wanted, out=tmp_path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--rate", "fast"], "a rate such as 8/s with its unit (/s, /min, /h), found 'fast'"),
        (["--rate", "0/s"], "more than nothing"),
        (["--duration", "-3s"], "more than nothing"),
        (["--duration", "60"], "300ms with its unit"),
        (["--ttft-p95", "300"], "300ms with its unit"),
        (["--arrivals", "poison"], "did you mean 'poisson'"),
        (["--trace", "none.csv"], "no such file"),
        (["--rate", "trace"], "nothing says how many"),
        (["--request", "[1]"], "not an object"),
        (["--request", '{"stream": false}'], "written by quantgate itself"),
        (["--api-key-env", "QUANTGATE_NO_SUCH_KEY"], "is not set"),
    ],
)
def test_wrong_options_are_one_sentence_before_anything_is_opened(
    tmp_path: Path, options: list[str], sentence: str
) -> None:
    from typer.testing import CliRunner

    from quantgate.cli import app
    from quantgate.errors import QuantgateError

    done = CliRunner().invoke(app, command(tmp_path / "new", *options)[3:])
    assert isinstance(done.exception, QuantgateError), done.output
    assert sentence in str(done.exception)
    assert not (tmp_path / "new").exists()
