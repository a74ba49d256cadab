"""Adequacy on the built-in model, and the command from traffic to a folder that a run takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from quantgate.calibrate.folder import RECORD, SAMPLES, Kept
from quantgate.cli import app
from quantgate.errors import DataError
from quantgate.evaluate import suites
from quantgate.models import open_model
from quantgate.models.locate import REFERENCE
from quantgate.pipeline import run
from quantgate.pipeline.adequacy import Moved, gain, sets_of, summary
from quantgate.pipeline.calibration import calibrate_traffic
from quantgate.quantize.ranges import ClipRate, clip_rates
from quantgate.quantize.statistics import batches
from quantgate.report.calibrations import CalibrationReport, calibration_page

SAMPLES_EACH = 24


def ids_of(model: Any, names: list[str], split: Any, count: int) -> list[list[int]]:
    found = []
    for name in names:
        for case in suites.cases(name, split, count // len(names)):
            ids = model.encode([{"role": one.role, "content": one.content} for one in case.messages])
            found.append((ids + model.tokenizer.encode(case.answer or "", add_special_tokens=False))[:256])
    return found


def test_samples_of_one_kind_clip_more_of_other_traffic_than_mixed_ones() -> None:
    model = open_model(REFERENCE)
    others = [name for name in suites.names() if name != "math"]
    vocabulary = int(model.config.vocab_size)

    def rates(names: list[str]) -> list[ClipRate]:
        samples = ids_of(model, names, "calibrate", SAMPLES_EACH)
        held = ids_of(model, others, "tune", SAMPLES_EACH)
        first, second = (batches(one, vocabulary, model.context, 2048) for one in (samples, held))
        return clip_rates(model, first, second)

    math, mixed = rates(["math"]), rates([*others, "math"])
    assert len(math) == len(mixed) == 4 * model.depth
    assert [one.layers for one in math] == [one.layers for one in mixed]
    beyond = [sum(one.beyond_channel for one in found) / len(found) for found in (math, mixed)]
    tensor = [sum(one.beyond_tensor for one in found) / len(found) for found in (math, mixed)]
    assert beyond[0] > 2 * beyond[1] > 0
    assert tensor[0] > tensor[1]


def test_what_was_calibrated_with_is_never_beyond_its_own_range(place: Path) -> None:
    model = open_model(place / "model")
    samples = [[3, 17, 200, 45], [5, 9, 77], [130, 21, 64, 5, 33]]
    own = batches(samples, int(model.config.vocab_size), model.context, 16)
    for one in clip_rates(model, own, own):
        assert (one.beyond_tensor, one.beyond_channel, one.furthest) == (0.0, 0.0, 1.0)
    one_token = batches([[3]], int(model.config.vocab_size), model.context, 16)
    found = clip_rates(model, one_token, own)
    assert all(one.beyond_channel >= one.beyond_tensor > 0 and one.furthest > 1 for one in found)
    first = found[0]
    assert first.values == 12 * 64  # tokens x channels, no padding


def test_halves_share_no_sample_and_redraws_repeat_some() -> None:
    ids = [[at] for at in range(40)]
    sets = dict(sets_of(ids, 0))
    assert sets["whole"] == ids
    assert sorted(sets["half 1"] + sets["half 2"]) == ids
    assert len(sets["half 1"]) == 20
    assert all(
        len(sets[f"redrawn {at}"]) == 40 and len({one[0] for one in sets[f"redrawn {at}"]}) < 36 for at in (1, 2)
    )
    assert sets_of(ids, 0) == list(sets.items())


def moved(*kl: float) -> Moved:
    return Moved(kl=kl, tokens=(10,) * len(kl))


def test_gain_is_the_paired_difference_with_conversations_as_units() -> None:
    whole, half = moved(0.1, 0.2, 0.3, 0.4), moved(0.15, 0.25, 0.35, 0.45)
    assert gain(whole, half)[0] == pytest.approx(0.05)
    assert gain(whole, half)[1] == pytest.approx(0.0, abs=1e-12)
    rise, error = gain(whole, moved(0.2, 0.2, 0.3, 0.4))
    assert rise == pytest.approx(0.025)  # by hand: moves 1, 0, 0, 0 over 40 tokens
    assert error == pytest.approx((sum((m - 0.25) ** 2 for m in (1, 0, 0, 0)) * 4 / 3) ** 0.5 / 40)


@pytest.mark.parametrize(
    ("half", "sentence"),
    [
        (0.20, "More samples would help: with half the samples the drift changes by +100"),
        (0.1001, "More samples would not help"),
    ],
)
def test_the_sentence_follows_from_what_halving_costs(half: float, sentence: str) -> None:
    sets = [("whole", 64, moved(*[0.1] * 30))]
    sets += [(f"half {at}", 32, moved(*[half + 0.0001 * at] * 30)) for at in (1, 2)]
    sets += [(f"redrawn {at}", 64, moved(*[0.1 + 0.0001 * at] * 30)) for at in (1, 2)]
    assert summary("W4A16", [], sets, 30).sentence.startswith(sentence)


def test_one_noisy_half_decides_nothing() -> None:
    sets = [("whole", 64, moved(*[0.1] * 30)), ("half 1", 32, moved(*[0.2] * 30)), ("half 2", 32, moved(*[0.1] * 30))]
    sets += [(f"redrawn {at}", 64, moved(*[0.1] * 30)) for at in (1, 2)]
    assert summary("W4A16", [], sets, 30).sentence.startswith("Whether more samples would help is not decided")


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"prompt": f"tell {'xyz' * (at % 5)} about {at * 7919}", "completion": f"no {at * 31}"} for at in range(90)]
    rows[3]["prompt"] += " write to jane@acme.io"
    path = tmp_path_factory.mktemp("traffic") / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_command_writes_a_folder_that_a_run_takes(place: Path, release: Any, traffic: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    asked = ["calibrate", str(traffic), "-m", str(place / "model"), "--samples", "40", "--max-tokens", "48"]
    asked += ["--out", str(out), "-q", "-r", "length>=20:5"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert "40 samples of 40 asked for" in told
    assert "missing: no conversation has 'tools'" in told
    assert "secrets in the traffic: 1 x e-mail address" in told
    kept = Kept.load(out / RECORD)
    assert len(kept.samples) == len((out / SAMPLES).read_text().splitlines()) == 40
    report = run(release(calibration={"traffic": str(out), "max_tokens": 32}, variants=["W8A16"]))
    assert report.calibration is not None
    assert report.calibration.samples == kept.samples
    assert report.calibration.audit == kept.audit
    page = (out / "report.html").read_text("utf-8")
    assert "length=1..127" in page
    assert "acme" not in page + done.output


def test_adequacy_is_measured_kept_and_shown(place: Path, traffic: Path, tmp_path: Path) -> None:
    said: list[str] = []

    def again() -> CalibrationReport:
        said.clear()
        return calibrate_traffic(
            [traffic],
            model=str(place / "model"),
            out=tmp_path / "set",
            samples=40,
            max_tokens=48,
            adequacy="W3A16-g32",
            progress=lambda stage, _done, _total, _note: said.append(stage),
        )

    first = again()
    assert first.adequacy is not None
    assert {"measuring ranges", "quantizing with other samples"} <= set(said)
    assert [row.name for row in first.adequacy.drift] == ["whole", "half 1", "half 2", "redrawn 1", "redrawn 2"]
    assert all(row.kl > 0 for row in first.adequacy.drift)
    assert first.adequacy.sentence.split(":")[0] in {
        "More samples would help",
        "More samples would not help",
        "Whether more samples would help is not decided",
    }
    assert again() == first  # from what was kept
    assert not {"measuring ranges", "quantizing with other samples"} & set(said)
    page = calibration_page(first)
    assert page.count("<svg") == 2
    assert first.adequacy.sentence.split(":")[0] in page
    loaded = CalibrationReport.load(tmp_path / "set" / "report.json")
    assert loaded == first


def test_too_little_traffic_to_measure_is_refused(place: Path, traffic: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(traffic.read_text().splitlines(keepends=True)[:12]))
    with pytest.raises(DataError, match="adequacy: 0 held-out conversations and 12 samples, at least 8 and 16"):
        calibrate_traffic([few], model=str(place / "model"), out=tmp_path / "set", samples=12, adequacy="W8A16")


def test_raw_traffic_of_a_run_is_held_to_its_rules(release: Any, traffic: Path, place: Path) -> None:
    rules = {"traffic": str(traffic), "samples": 8, "max_tokens": 32, "secrets": "refuse"}
    with pytest.raises(DataError, match="holds 1 x e-mail address"):
        run(release(calibration=rules))
    with pytest.raises(DataError, match="tools: 3 required, the traffic holds 0"):
        run(release(calibration=rules | {"secrets": "drop", "require": {"tools": 3}}))
