"""What ``quantgate doctor`` found, as a table."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from quantgate.hardware import runtimes
from quantgate.hardware.detect import Machine
from quantgate.hardware.quantities import told_bytes
from quantgate.report.tables import plain_table


def show_machine(found: Machine, console: Console) -> None:
    """What doctor found and measured."""
    table = plain_table("this machine", (), "left")
    table.add_column("found")
    here = found.profile
    measured = ", ".join(f"{number} {rate / 1e12:.3g}" for number, rate in here.rates.items())
    missing = [name for name in runtimes() if name not in found.runtimes]
    rows = {
        "system": found.system,
        "cores": str(found.cores),
        "instruction sets": ", ".join(found.features) or "none that matter here",
        "memory": told_bytes(found.memory_bytes),
        "bandwidth": f"{here.bandwidth / 1e9:.1f} GB/s read, {found.copy_bandwidth / 1e9:.1f} GB/s copied",
        "products": f"{measured} tera-operations a second",
        "measured by": f"{here.source}, {here.date}",
        "GPUs": "; ".join(f"{one.name}, {told_bytes(one.memory_bytes)}, compute capability {one.compute_capability}, "
                          f"driver {one.driver}" for one in found.gpus) or found.no_gpus,
        "runtimes": ", ".join(f"{name} {version}" for name, version in found.runtimes.items()) or "none",
        "not installed": ", ".join(missing) or "none is missing",
        "llama.cpp": ", ".join(found.llamacpp) or "not installed",
        "compilers": "; ".join(found.compilers.values()) or "none",
        "most like": found.nearest,
    }  # fmt: skip
    for what, told in rows.items():
        table.add_row(what, Text(told))
    console.print(table)
