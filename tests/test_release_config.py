"""release.yaml: what may be written, and the one sentence for everything that may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantgate.errors import UsageError
from quantgate.release_config import load_config

SMALL = "capabilities: [math]\nvariants: [W4A16]\n"


def load(folder: Path, text: str) -> Any:
    path = folder / "release.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def refusal(folder: Path, text: str) -> Any:
    with pytest.raises(UsageError) as told:
        load(folder, text)
    prefix = f"{folder / 'release.yaml'}: "
    assert str(told.value).startswith(prefix)
    return str(told.value).removeprefix(prefix)


def test_smallest_release_has_defaults_for_the_rest(tmp_path: Path) -> None:
    config = load(tmp_path, SMALL)
    assert config.model == "quantgate/reference"
    assert config.capabilities["math"].margin == 0.03
    assert (config.judge.test, config.judge.alpha, config.judge.order) == ("eprocess", 0.05, "e-bonferroni")
    assert [one.scheme for one in config.variants] == ["W4A16"]
    assert config.out == str(tmp_path / "runs/release")


def test_bare_names_and_settings_may_stand_side_by_side(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "capabilities:\n  math:\n  chat: {margin: 1%}\n"
        "variants: [BF16, W8A8, {scheme: W4A16, method: gptq, group_size: 64, options: {damping: 0.02}}]\n",
    )
    assert [one.margin for one in config.capabilities.values()] == [0.03, 0.01]
    assert [one.scheme for one in config.variants] == ["BF16", "W8A8", "W4A16"]
    assert config.variants[2].options == {"damping": 0.02}


@pytest.mark.parametrize("written", ["3%", "3 %", '"3%"', "0.03", '"0.03"', "3.0%", "3e-2"])
def test_a_fraction_may_be_written_in_many_ways(tmp_path: Path, written: str) -> None:
    text = f"capabilities: {{math: {{margin: {written}}}}}\nvariants: [W4A16]\njudge: {{alpha: {written}}}\n"
    config = load(tmp_path, text)
    assert config.capabilities["math"].margin == config.judge.alpha == pytest.approx(0.03)


WRONG = {
    # unknown keys, with the nearest one, at every depth
    SMALL + "modle: x\n": "unknown key 'modle'; did you mean 'model'? "
    "Known: allow, baseline, calibration, capabilities, drift_cases, executor, judge, model, out, price, screen, "
    "targets, variants",
    SMALL + "judge: {alhpa: 5%}\n": "unknown key 'alhpa' in 'judge'; did you mean 'alpha'? "
    "Known: alpha, ledger, noise, order, seed, test",
    SMALL + "calibration: {trafic: x}\n": "unknown key 'trafic' in 'calibration'; did you mean 'traffic'? "
    "Known: allow_overlap, broken, max_tokens, require, samples, secrets, seed, traffic",
    "capabilities: {math: {margn: 3%}}\nvariants: [W4A16]\n": "unknown key 'margn' in 'capabilities.math'; "
    "did you mean 'margin'? Known: cases, hard, margin, options, path, relative, slices, suite",
    "capabilities: [math]\nvariants: [W8A8, {scheme: W4A16, groupsize: 64}]\n": "unknown key 'groupsize' in "
    "'variants.1'; did you mean 'group_size'? Known: artifact, bits, bytes, container, embeddings, endpoint, engine, "
    "group_size, keep, kv_cache, latency, lm_head, method, model, name, options, rotation, runtime, scheme, student, "
    "symmetric, untie",
    "capabilities: [math]\nvariants: [{name: my-awq, artefact: my-awq}]\n": "unknown key 'artefact' in "
    "'variants.0'; did you mean 'artifact'? Known: artifact, bits, bytes, container, embeddings, endpoint, engine, "
    "group_size, keep, kv_cache, latency, lm_head, method, model, name, options, rotation, runtime, scheme, student, "
    "symmetric, untie",
    "capabilities: [math]\nvariants: [{name: my-awq}]\n": "'variants.0': names neither 'scheme' nor 'artifact'; "
    "a scheme is made, an artifact is taken as it is, so name one of them",
    "capabilities: [math]\nvariants: [{scheme: W4A16, artifact: x}]\n": "'variants.0': names both 'scheme' and "
    "'artifact'; a scheme is made, an artifact is taken as it is, so name one of them",
    "capabilities: [math]\nvariants: [{artifact: x, method: awq}]\n": "'variants.0': an artifact is taken as it is; "
    "leave out 'method'",
    # models of their own
    "capabilities: [math]\nvariants: [{model: x, artifact: y}]\n": "'variants.0': names both 'model' and 'artifact'; "
    "a model is judged as it is or with a scheme, so leave 'artifact' out",
    "capabilities: [math]\nvariants: [{model: x, scheme: auto, bits: 4}]\n": "'variants.0': scheme auto mixes layers "
    "of the baseline; name a scheme such as W8A16 beside 'model', or none",
    "capabilities: [math]\nvariants: [{model: x, method: gptq}]\n": "'variants.0': a model without a scheme is taken "
    "as it is; leave 'method' out, or name a scheme",
    "capabilities: [math]\nvariants: [{model: x, scheme: bf16, keep: [lm_head]}]\n": "'variants.0': a model without a "
    "scheme is taken as it is; leave 'keep' out, or name a scheme",
    "capabilities: [math]\nvariants: [{model: x, engine: llamacpp}]\n": "'variants.0': engine llamacpp runs GGUF "
    "files; name a scheme such as Q4_K_M, or a .gguf file under 'artifact', or leave 'engine' out",
    # what is trained in the run
    "capabilities: [math]\nvariants: [{student: {layers: 4}, model: x}]\n": "'variants.0': names both 'student' and "
    "'model'; a student is distilled in this run and 'model' is there already, so leave one of them out",
    "capabilities: [math]\nvariants: [{student: {layers: 4}, artifact: x}]\n": "'variants.0': names both 'student' and "
    "'artifact'; a student is distilled in this run and 'artifact' is there already, so leave one of them out",
    "capabilities: [math]\nvariants: [{student: {}, scheme: W8A8}]\n": "'variants.0.student': a student has a shape "
    "(layers, heads, feed_forward, hidden) or a 'config', one of the two, such as {layers: 4}",
    "capabilities: [math]\nvariants: [{student: {layers: 4, config: x}}]\n": "'variants.0.student': a student has a "
    "shape (layers, heads, feed_forward, hidden) or a 'config', one of the two; 'layers' stands beside 'config'",
    "capabilities: [math]\nvariants: [{student: {layer: 4}}]\n": "unknown key 'layer' in 'variants.0.student'; did you "
    "mean 'layers'? Known: average, batch_tokens, clip_norm, config, documents, evaluate_every, feed_forward, "
    "final_rate, gradient_checkpointing, heads, hidden, layers, learning_rate, max_tokens, patience, precision, "
    "prompts, seed, steps, task, temperature, top_k, tune, warmup, weight_decay",
    "capabilities: [math]\nvariants: [{student: {layers: 0}}]\n": "'variants.0.student.layers': input should be "
    "greater than or equal to 1, found 0",
    "capabilities: [math]\nvariants: [{student: {layers: 4}, method: gptq}]\n": "'variants.0': a student without a "
    "scheme is taken as it is; leave 'method' out, or name a scheme",
    "capabilities: [math]\nvariants: [{student: {layers: 4}, scheme: auto, bits: 4}]\n": "'variants.0': scheme auto "
    "mixes layers of the baseline; name a scheme such as W8A16 beside 'student', or none",
    "capabilities: [math]\nvariants: [{scheme: auto, bits: 4, method: qat}]\n": "'variants.0': method qat trains one "
    "scheme, and scheme auto mixes layers that were rounded after training; name a scheme such as W3A16, or leave "
    "'method' out",
    "capabilities: [math]\nvariants: [{scheme: BF16, method: qat}]\n": "'variants.0': method qat trains with a "
    "rounding, and BF16 rounds nothing; name a scheme such as W3A16",
    "capabilities: [math]\nvariants: [{method: qat}]\n": "'variants.0': names neither 'scheme' nor 'artifact'; a "
    "scheme is made, an artifact is taken as it is, so name one of them",
    "capabilities: [math]\nvariants: [{scheme: W2A16, method: qat, options: {step: 40}}]\n": "'variants.0': options of "
    "qat: unknown key 'step'; did you mean 'steps'? Known: adapters, average, batch_tokens, clip_norm, "
    "documents, evaluate_every, final_rate, gradient_checkpointing, learning_rate, max_tokens, norms, patience, "
    "precision, prompts, reconstruct, scale_rate, seed, start, start_options, steps, task, temperature, top_k, tune, "
    "warmup, weight_decay",
    "capabilities: [math]\nvariants: [{scheme: W2A16, method: qat, options: {learning_rate: 0}}]\n": "'variants.0': "
    "options of qat: 'learning_rate': input should be greater than 0, found 0",
    # budgets
    "capabilities: [math]\nvariants: [{scheme: auto, bytes: 2 bananas}]\n": "'variants.0.bytes': "
    "expected a size such as 2.5 MB, 800 KiB or 2500000, found '2 bananas'",
    "capabilities: [math]\nvariants: [{scheme: auto, bytes: 0 MB}]\n": "'variants.0.bytes': "
    "input should be greater than 0, found '0 MB'",
    "capabilities: [math]\nvariants: [{scheme: auto, latency: soon}]\n": "'variants.0.latency': "
    "expected milliseconds such as 3 ms, 800 us or 3, found 'soon'",
    "capabilities: [math]\nvariants: [{scheme: W4A16, latency: 3}]\n": "'variants.0': 'latency' is the budget of "
    "scheme auto: both or neither, such as {scheme: auto, bits: 4.5}; the budgets are bits, bytes and latency, one or "
    "several",
    # fractions
    "capabilities: {math: {margin: three}}\nvariants: [W4A16]\n": "'capabilities.math.margin': "
    "expected a percentage such as 3%, found 'three'",
    "capabilities: {math: {margin: 5}}\nvariants: [W4A16]\n": "'capabilities.math.margin': "
    "input should be less than 1, found 5",
    "capabilities: {math: {margin: 0%}}\nvariants: [W4A16]\n": "'capabilities.math.margin': "
    "input should be greater than 0, found 0.0",
    SMALL + "judge: {alpha: nan%}\n": "'judge.alpha': input should be a finite number, found nan",
    # what is missing or empty
    "variants: [W4A16]\n": "'capabilities': is missing; add it",
    "capabilities: [math]\n": "'variants': is missing; add it",
    "capabilities: {}\nvariants: [W4A16]\n": "'capabilities': is empty; "
    "name at least one capability, such as math: {margin: 3%}",
    # shapes
    "capabilities: [math, math]\nvariants: [W4A16]\n": "'capabilities': 'math' is listed twice; keep one",
    "capabilities: [{math: {margin: 3%}}]\nvariants: [W4A16]\n": "'capabilities': a list holds bare names, "
    "found {'math': {'margin': '3%'}}; with margins, leave the dashes out",
    "capabilities: [math]\nvariants: W4A16\n": "'variants': input should be a valid tuple, found 'W4A16'",
    SMALL + "judge: {test: ttest}\n": "'judge.test': input should be 'eprocess', 'exact' or 'tango', found 'ttest'",
    SMALL + "calibration: {samples: 0}\n": "'calibration.samples': input should be greater than or equal to 1, found 0",
    "capabilities: {math: {slices: [digits=2, digits=2]}}\nvariants: [W4A16]\n": "'capabilities.math.slices': "
    "'digits=2' is listed twice; keep one",
    "capabilities: {math: {slices: [{nam: digits=2}]}}\nvariants: [W4A16]\n": "unknown key 'nam' in "
    "'capabilities.math.slices.0'; did you mean 'name'? Known: margin, name",
    SMALL + "screen: {}\n": "'screen': names no limit; give one, such as {kl_mean: 0.5}, or leave 'screen' out",
    SMALL + "screen: {kl: 0.5}\n": "unknown key 'kl' in 'screen'; Known: kl_mean, ppl_ratio, same_top",
    SMALL + "screen: {ppl_ratio: 0.5}\n": "'screen.ppl_ratio': input should be greater than 1, found 0.5",
    SMALL + "screen: {kl_mean: 0.5}\ndrift_cases: 0\n": "'screen' goes by the drift, and 'drift_cases' is 0; "
    "give cases, or leave 'screen' out",
    # YAML itself
    "": "expected keys such as model, capabilities, variants; write an example with: quantgate init",
    "- a\n- b\n": "expected keys such as model, capabilities, variants; write an example with: quantgate init",
    SMALL + "variants: [W8A8]\n": "not valid YAML (line 3: the key 'variants' is written twice; keep one)",
    "capabilities:\n  math: {margin: 3%}\n  math: {margin: 9%}\nvariants: [W4A16]\n": "not valid YAML "
    "(line 3: the key 'math' is written twice; keep one)",
}


def test_slices_are_names_or_have_margins_of_their_own_or_are_all(tmp_path: Path) -> None:
    text = "capabilities: {math: {slices: [digits=2, {name: op=add, margin: 5%}]}, chat: {slices: all}, code_gen: {}}\n"
    config = load(tmp_path, text + "variants: [W4A16]\n")
    first, second = config.capabilities["math"].slices
    assert (first.name, first.margin, second.name, second.margin) == ("digits=2", None, "op=add", 0.05)
    assert config.capabilities["chat"].slices == "all"
    assert "slices" not in config.capabilities["code_gen"].body()  # a configuration without keeps its digest
    assert "screen" not in config.body()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2.5 MB", 2_500_000),
        ("2.5mb", 2_500_000),
        ("800 KiB", 819_200),
        (2500000, 2_500_000),
        ("1e6", 10**6),
        ("3GB", 3 * 10**9),
    ],
)
def test_a_size_may_be_written_in_many_ways(tmp_path: Path, written: object, meant: int) -> None:
    config = load(tmp_path, f"capabilities: [math]\nvariants: [{{scheme: auto, bytes: {written}}}]\n")
    assert config.variants[0].bytes == meant


@pytest.mark.parametrize(
    ("written", "meant"), [("3", 3.0), ("3 ms", 3.0), ("800us", 0.8), ("0.1 s", 100.0), ("0.5", 0.5)]
)
def test_a_latency_may_be_written_in_many_ways(tmp_path: Path, written: str, meant: float) -> None:
    config = load(tmp_path, f"capabilities: [math]\nvariants: [{{scheme: auto, latency: {written}}}]\n")
    assert config.variants[0].latency == pytest.approx(meant)


@pytest.mark.parametrize("text", WRONG)
def test_mistake_is_told_in_one_sentence(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text) == WRONG[text]


def test_text_that_is_no_yaml_is_told_with_its_place(tmp_path: Path) -> None:
    assert "not valid YAML" in (told := refusal(tmp_path, "capabilities: [math\n")) and "line 2" in told
    assert "\n" not in told


def test_missing_file_and_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml: no such file; write one with: quantgate init"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match=r"cannot be read \(Is a directory\); name the release\.yaml itself"):
        load_config(tmp_path)


def test_paths_are_seen_from_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "deep" / "model").mkdir(parents=True)
    path = tmp_path / "deep" / "release.yaml"
    path.write_text(
        "model: model\ncalibration: {traffic: ../traffic.jsonl}\nout: out\n"
        "capabilities: {support: {suite: support.jsonl}}\nvariants: [W4A16]\n"
    )
    config = load_config(path)
    deep = tmp_path / "deep"
    assert config.model == str(deep / "model")
    assert config.calibration.traffic == str(deep / "../traffic.jsonl")
    assert config.capabilities["support"].suite == str(deep / "support.jsonl")
    assert config.out == str(deep / "out")


@pytest.mark.parametrize("model", ["quantgate/reference", "owner/name"])
def test_a_model_that_is_no_folder_here_keeps_its_name(tmp_path: Path, model: str) -> None:
    assert load(tmp_path, SMALL + f"model: {model}\n").model == model


def test_a_missing_model_folder_is_named_where_it_was_looked_for(tmp_path: Path) -> None:
    from quantgate.errors import ModelError
    from quantgate.models.locate import locate

    config = load(tmp_path, SMALL + "model: ./missing\n")
    with pytest.raises(ModelError) as told:
        locate(config.model)
    assert str(told.value) == (
        f"{tmp_path / 'missing'}: no such folder; "
        "name a model folder, a Hugging Face id (owner/name) or 'quantgate/reference'"
    )


def test_absolute_paths_stay(tmp_path: Path) -> None:
    config = load(tmp_path, SMALL + f"out: {tmp_path / 'elsewhere'}\n")
    assert config.out == str(tmp_path / "elsewhere")


def test_examples_are_valid_and_can_be_passed(tmp_path: Path) -> None:
    from quantgate.decide import refuse_hopeless
    from quantgate.evaluate.evidence import Gate
    from quantgate.examples import EXAMPLE, demo_config

    for config in (load(tmp_path, EXAMPLE), demo_config(400)):
        level = config.judge.alpha / len(config.variants)
        gates = [
            Gate(capability=name, suite=name, margin=one.margin, alpha=config.judge.alpha, pass_alpha=level)
            for name, one in config.capabilities.items()
        ]
        refuse_hopeless(gates, {name: one.cases for name, one in config.capabilities.items()})


def test_demo_asks_at_most_as_many_cases_as_it_is_told() -> None:
    from quantgate.examples import demo_config

    assert {one.cases for one in demo_config(150).capabilities.values()} == {150}


def test_a_rotation_is_named_and_configurations_without_one_are_what_they_were(tmp_path: Path) -> None:
    plain = load(tmp_path, SMALL)
    assert "rotation" not in plain.variants[0].body()
    turned = load(tmp_path, "capabilities: [math]\nvariants: [{scheme: W4A8, rotation: hadamard}]\n")
    assert turned.variants[0].rotation == turned.variants[0].body()["rotation"] == "hadamard"
    told = refusal(tmp_path, "capabilities: [math]\nvariants: [{scheme: W4A8, rotation: hadamrd}]\n")
    assert told == "'variants.0.rotation': input should be 'hadamard', found 'hadamrd'"
    told = refusal(tmp_path, "capabilities: [math]\nvariants: [{scheme: auto, bits: 4, rotation: hadamard}]\n")
    assert told.endswith("scheme auto chooses by itself; leave 'rotation' out")


def test_what_is_trained_stands_in_the_variants(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "capabilities: [math]\nvariants:\n  - {scheme: W2A16, method: qat, options: {steps: 40}}\n"
        "  - {student: {layers: 4, steps: 30}, scheme: W8A8}\n  - {student: {config: small/config.json}}\n",
    )
    trained, cut, given = config.variants
    assert (trained.trained, trained.training.steps, trained.training.start) == (True, 40, "gptq")
    assert cut.student.layers == 4 and cut.student.steps == 30 and cut.made and not cut.is_baseline
    assert given.student.config == str(tmp_path / "small/config.json") and not given.made


def test_a_release_that_trains_nothing_keeps_its_digest(tmp_path: Path) -> None:
    """By which answers and reports of earlier versions are found again."""
    config = load(tmp_path, SMALL)
    assert "student" not in config.body()["variants"][0]
    assert config.content == "sha256:0e3d1116d77eca3b6baba0171f527945493c10d39202ede935236c2e38d8071e"
