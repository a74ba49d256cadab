"""A variant for the drill, as a process: ``python -m benchmarks._drill_upstream LOG BREAK`` prints its port.

It answers with JSON of the drill's schema until the file BREAK exists, and with JSON that ends too early from then on.
Each request leaves its time (seconds since 1970) and ``ok`` or ``broken`` in LOG, one line each.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

from quantgate.serve import Body
from quantgate.serve.scripted import Script, ScriptedUpstream

SECONDS = 0.02  # of an answer


def main(log: Path, broken: Path) -> None:
    with log.open("a", buffering=1) as lines:

        def answer(_body: Body) -> str:
            bad = broken.exists()
            lines.write(f"{time.time():.6f} {'broken' if bad else 'ok'}\n")
            return '{"answer": "five", "sum' if bad else '{"answer": "five", "sum": 5}'

        with ScriptedUpstream(answer, always=lambda _body: Script("slow", seconds=SECONDS)) as upstream:
            print(upstream.port, flush=True)
            ended = threading.Event()
            signal.signal(signal.SIGTERM, lambda _number, _frame: ended.set())
            ended.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
