"""The full stack is the variant: each setting of a runtime alone, and all together, against one baseline."""

from __future__ import annotations

import importlib.util

import pytest
from typer.testing import CliRunner

from quantgate import pipeline
from quantgate.cli import app
from quantgate.errors import UsageError
from quantgate.models import open_model
from quantgate.pipeline import CompareResult, compare_models
from quantgate.pipeline.stacks import ALL, PLAIN, stacks_of
from quantgate.quantize.gguf import make_gguf
from quantgate.release_config import load_config
from quantgate.variant_config import RuntimeConfig


def test_stacks_are_nothing_each_and_all():
    runtime = RuntimeConfig(kv_cache="q4_0", draft="d/small.gguf", draft_tokens=3, batch=2)
    named = dict(stacks_of(runtime))
    assert list(named) == [PLAIN, "kv_cache=q4_0", "draft=small.gguf", "batch=2", ALL]
    assert named["draft=small.gguf"] == RuntimeConfig(draft="d/small.gguf", draft_tokens=3)
    assert named[PLAIN].changed == {} and named[ALL] == runtime


def test_one_setting_needs_no_row_of_all_together():
    assert [name for name, _ in stacks_of(RuntimeConfig(batch=2))] == [PLAIN, "batch=2"]


def test_no_setting_is_refused_before_anything_is_opened(tmp_path):
    with pytest.raises(UsageError, match="nothing is set, so there is nothing to compare by itself"):
        compare_models("no/such/model", "nor/this", ["math"], each=True, out=tmp_path)


def test_a_batch_is_a_stack_of_its_own_in_torch(place, tmp_path):
    result = compare_models(
        str(place / "model"), str(place / "model"), [str(place / "echo.jsonl")], margin="10%", each=True,
        runtime=RuntimeConfig(batch=3), out=tmp_path,
    )  # fmt: skip
    plain, alone = result.stacks
    assert (plain.runtime, alone.runtime) == ((), ("batch=3",))
    assert plain.differ == 0 and alone.beside >= 50 and alone.differ <= 3
    assert result.comparisons == alone.comparisons and result.runtime == ("engine=torch", "batch=3")
    assert plain.no_drift == "the suites have no held-out conversations"
    assert plain.pace is not None and plain.pace.tokens > 0 and plain.pace.acceptance is None
    assert len(list((tmp_path / "answers").iterdir())) == 3  # baseline = plain stack, the batch, the second asking
    assert CompareResult.load(tmp_path / "compare.json") == result


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_cache_and_draft_are_shown_alone_and_together(place, tmp_path):
    model = open_model(place / "model")
    file = make_gguf(model, tmp_path / "small-Q8_0.gguf", "Q8_0").path
    draft = make_gguf(model, tmp_path / "draft-Q4_0.gguf", "Q4_0").path
    asked = ["compare", str(place / "model"), str(file), "--suite", str(place / "echo.jsonl"), "--margin", "50%",
             "--engine", "llamacpp", "--kv-cache", "q4_0", "--draft", str(draft), "--draft-tokens", "3", "--each",
             "--noise", "20", "--out", str(tmp_path / "o"), "--quiet"]  # fmt: skip
    done = CliRunner().invoke(app, asked, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    for told in (PLAIN, "kv_cache=q4_0", "draft=draft-Q4_0.gguf", ALL, "accepted", "of 20 cases asked twice"):
        assert told in done.output
    stacks = {one.name: one for one in CompareResult.load(tmp_path / "o" / "compare.json").stacks}
    shares = {name: one.pace.acceptance for name, one in stacks.items() if one.pace is not None}
    assert shares[PLAIN] is None and shares["kv_cache=q4_0"] is None
    assert 0 < (shares["draft=draft-Q4_0.gguf"] or 0) <= 1 and 0 < (shares[ALL] or 0) <= 1


def test_a_release_keeps_noise_stack_and_pace_in_its_report(release):
    variants = ["W8A16", {"scheme": "W8A16", "name": "b", "runtime": {"batch": 5}}]
    report = pipeline.run(load_config(release(variants=variants, judge={"noise": 30})))
    assert [(one.capability, one.n) for one in report.noise] == [("echo", 30), ("count", 30)]
    plain, batched = report.evidence
    assert plain.runtime == ("engine=torch",) and batched.runtime == ("engine=torch", "batch=5")
    assert plain.engine != batched.engine and report.paces["b"].cases >= 30


def test_no_noise_is_asked_for_where_none_is_wanted(release):
    report = pipeline.run(load_config(release(variants=["W8A16"], judge={"noise": 0})))
    assert report.noise == () and not any("again" in stage.name for stage in report.stages)
