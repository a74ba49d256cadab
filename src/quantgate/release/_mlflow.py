"""The part of tracking.py that imports MLflow: a process of its own, told by one JSON object on standard input.

Apart, because MLflow tries a server that is away for minutes, writes to the console, and changes settings of logging
and warnings when it is imported; a process can be ended. It prints one JSON object: how many runs it made and how many
were there already.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    import logging

    logging.disable(logging.WARNING)
    from mlflow import MlflowClient

    told = json.load(sys.stdin)
    client = MlflowClient(tracking_uri=told["uri"])
    experiment = client.get_experiment_by_name(told["experiment"])
    place = told["artifacts"] or None
    number = experiment.experiment_id if experiment else client.create_experiment(told["experiment"], place)
    made = [log(client, number, run) for run in told["runs"]]
    print(json.dumps({"logged": sum(made), "known": len(made) - sum(made)}))


def log(client: Any, experiment: str, run: dict[str, Any]) -> bool:
    """One run, whole or marked as failed; False where a whole one is there. ``move`` is the tag that names it."""
    from mlflow.entities import Metric, Param, RunTag

    name = json.dumps(run["tags"]["quantgate.move"])  # a digest: nothing to escape
    asked = f"tags.`quantgate.move` = {name} and attributes.status = 'FINISHED'"
    if client.search_runs([experiment], asked, max_results=1):
        return False
    at = run["at_ms"]
    made = client.create_run(experiment, start_time=at, run_name=run["name"]).info.run_id
    try:
        metrics = [Metric(key, value, at, 0) for key, value in run["metrics"].items()]
        params = [Param(key, value) for key, value in run["params"].items()]
        tags = [RunTag(key, value) for key, value in run["tags"].items()]
        for start in range(0, max(len(metrics), len(params), len(tags)), 90):  # of tags a call takes a hundred
            part = slice(start, start + 90)
            client.log_batch(made, metrics[part], params[part], tags[part])
        for file, text in run["texts"].items():
            client.log_text(made, text, file)
        client.set_terminated(made, "FINISHED", at)
    except BaseException:
        client.set_terminated(made, "FAILED")
        raise
    return True


if __name__ == "__main__":
    main()
