"""From a run's folder to a release and back, as typed: exit codes, sentences, tables, completions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Command
from tests.cli.test_completions import COMMAND, SOURCE, completed
from tests.report.conftest import report
from tests.report.targeted import load_of, released, rules_of

from quantgate.release.store import Registry
from quantgate.report import RunReport

__all__ = ["report"]


@pytest.fixture(scope="module")
def finished(report: RunReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two variants on two targets: Q8_0 passes on the laptop, nothing does on the phone."""
    rules = [rules_of("laptop"), rules_of("phone")]
    loads = [load_of("Q8_0", 0.1), load_of("Q8_0", 2.0, target="phone")]
    folder = tmp_path_factory.mktemp("finished")
    released(report, {"Q8_0": 0, "Q3_K_S": 90}, rules, loads=loads).save(folder / "report.json")
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, seen from a folder with nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTGATE_ACTOR", "ada")
    return Path(shutil.copytree(finished, tmp_path / "runs" / "release"))


def test_a_run_becomes_a_release_and_goes_back(run: Path, command: Command) -> None:
    code, out, err = command("register")
    assert code == 0 and "laptop, new, serves the baseline: may be promoted: Q8_0" in out
    assert "phone, new, serves the baseline: nothing may be promoted" in out
    assert "Q8_0: its files are not in the run's folder any more" in err
    assert "next: quantgate promote laptop Q8_0 --canary 5%" in err
    assert Path("runs/quantgate.db").is_file()
    code, out, err = command("promote", "laptop", "Q8_0", "--canary", "5%", "--holdback", "2%")
    assert err == "next: quantgate serve --target laptop"
    assert (code, out) == (0, "laptop: BF16, the baseline; Q8_0 is its canary with 5 % of sessions (revision 2)")
    assert command("ramp", "laptop", "25%")[:2] == (
        0,
        "laptop: BF16, the baseline; Q8_0 is its canary with 25 % of sessions (revision 3)",
    )
    code, out, _ = command("promote", "laptop", "Q8_0", "--reason", "a day without alarms")
    assert (code, out) == (0, "laptop: Q8_0; 2 % stay with the baseline (revision 4)")
    assert command("hold", "laptop")[1] == "laptop: Q8_0; 2 % stay with the baseline; held (revision 5)"
    code, out, _ = command("rollback", "laptop", "--reason", "json broke")
    assert (code, out) == (0, "laptop: BF16, the baseline; held (revision 6)")
    code, out, _ = command("rollback", "laptop", "--reason", "json broke")
    assert (code, out) == (0, "laptop: BF16, the baseline; held (revision 6); nothing had to be moved")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["promote", "phone", "Q8_0"], 1, "phone: Q8_0 (sha256:Q8_0) failed: breaks"),
        (["promote", "laptop", "Q3_K_S", "--canary", "1%"], 1, "laptop: Q3_K_S (sha256:Q3_K_S) failed: breaks"),
        (["promote", "laptop", "Q9"], 2, "laptop: unknown variant 'Q9'"),
        (["promote", "lapto", "Q8_0"], 2, "unknown target 'lapto'; did you mean 'laptop'?"),
        (["ramp", "laptop", "50%"], 1, "laptop: it has no canary"),
        (["promote", "laptop", "Q8_0", "--canary", "150%"], 2, "a share is between 0% and 100%, found '150%'"),
        (["promote", "laptop", "Q8_0", "--canary", "much"], 2, "expected a share of sessions such as 5%, found 'much'"),
        (["rollback", "laptop"], 2, "Missing option '--reason'"),
        (["rollback", "laptop", "--reason", "x", "--to", "Q8_0"], 1, "Q8_0 never had its traffic"),
        (["releases", "--registry", "nowhere.db"], 4, "nothing was registered there yet; run: quantgate register"),
        (["releases", "--registry", "mysql://db"], 2, "'mysql' is not known"),
        (["register", "nowhere"], 4, "no such RunReport; run the step that writes it first: quantgate run"),
        (["register", "--target", "fleet"], 2, "its own targets (laptop, phone); leave --target out"),
    ],
)
def test_what_may_not_be_is_one_sentence_and_an_exit_code(
    run: Path, command: Command, words: list[str], code: int, told: str
) -> None:
    command("register")
    before = Registry.open("runs/quantgate.db").revision("laptop")
    found, _, err = command(*words)
    assert (found, told in " ".join(err.replace("│", " ").split())) == (code, True), err
    assert Registry.open("runs/quantgate.db").revision("laptop") == before


def test_a_rollback_asks_an_address_first(run: Path, command: Command) -> None:
    command("register")
    command("promote", "laptop", "Q8_0")
    words = ["rollback", "laptop", "--reason", "slow", "--check", "http://127.0.0.1:9/health"]
    code, _, err = command(*words)
    assert code == 1 and "BF16, to go back to, is not up: http://127.0.0.1:9/health does not answer" in err
    assert command(*words, "--force")[0] == 0
    _, out, _ = command("releases", "laptop")
    assert "capacity: not up, forced" in out


def test_the_history_is_shown_and_told_as_json(run: Path, command: Command, capsys: Any) -> None:
    command("register", "--by", "eve")
    command("promote", "laptop", "Q8_0", "--canary", "5%", "--reason", "try it")
    command("rollback", "laptop", "--reason", "json [broke]")
    code, out, _ = command("releases", "laptop")
    assert code == 0
    for told in ("BF16 + Q8_0 5 %", "try it", "json [broke]", "ada", "eve", "rolled back", "canary", "fail"):
        assert told in out
    assert "pass (chosen)" in out and "phone" not in out
    assert "phone" in command("releases")[1]
    code, out, _ = command("releases", "laptop", "--json")
    (told_json,) = json.loads(out)
    assert told_json["live"]["revision"] == 3
    assert [move["what"] for move in told_json["history"]] == ["rollback", "canary", "open"]


def test_the_registry_is_checked_and_upgraded(run: Path, command: Command) -> None:
    command("register")
    assert command("registry", "check") == (0, "11 rows read, 0 not as they were written", "")
    assert command("registry", "upgrade") == (0, "nothing to upgrade", "")
    assert command("registry", "upgrade", "--dry-run")[1] == "-- nothing to do"


def test_targets_and_variants_are_completed(run: Path, command: Command) -> None:
    command("register")
    assert completed("quantgate promote lap") == ["laptop"]
    assert completed("quantgate promote laptop Q") == ["Q3_K_S", "Q8_0"]
    assert completed("quantgate releases ") == ["laptop", "phone"]
    assert completed("quantgate ramp --registry runs/none.db ") == []


def test_a_rollback_waits_for_no_heavy_package(run: Path, command: Command) -> None:
    command("register")
    command("promote", "laptop", "Q8_0")
    told = COMMAND[2].replace("['quantgate']", "['quantgate', 'rollback', 'laptop', '--reason', 'now']")
    told = f"import atexit, sys; atexit.register(lambda: print({{'torch', 'scipy'}} & set(sys.modules))); {told}"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", told], env=environment, capture_output=True, text=True)
    assert done.stdout.endswith("(revision 3)\nset()\n"), done.stdout + done.stderr
