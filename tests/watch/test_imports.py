"""A gateway and its watch start without the packages that only measurements need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import quantgate

GATEWAY = (
    "import sys, pkgutil, importlib, quantgate.serve.open, quantgate.serve.server, quantgate.watch.dashboard as board\n"
    "import quantgate.watch.attached, quantgate.watch.verdicts, quantgate.watch.webhooks\n"
    "from quantgate.watch.marking import every\n"
    "[importlib.import_module(f'{board.__name__}.{one.name}') for one in pkgutil.iter_modules(board.__path__)]\n"
    "print(len(every()) > 10, sorted({'scipy', 'torch', 'transformers', 'sklearn', 'pandas'} & set(sys.modules)))"
)


def test_what_a_gateway_loads_holds_no_package_of_measurements() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", GATEWAY],
        env={"PYTHONPATH": str(Path(quantgate.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "True []", done.stderr
