"""One run over a local Ray with two workers: ``python ray_run.py RELEASE.YAML OUT RESULT [kill]``; see test_ray.py."""

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


def main(release: str, out: str, result: str, fault: str = "") -> None:
    pools: list[_ray.RayPool] = []
    begin = _ray.RayPool._start

    def start(pool: _ray.RayPool) -> None:
        begin(pool)
        pools.append(pool)

    _ray.RayPool._start = start  # type: ignore[method-assign,assignment]
    killed: list[int] = []

    def progress(stage: str, done: int, total: int, note: str) -> None:
        if fault == "worker" and stage == "evaluate" and not killed:
            busy = max(range(2), key=lambda at: pools[0].pending[at])
            killed.append(pools[0].pids[busy])
            os.kill(killed[0], signal.SIGKILL)
        if fault == "ctrl-c" and stage == "evaluate" and done:
            os.kill(os.getpid(), signal.SIGINT)
        if fault == "driver" and stage == "evaluate" and done:
            os.kill(os.getpid(), signal.SIGKILL)

    report = pipeline.run(load_config(Path(release)), out=Path(out), progress=progress)
    told: dict[str, Any] = {"killed": killed, "pids": pools[0].pids, "chosen": report.decision.chosen}
    Path(result).write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
