"""One run over a local Ray with two workers: ``python ray_run.py RELEASE.YAML OUT RESULT [FAULT]``; see test_ray.py."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from quantgate import pipeline
from quantgate.pipeline import _ray
from quantgate.release_config import load_config

WAITS_S = "RAY_gcs_server_port_wait_time_s"


def missing_its_limits(begin: Any, times: int) -> Any:
    """``ray.init`` that grants Ray's own processes no time, so many times: what a busy machine does to it."""
    left = [times]

    def init(**settings: Any) -> Any:
        if left[0]:
            left[0] -= 1
            os.environ[WAITS_S] = "0"
        else:
            os.environ.pop(WAITS_S, None)
        return begin(**settings)

    return init


def main(release: str, out: str, result: str, fault: str = "") -> None:
    pools: list[_ray.RayPool] = []
    begin = _ray.RayPool._start

    def start(pool: _ray.RayPool) -> None:
        begin(pool)
        pools.append(pool)

    _ray.RayPool._start = start  # type: ignore[method-assign,assignment]
    if fault in ("worker", "start"):
        import ray

        ray.init = missing_its_limits(ray.init, _ray.STARTS if fault == "start" else 1)
    killed: list[int] = []

    def progress(stage: str, done: int, total: int, note: str) -> None:
        if fault == "worker" and stage == "evaluate" and not killed:
            busy = max(range(2), key=lambda at: pools[0].pending[at])
            killed.append(pools[0].pids[busy])
            os.kill(killed[0], signal.SIGKILL)
        if fault == "driver" and stage == "evaluate" and done:
            os.kill(os.getpid(), signal.SIGKILL)

    report = pipeline.run(load_config(Path(release)), out=Path(out), progress=progress)
    told: dict[str, Any] = {"killed": killed, "pids": pools[0].pids, "chosen": report.decision.chosen}
    Path(result).write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
