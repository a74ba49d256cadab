"""A plan: every variant on every target, the classic mistakes warned of, what is out of reach and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from quantgate.cli import app
from quantgate.decide.planning import Plan, PlanRow, refuse_hopeless_targets
from quantgate.errors import QuantgateError, Unsupported, UsageError
from quantgate.hardware import profile
from quantgate.models.outline import outline
from quantgate.pipeline.targets import devices_of, plan_model, plan_release, preflight
from quantgate.release_config import load_config

LLAMA_3_70B = {
    "model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 80, "intermediate_size": 28672,
    "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
SMALL = LLAMA_3_70B | {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "llama-3-70b.json"
    path.write_text(json.dumps(LLAMA_3_70B), encoding="utf-8")
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.json"
    path.write_text(json.dumps(SMALL), encoding="utf-8")
    return path


def row(found: Plan, variant: str, target: str | None = None) -> PlanRow:
    return next(one for one in found.rows if one.variant == variant and target in (None, one.target))


def test_the_textbook_line_of_a_70b_model(config: Path) -> None:
    found = plan_model(config, ["W4A16"], ["h100-sxm"])
    plain, four = row(found, "BF16"), row(found, "W4A16")
    assert plain.stored_bytes == pytest.approx(140e9, rel=0.02)
    assert plain.estimate and plain.estimate.fits is False
    ends = 2 * 2 * 128256 * 8192
    assert four.stored_bytes - ends == pytest.approx(35e9, rel=0.02)  # scales included
    assert four.estimate and four.estimate.fits and four.estimate.tpot_bound == "bytes"
    read = 2 * 128256 * 8192  # of both, the output layer in 16 bits; the table is looked up
    allowed = (plain.stored_bytes - read) / (four.stored_bytes - read)
    assert four.speedup == pytest.approx(allowed, rel=0.01) and 3.2 < allowed < 4


def test_more_devices_make_room_and_time(config: Path) -> None:
    one = row(plan_model(config, ["W8A8"], ["a100"], context=8192), "BF16").estimate
    four = row(plan_model(config, ["W8A8"], ["a100"], context=8192, tensor_parallel=4), "BF16").estimate
    assert one and four and one.fits is False and four.fits
    assert four.tpot_s == pytest.approx(one.tpot_s / 4, rel=1e-6)
    assert "what passes between devices is not counted" in four.notes


def test_a_smaller_cache_makes_room_for_more_sequences(config: Path) -> None:
    wide, narrow = (
        row(plan_model(config, ["W4A16"], ["h100-sxm"], context=8192, kv_cache=kind), "W4A16").estimate
        for kind in ("bf16", "fp8")
    )
    assert wide and narrow and wide.largest_batch and narrow.largest_batch
    assert narrow.largest_batch == pytest.approx(2 * wide.largest_batch, abs=2)


def test_classic_mistakes_are_warned_of(small: Path, config: Path) -> None:
    found = plan_model(small, ["W4A16", "W8A16", "FP8_DYNAMIC"], ["a100"])
    assert any("under 3 B parameters often lose much" in one for one in row(found, "W4A16").warnings)
    assert any("full int8 speed is W8A8" in one for one in row(found, "W8A16").warnings)
    assert any("inputs are not rounded" in one for one in row(found, "FP8_DYNAMIC").warnings)
    assert not row(plan_model(config, ["W4A16"], ["h100"]), "W4A16").warnings
    on_avx2 = plan_model(small, ["Q4_K_M"], ["cpu-avx2"])
    assert any("no published int8 units" in one for one in row(on_avx2, "Q4_K_M").warnings)


def test_four_bits_without_calibration_data_are_warned_of(config: Path) -> None:
    found = plan_model(config, ["W4A16:rtn", "W4A16:hqq", "W4A16:awq", "W8A8:rtn", "Q4_K_M:rtn"], ["h100"])
    warned = [one.variant for one in found.rows if any("sees no calibration data" in line for line in one.warnings)]
    assert warned == ["W4A16-rtn", "W4A16-hqq", "Q4_K_M-rtn"]


def test_what_does_not_fit_is_told_by_its_parts(config: Path) -> None:
    four = row(plan_model(config, ["W4A16"], ["h100-sxm"], context=8192, concurrency=16), "W4A16")
    assert four.unmet == ("needs 82.7 GB of memory (cache 42.9 GB, weights 39.5 GB); 72.0 GB are there",)
    opened = row(plan_model(config, ["W4A16"], ["cpu-avx512:torch"], memory="64GiB"), "W4A16")
    assert "weights in 16 bits while it is opened 141.1 GB" in opened.unmet[0]


def test_a_plan_holds_the_dated_figures_that_it_was_made_from(config: Path) -> None:
    found = plan_model(config, [], ["h100-sxm", "m4-max"])
    assert {name: one.date for name, one in found.devices.items()} == {"h100-sxm": "2023-03", "m4-max": "2024-10"}


def test_variants_that_nobody_names_are_those_that_the_runtimes_read(config: Path) -> None:
    def planned(*on: str) -> list[str]:
        return list(dict.fromkeys(one.variant for one in plan_model(config, [], on).rows))

    assert planned("h100-sxm") == ["BF16", "W8A8", "FP8_DYNAMIC", "W4A16"]
    assert planned("m4-max") == ["BF16", "Q8_0", "Q4_K_M"]
    assert planned("h100-sxm", "m4-max") == ["BF16", "W8A8", "FP8_DYNAMIC", "W4A16", "Q8_0", "Q4_K_M"]


RELEASE = """\
model: {model}
capabilities: {{math: {{margin: 3%}}}}
variants: [BF16, W4A16, {{scheme: auto, bits: 4.5}}, Q4_K_M]
targets:
  fleet: {{hardware: h100-sxm, runtime: vllm, price: 2.50/h, ttft_p95: 300ms, tpot_p95: 30ms, rate: 8/s}}
  laptop: {{hardware: laptop, runtime: llama.cpp, memory: 64GiB, tpot_p95: 80ms}}
