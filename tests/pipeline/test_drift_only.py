"""``quantgate drift``: the tables of a variant on text and on suites, kept part by part, for models of others too."""

from __future__ import annotations

import io
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.report.test_pages import Wellformed

from quantgate.errors import DataError, ModelError, Stopped, UsageError
from quantgate.models import open_model
from quantgate.pipeline.drift_only import measure_drift
from quantgate.quantize.manifest import Recipe
from quantgate.quantize.sweep import sweep
from quantgate.report.drift_tables import show_drift
from quantgate.report.drifts import DriftReport, drift_page, plots, worst, worst_sentence

SHARED = Path(__file__).parents[3] / "shared"
STORIES, STORY_TEXT = SHARED / "models" / "stories260K", SHARED / "data" / "tinystories" / "tinystories_sample.txt"


@pytest.fixture(scope="module")
def rounded(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (made,) = sweep(
        open_model(place / "model"),
        None,
        [Recipe(scheme="W2A16", group_size=32, method="rtn")],
        tmp_path_factory.mktemp("rounded"),
    )
    return made.path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n<|endoftext|>\n".join(f"Story {at}: the fox went {at} miles and slept." * 4 for at in range(12)))
    return path


def printed(report: DriftReport) -> str:
    console = Console(width=80, file=io.StringIO())
    show_drift(report, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_text_is_measured_by_position_and_rarity_and_written_down(
    place: Path, rounded: Path, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = measure_drift(str(place / "model"), str(rounded), texts=[text], context=48, out=out)
    assert DriftReport.load(out / "drift.json") == found
    assert (found.context, found.measured_on) == (48, ("text.txt",))
    assert found.drift.detail is not None and found.drift.detail.documents == 12
    tables = {table.by: table for table in found.drift.detail.tables}
    assert set(tables) == {"position in the sequence", "rarity of the true token"}
    page, parser = (out / "drift.html").read_text("utf-8"), Wellformed()
    assert page == drift_page(found)
    parser.feed(page)
    assert parser.open == [] and parser.links == []
    assert page.count("<svg") == len(plots({"one": found.drift})) == 2
    assert "By position in the sequence" in printed(found) and "commonest 50 %" in printed(found)
    assert "decides nothing" in printed(found)


def test_the_baseline_beside_itself_does_not_drift(place: Path, text: Path, tmp_path: Path) -> None:
    model = str(place / "model")
    found = measure_drift(model, model, texts=[text], context=32, tokens=200, out=tmp_path / "out").drift
    assert (found.kl_mean, found.kl_max, found.same_top, found.ppl_ratio) == (0, 0, 1, 1)
    assert worst_sentence("same", found) == "" and plots({"same": found}) == []


def test_suites_are_measured_on_their_known_answers(place: Path, rounded: Path, tmp_path: Path) -> None:
    found = measure_drift(
        str(place / "model"), str(rounded), suite=["refusals", "json_tools"], cases=24, out=tmp_path / "out"
    )
    assert found.measured_on == ("refusals", "json_tools") and found.context is None
    assert found.drift.detail is not None
    tables = {table.by: [row.name for row in table.rows] for table in found.drift.detail.tables}
    assert tables["slice"][:2] == ["suite=json_tools", "suite=refusals"]
    assert "quote" in tables["structure of JSON answers"] and "1" in tables["position in the answer"]
    shown = printed(found)
    assert re.search(r"suite=json_tools +\d+", shown) and "drifts most" in worst_sentence("W2", found.drift)


def test_a_stopped_measurement_goes_on_with_what_it_kept(
    place: Path, rounded: Path, text: Path, tmp_path: Path
) -> None:
    def measure(out: str, progress: Any = None) -> DriftReport:
        return measure_drift(
            str(place / "model"), str(rounded), suite=["math", "chat"], cases=120, out=tmp_path / out, progress=progress
        )

    whole, seen = measure("whole"), list[tuple[int, int]]()

    def stop(_stage: str, done: int, total: int, _note: str) -> None:
        seen.append((done, total))
        if len(seen) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match="what is measured is kept in"):
        measure("stopped", stop)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "stopped" / "parts").iterdir()}
    assert kept and seen[0][1] > 1
    assert measure("stopped") == whole
    assert all((tmp_path / "stopped" / "parts" / name).stat().st_mtime_ns == time for name, time in kept.items())


def test_what_cannot_be_measured_is_refused_in_a_sentence(
    place: Path, rounded: Path, text: Path, tmp_path: Path
) -> None:
    model, out = str(place / "model"), tmp_path / "out"
    with pytest.raises(UsageError, match="give texts or suites, not both"):
        measure_drift(model, model, texts=[text], suite=["math"], out=out)
    with pytest.raises(UsageError, match=r"was made for \d+ tokens, not 999999; give at most that"):
        measure_drift(model, model, texts=[text], context=999999, out=out)
    with pytest.raises(UsageError, match="no case has a known answer"):
        measure_drift(model, model, suite=[str(place / "echo.jsonl")], out=out)
    with pytest.raises(DataError, match=r"none\.txt: cannot be read"):
        measure_drift(model, model, texts=[tmp_path / "none.txt"], out=out)
    with pytest.raises(ModelError):
        measure_drift(model, str(tmp_path / "missing"), texts=[text], out=out)
    with pytest.raises(UsageError, match="has another tokenizer than"):
        measure_drift(model, "quantgate/reference", texts=[text], out=out)
    assert not out.exists()


@pytest.mark.skipif(not STORIES.is_dir(), reason="the shared model stories260K is not beside this checkout")
def test_a_real_model_of_others_drifts_as_its_damage_curve_says(tmp_path: Path) -> None:
    """Perplexity of its stories goes 4.3, 5.1 and 28 at 4 and 3 bits a channel; full windows of its 512 tokens."""
    recipes = [Recipe(scheme=f"W{bits}A16", group_size="channel", method="rtn") for bits in (8, 4)]
    found = [
        measure_drift(str(STORIES), str(one.path), texts=[STORY_TEXT], tokens=6000, out=tmp_path / one.name)
        for one in sweep(open_model(STORIES), None, recipes, tmp_path / "made")
    ]
    eight, four = (one.drift for one in found)
    assert found[0].context == 512
    assert 3.8 < eight.ppl_baseline == four.ppl_baseline < 5.2
    assert eight.kl_mean < 0.005 and 1.08 < four.ppl_ratio < 1.35
    assert four.detail is not None and eight.detail is not None
    by_position = four.detail.tables[0]
    assert [row.name for row in by_position.rows] == ["1-15", "16-31", "32-63", "64-127", "128-255", "256-511"]
    assert all(row.kl_low is not None and row.kl_low > 0.05 for row in by_position.rows)
    assert four.detail.kl.low is not None and eight.detail.kl.high is not None
    assert four.detail.kl.low > 10 * eight.detail.kl.high
    assert worst(by_position) is not None
