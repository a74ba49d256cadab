"""``quantgate watch`` as it is typed: tables, records, exit codes; from another process than the gateway's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli.conftest import Command
from tests.cli.test_completions import SOURCE, completed
from tests.cli.test_serve import chat, quantgate, serving
from tests.postgres import Postgres
from tests.release.given import register
from tests.serve.opened import until
from tests.watch.standing import CANARY, STABLE, alarm, finding, leave, live, verdict

from quantgate.release.store import Registry
from quantgate.serve._ledger_sql import connect
from quantgate.serve.exchanges import Journal, Reader
from quantgate.serve.live import file_of
from quantgate.serve.scripted import ScriptedUpstream
from quantgate.watch import Tally
from quantgate.watch.store import Store

COMMAND = [sys.executable, "-m", "quantgate"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Where a gateway's data folder has it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUANTGATE_DATA", raising=False)
    Path(".quantgate").mkdir()
    url = "sqlite:///.quantgate/exchanges.db"
    journal = Journal(connect(url))
    journal.start()
    journal.close()
    made = Store(connect(url), Reader(connect(url)))
    made.create()
    return made


def test_a_rolled_back_trial_is_told_with_its_signals_and_exits_with_1(store: Store, command: Command) -> None:
    leave(store, verdict(), alarm(verdict()))
    live(5, canary=None).save(file_of(Path(".quantgate"), "laptop"))
    code, out, err = command("watch", "laptop")
    assert (code, err) == (1, "")
    assert "laptop: W3A16 with 10 % of sessions, against BF16, the baseline" in out
    assert "roll back: rollback, because of validation failures" in out
    assert (
        "validation_failure 41 of 1,204 (3.4 %) 96 of 10,920 (0.88 %) 3.9 (at least 2.6) ██████████████ 5e+05 of 9,997"
        in out
    )
    assert "refusal 0 of 1,200 (0 %) 96 of 10,920" in out
    assert "roll back W3A16, moved (revision 5)" in out
    assert out.index("validation_failure") < out.index("refusal")


@pytest.mark.parametrize(
    ("action", "more", "code"),
    [
        ("promote", {"next_share": 0.25}, 0),
        ("hold", {}, 0),
        ("hold", {"missing": ("validation_failure: 120 of 200 sessions of W3A16",)}, 3),
    ],
)
def test_exit_codes_tell_scripts_what_is_wanting(
    store: Store, command: Command, action: str, more: dict[str, Any], code: int
) -> None:
    found = verdict(action, **more)
    leave(store, found)
    ended, out, _ = command("watch", "laptop")
    assert ended == code
    for one in found.missing:
        assert f"waits for: {one}" in out


def test_what_was_never_read_and_what_is_awaited_besides_is_told_in_a_line(store: Store, command: Command) -> None:
    nothing = {"trial": Tally(), "control": Tally(), "log_e": 0.0, "ratio": None, "low": None}
    found = (finding(log_e=1.0), *(finding(name, **nothing) for name in ("ttft", "logprob", "logprob")))
    leave(store, verdict("hold", findings=found, missing=tuple(f"proof {number}" for number in range(7))))
    _, out, _ = command("watch", "laptop")
    assert "read from no session yet: ttft, logprob" in out
    assert "waits for: proof 4 and for 2 more, which --json tells" in out


def test_nothing_on_trial_is_evidence_that_is_wanting(store: Store, command: Command) -> None:
    assert command("watch", "fleet")[:2] == (3, "fleet hold, because nothing was on trial on fleet yet")


def test_a_rollback_of_the_canary_before_is_none_of_the_new_one(store: Store, command: Command) -> None:
    leave(store, verdict("hold", variant=STABLE, number=900, revision=7), alarm(verdict()))
    code, out, _ = command("watch", "laptop")
    assert code == 0 and "laptop: W8A8 with" in out
    live(7, canary=STABLE).save(file_of(Path(".quantgate"), "laptop"))
    assert command("watch", "laptop")[0] == 0
    live(8, canary=CANARY).save(file_of(Path(".quantgate"), "laptop"))
    assert "nothing was counted of W3A16 yet" in command("watch", "laptop")[1]


def test_records_are_what_the_gateways_route_says(store: Store, command: Command) -> None:
    leave(store, verdict("promote"), alarm(verdict("promote")))
    code, out, _ = command("watch", "laptop", "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["action"], told["pass"], told["variant"]) == ("promote", True, "W3A16")
    assert [one["id"] for one in told["alarms"]] == ["a1"]


def test_a_configuration_names_target_and_databases(store: Store, command: Command, tmp_path: Path) -> None:
    leave(store, verdict())
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "serve.yaml").write_text(yaml.safe_dump({"target": "laptop", "data": str(tmp_path / ".quantgate")}))
    assert command("watch", "--config", other / "serve.yaml")[0] == 1
    assert command("watch", "laptop", "--data", tmp_path / ".quantgate")[0] == 1
    url = f"sqlite:///{tmp_path / '.quantgate' / 'exchanges.db'}"
    assert command("watch", "laptop", "--database", url)[0] == 1


def test_where_there_is_no_evidence_one_sentence_says_so_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command("watch", "laptop")
    assert (code, out) == (4, "")
    assert ".quantgate/exchanges.db: no evidence lies there; name the gateway's --data folder" in err
    assert not list(tmp_path.iterdir())
    Path(".quantgate").mkdir()
    Path(".quantgate/exchanges.db").write_bytes(b"no database at all" * 100)
    code, _, err = command("watch", "laptop")
    assert code == 4 and "watch: " in err
    unreachable = "postgresql://nobody@127.0.0.1:1/none"
    Path("serve.yaml").write_text(yaml.safe_dump({"exchanges": {"url": unreachable}}))
    code, _, err = command("watch", "laptop", "--config", "serve.yaml")
    assert code == 4 and "check the address and that the database is up" in err


def test_evidence_that_lies_apart_from_the_exchanges_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command, postgres: Postgres
) -> None:
    monkeypatch.chdir(tmp_path)
    for url in (f"sqlite:///{tmp_path / 'apart.db'}", postgres.url()):
        apart = Store(connect(url))
        apart.create()
        leave(apart, verdict())
        apart.close()
        code, out, err = command("watch", "laptop", "--database", url)
        assert (code, err) == (1, ""), url
        assert "validation_failure 41 of 1,204" in out
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_a_gateway_of_two_processes_is_watched_from_a_third(tmp_path: Path) -> None:
    """As typed: workers that share a port, one of which leads; requests; and the command that reads what they left."""
    with ScriptedUpstream() as base, ScriptedUpstream() as canary:
        variants = {
            name: {"endpoint": {"url": one.url, "model": "scripted"}, "weights": f"sha256:{name}"}
            for name, one in (("BF16", base), ("W4A16", canary))
        }
        live = {"baseline": "BF16", "canary": "W4A16", "share": 0.5}
        told = {"data": ".quantgate", "target": "laptop", "workers": 2, "live": live, "variants": variants}
        (tmp_path / "serve.yaml").write_text(json.dumps(told))
        with serving(tmp_path, "--config", "serve.yaml") as (process, url, said):
            assert "/dashboard, or: quantgate watch" in said
            for _ in range(30):
                assert chat(url, model="laptop")[0] == 200
            root = url.removesuffix("/v1")
            until(lambda: chat(url, model="laptop")[0] == 200 and counted(get(f"{root}/watch/verdict")) > 30)
            found = quantgate(tmp_path, "watch", "--config", "serve.yaml", "--json")
            assert found.returncode == 3, found.stderr
            assert counted(json.loads(found.stdout)) > 30
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    log = (tmp_path / "log").read_text()
    assert "this process leads the watch" in log
    assert "Traceback" not in log and "Fatal" not in log, log


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.loads(answer.read())


def counted(told: Any) -> int:
    """Sessions that the signal was read from which was read from most."""
    return max((one["trial"]["units"] + one["control"]["units"] for one in told["signals"]), default=0)


def test_signals_are_listed_with_their_part_of_the_error_rate(command: Command, tmp_path: Path) -> None:
    code, out, _ = command("watch", "--signals")
    assert code == 0
    assert "validation_failure" in out and "ttft" in out
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump({"watch": {"signals": {"ttft": {"off": True}}}}))
    assert "ttft off more" in command("watch", "--signals", "--config", file)[1]
    file.write_text(yaml.safe_dump({"watch": {"signals": {"tttf": {"off": True}}}}))
    code, _, err = command("watch", "--signals", "--config", file)
    assert code == 2 and "tttf" in err and "ttft" in err


def test_alerts_and_dashboard_are_printed_as_files() -> None:
    assert yaml.safe_load(printed("--alerts"))["groups"]
    assert json.loads(printed("--grafana"))["panels"]


def printed(option: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [*COMMAND, "watch", option]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True).stdout


def test_following_shows_what_changes_until_ctrl_c(store: Store, tmp_path: Path) -> None:
    leave(store, verdict("hold"))
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "COLUMNS": "200", "TERM": "xterm", "FORCE_COLOR": "1"}
    with (tmp_path / "out").open("wb") as out:
        command = [*COMMAND, "watch", "laptop", "--follow"]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    try:
        shown(tmp_path / "out", "hold, because of validation failures", process)
        leave(store, verdict())
        shown(tmp_path / "out", "roll back: rollback, because of validation failures", process)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()


def shown(file: Path, what: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while what not in file.read_text("utf-8", "replace"):
        assert time.monotonic() < end and process.poll() is None, file.read_text("utf-8", "replace")
        time.sleep(0.05)


def test_targets_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = f"sqlite:///{tmp_path / 'registry.db'}"
    monkeypatch.setenv("QUANTGATE_REGISTRY", registry)
    opened = Registry.open(registry, "ada", create=True)
    register(opened, A="pass")
    opened.close()
    assert completed("quantgate watch fl") == ["fleet"]