"""


def release(tmp_path: Path, model: Path, text: str = RELEASE) -> Path:
    path = tmp_path / "release.yaml"
    path.write_text(text.format(model=model), encoding="utf-8")
    return path


def check(tmp_path: Path, config: Path, text: str = RELEASE) -> None:
    loaded = load_config(release(tmp_path, config, text))
    preflight(loaded, outline(config), devices_of(loaded, tmp_path, None))


def test_a_release_is_planned_on_all_its_targets(tmp_path: Path, config: Path) -> None:
    loaded = load_config(release(tmp_path, config))
    assert loaded.targets["fleet"].price == 2.5
    found = plan_release(loaded)
    assert [(one.target, one.variant) for one in found.rows] == [
        (target, variant) for target in ("fleet", "laptop") for variant in ("BF16", "W4A16", "Q4_K_M")
    ]
    fleet, laptop = row(found, "W4A16", "fleet"), row(found, "Q4_K_M", "laptop")
    assert fleet.estimate and fleet.estimate.cost_per_million
    assert row(found, "W4A16", "laptop").support.problems
    assert any("tpot_p95 of 80 ms is out of reach" in one for one in laptop.unmet) and not laptop.possible
    assert any("mixture has no shape" in one for one in found.left_out)
    assert any("no calibration traffic" in one for one in found.warnings)
    assert any("generic suites only" in one for one in found.warnings)
    assert Plan.load(found.save(tmp_path / "plan.json")) == found
    refuse_hopeless_targets(found)


def test_targets_leave_the_digest_of_a_release_without_any_alone(tmp_path: Path, config: Path) -> None:
    without = load_config(release(tmp_path, config, RELEASE.partition("targets:")[0]))
    assert "targets" not in without.body()


def test_a_target_on_which_nothing_runs_is_refused_with_the_rule(config: Path) -> None:
    found = plan_model(config, ["W4A16+awq"], ["cpu-avx512:llama.cpp"])
    with pytest.raises(Unsupported, match=r"target 'cpu-avx512:llama.cpp': W4A16\+awq: AWQ files do not load"):
        refuse_hopeless_targets(found)


def test_a_run_refuses_such_a_target_before_anything_is_spent(tmp_path: Path, config: Path) -> None:
    text = RELEASE.replace("[BF16, W4A16, {{scheme: auto, bits: 4.5}}, Q4_K_M]", "[W4A16, W8A8]")
    with pytest.raises(Unsupported, match=r"target .laptop.: W4A16: llama.cpp reads GGUF alone"):
        check(tmp_path, config, text)
    check(tmp_path, config)  # the mixture may be meant for it
    alone = text.partition("  laptop:")[0]
    check(tmp_path, config, alone)


def test_memory_that_a_target_says_counts_alone(config: Path) -> None:
    found = row(plan_model(config, ["Q4_K_M"], ["cpu-avx512:llama.cpp"], memory="8GiB"), "Q4_K_M")
    assert found.estimate and found.estimate.fits is False
    assert any("8.6 GB are there" in one for one in found.unmet)


def test_what_is_wrong_with_a_release_is_one_sentence(tmp_path: Path, config: Path) -> None:
    text = RELEASE.replace("price: 2.50/h", "price: 2.50")
    with pytest.raises(UsageError, match=r"'targets.fleet.price': expected a price such as 2.50/h with its unit"):
        load_config(release(tmp_path, config, text))
    bare = load_config(release(tmp_path, config, RELEASE.partition("targets:")[0]))
    with pytest.raises(UsageError, match="names no targets"):
        plan_release(bare)


def cli(*words: str, columns: int = 200) -> Any:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": str(columns)})


def test_the_command_prints_tables_or_the_record(tmp_path: Path, config: Path) -> None:
    shown = cli("plan", str(release(tmp_path, config)))
    assert shown.exit_code == 0, shown.output
    assert "llama-3-70b.json: 70.6 B parameters, 141.1 GB in 16 bits" in shown.output
    assert (
        "kernels: BF16: cuBLAS bf16; W4A16: Marlin, weight-only; Q4_K_M: vllm-gguf-plugin [documented: vLLM"
        in shown.output
    )
    assert "refused: llama.cpp reads GGUF alone" in shown.output
    assert "NVIDIA H100 SXM: 80.0 GB, 3,350 GB/s [documented: NVIDIA H100 Tensor Core GPU data sheet" in shown.output
    assert "what fits where" in shown.output and "bound by b: bytes, o: operations" in shown.output
    told = cli("plan", "--config", str(config), "-v", "W4A16", "--on", "h100-sxm,b200", "--price", "2/h", "--json")
    assert [one["target"] for one in json.loads(told.output)["rows"]] == ["h100-sxm"] * 2 + ["b200"] * 2


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_no_screen_cuts_a_figure(config: Path, columns: int) -> None:
    shown = cli("plan", str(config), "--on", "h100-sxm", "--price", "2/h", "-v", "W4A16", columns=columns)
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown.output and "3.69x" in shown.output and "6.58" in shown.output


@pytest.mark.parametrize(
    ("options", "option"),
    [(["--on", "h100"], "--on"), (["-v", "W4A16"], "--variant"), (["--price", "3/h"], "--price"),
     (["--concurrency", "4"], "--concurrency"), (["--kv-cache", "fp8"], "--kv-cache"),
     (["--context", "9"], "--context")],
)  # fmt: skip
def test_options_that_a_release_would_ignore_are_refused(
    tmp_path: Path, config: Path, options: list[str], option: str
) -> None:
    told = cli("plan", str(release(tmp_path, config)), *options)
    assert isinstance(told.exception, UsageError)
    assert f"names its own targets and variants; write {option} there or leave it out" in str(told.exception)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--on", "h100-sx"], "--on: unknown hardware 'h100-sx'; did you mean 'h100-sxm'?"),
        (["--on", "h100:vlm"], "--on h100:vlm: 'runtime': unknown runtime 'vlm'; did you mean 'vllm'?"),
        (["--on", "h100", "--price", "2.50"], "expected a price such as 2.50/h with its unit"),
        (["--on", "h100", "--price", "-2/h"], "more than nothing, found '-2/h'"),
        (["--on", "h100", "--memory", "plenty"], "expected a size such as 8GiB with its unit"),
        (["--on", "h100", "--kv-cache", "fp4"], "'kv_cache'"),
        (["--on", "h100", "-v", "W4A17"], "unknown scheme 'W4A17'; did you mean 'W4A16'?"),
        (["--here", "none.json"], "hardware 'here' was not measured (none.json); run: quantgate doctor --save"),
    ],
)
def test_what_is_wrong_with_the_command_is_one_sentence(config: Path, options: list[str], sentence: str) -> None:
    told = cli("plan", str(config), *options)
    assert isinstance(told.exception, QuantgateError), told.output
    assert sentence in str(told.exception) and "\n" not in str(told.exception)


def test_the_command_finds_what_doctor_saved(tmp_path: Path, small: Path) -> None:
    profile("cpu-avx512").model_copy(update={"name": "here", "memory_bytes": 8 << 30}).save(tmp_path / "here.json")
    shown = cli("plan", str(small), "-v", "Q4_K_M", "--here", str(tmp_path / "here.json"))
    assert shown.exit_code == 0 and "yes" in shown.output
