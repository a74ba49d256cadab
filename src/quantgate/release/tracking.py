"""Releases in MLflow: one run for every move of a target's pointer, with the evidence it rested on.

    track(registry, "fleet", "http://mlflow.example")     # the latest move
    track(registry, "fleet", uri, all=True)               # and all that MLflow has not got yet

The registry is what counts and MLflow is a copy: a release is made before MLflow is told, and stands whatever MLflow
does. What could not be told is said in a sentence, and told the next time, since each run bears the digest of its move.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from quantgate.errors import MissingExtra
from quantgate.evaluate.evidence import Comparison, Evidence
from quantgate.records import Record
from quantgate.release import Variant
from quantgate.release.history import Move
from quantgate.release.store import Registry

EXPERIMENT = "quantgate"
TIMEOUT_S = 60.0  # for everything: import, connect, send
LONGEST = 5000  # characters of a parameter or tag that every store of MLflow takes
NAME = re.compile(r"[^\w\-. :/]")  # what the name of a metric may not hold
SECRET = re.compile(r"://[^/@\s]*@")
AGAIN = "the release stands, and is told the next time with: quantgate track --all"
QUICK = {  # a server that is away is not waited for
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


class Tracked(Record):
    """What became of telling MLflow."""

    uri: str  # without a password
    logged: int = 0  # moves that it got now
    known: int = 0  # that it had already
    problem: str = ""  # why it does not have all of them


def track(
    registry: Registry,
    target: str,
    uri: str,
    *,
    all: bool = False,
    card: Path | None = None,
    experiment: str = EXPERIMENT,
    artifacts: str = "",
    timeout_s: float = TIMEOUT_S,
) -> Tracked:
    """Tell MLflow at ``uri`` (a server, or ``sqlite:///file``) of the latest move of ``target``, or of all it lacks.

    ``card``: a model card that goes with the latest move. ``artifacts``: where a new experiment keeps files, where the
    server does not say. Never raises for what MLflow does: ``problem`` tells. Raises MissingExtra, ReleaseError.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise MissingExtra("MLflow is not installed; run: pip install 'quantgate[mlflow]'")
    moves = registry.history(target, limit=None if all else 1)
    texts = {"README.md": card.read_text(encoding="utf-8")} if card else {}
    runs = [_run(registry, move, texts if at == 0 else {}) for at, move in enumerate(moves)]
    told = {"uri": uri, "experiment": experiment, "artifacts": artifacts, "runs": runs[::-1]}
    return _tell(told, without_password(uri), timeout_s)


def _tell(told: dict[str, Any], where: str, timeout_s: float) -> Tracked:
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(Path(__file__).with_name("_mlflow.py"))],
            input=json.dumps(told),
            env={**os.environ, **{name: value for name, value in QUICK.items() if name not in os.environ}},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return Tracked(uri=where, problem=f"{where}: MLflow did not answer within {timeout_s:g} s; {AGAIN}")
    except OSError as problem:
        return Tracked(uri=where, problem=f"{where}: MLflow could not be started ({problem.strerror}); {AGAIN}")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        said = SECRET.sub("://", said.replace(told["uri"], where))[:300].rstrip(".")
        return Tracked(uri=where, problem=f"{where}: MLflow did not take it ({said}); {AGAIN}")
    return Tracked(uri=where, **json.loads(done.stdout.strip().splitlines()[-1]))


def without_password(uri: str) -> str:
    """
    >>> without_password("https://me:secret@host:5000/x?token=1"), without_password("sqlite:///a.db")
    ('https://host:5000/x', 'sqlite:///a.db')
    """
    parts = urlsplit(uri)
    if not parts.netloc:
        return uri
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


def moved(move: Move) -> Variant:
    """Whom a move was about: the canary while there is one, else who has the traffic."""
    live = move.live
    return live.canary if live.canary is not None and move.what in ("canary", "ramp") else live.stable


def _run(registry: Registry, move: Move, texts: dict[str, str]) -> dict[str, Any]:
    variant = moved(move)
    decided = registry.decided(move.target, variant.artifact, variant.engine)
    proofs = registry.evidence(variant.artifact, variant.engine)
    live = move.live
    tags = {
        "quantgate.move": move.digest,
        "quantgate.target": move.target,
        "quantgate.revision": str(move.revision),
        "quantgate.what": move.what,
        "quantgate.why": move.why,
        "quantgate.who": move.who,
        "quantgate.variant": variant.name,
        "quantgate.artifact": variant.artifact,
        "quantgate.engine": variant.engine,
        "quantgate.baseline": live.baseline.artifact,
        "quantgate.decision": move.decision,
        "quantgate.verdict": decided.sentence if decided else "",
    }
    params = {
        "target": move.target,
        "variant": variant.name,
        "stable": live.stable.name,
        "canary": live.canary.name if live.canary else "",
        "share": f"{live.share:g}",
        "holdback": f"{live.holdback:g}",
        **(_asked(proofs[0]) if proofs else {}),
    }
    return {
        "name": f"{move.target} {move.revision}: {move.what} {variant.name}",
        "at_ms": int(datetime.fromisoformat(move.at).timestamp() * 1000),
        "tags": {key: value[:LONGEST] for key, value in tags.items() if value},
        "params": {NAME.sub("_", key): value[:LONGEST] for key, value in params.items() if value},
        "metrics": {NAME.sub("_", key): value for key, value in (figures(proofs[0]) if proofs else {}).items()},
        "texts": texts,
    }


def _asked(proof: Evidence) -> dict[str, str]:
    """What each capability had to prove."""
    return {
        f"{row.gate.capability}.{key}": f"{value}"
        for row in proof.comparisons
        for key, value in (("margin", row.gate.margin), ("test", row.gate.test), ("suite", row.suite_digest))
    }


def figures(proof: Evidence) -> dict[str, float]:
    """Scores and limits of the change by capability, and drift. What was not measured is not there."""
    found: dict[str, float | None] = {}
    for row in proof.comparisons:
        for one in (row, *row.judged):
            found |= {f"{one.gate.capability}.{key}": value for key, value in _of(one).items()}
    if proof.drift is not None:
        drift = proof.drift
        found |= {"drift.kl_mean": drift.kl_mean, "drift.same_top": drift.same_top, "drift.ppl_ratio": drift.ppl_ratio}
    return {key: value for key, value in found.items() if value is not None}


def _of(row: Comparison) -> dict[str, float | None]:
    finding = row.finding
    return {
        "baseline": row.baseline_score,
        "variant": row.variant_score,
        "change_low": finding.low,
        "change_high": finding.high,
        "cases": float(row.n),
        "passed": float(finding.verdict == "pass"),
    }
