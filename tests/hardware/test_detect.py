"""What doctor finds, on this machine and in what other machines would say."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from quantgate.cli import app
from quantgate.hardware.detect import Machine, _compiler, detect, features, gpus, memory_bytes


class NVMLError(Exception):
    pass


def nvml(count: int, *, driver: bool = True) -> Any:
    """NVML as it answers for ``count`` H100s, or where no driver is loaded."""

    def start() -> None:
        if not driver:
            raise NVMLError("Driver Not Loaded")

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=start,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: b"580.82",
        nvmlDeviceGetCount=lambda: count,
        nvmlDeviceGetHandleByIndex=lambda at: at,
        nvmlDeviceGetName=lambda at: "NVIDIA H100 80GB HBM3",
        nvmlDeviceGetMemoryInfo=lambda at: SimpleNamespace(total=85_520_809_984),
        nvmlDeviceGetCudaComputeCapability=lambda at: (9, 0),
    )


def test_this_machine_is_measured_and_its_profile_can_be_saved(tmp_path: Path) -> None:
    found = detect("2026-11-22", threads=1)
    here = found.profile
    assert found.cores == here.cores and found.memory_bytes == here.memory_bytes
    assert 5e8 < here.bandwidth < 2e13 and here.measured and here.date == "2026-11-22"
    assert here.rates["fp32"] > 1e9 and here.call_s and here.call_s < 1e-3
    assert {"torch", "transformers"} <= set(found.runtimes)
    assert Machine.load(found.save(tmp_path / "machine.json")) == found
    assert type(here).load(here.save(tmp_path / "here.json")) == here


def test_gpus_are_those_that_nvml_lists() -> None:
    found, reason = gpus(nvml(2))
    assert [one.name for one in found] == ["NVIDIA H100 80GB HBM3"] * 2 and reason == ""
    assert (found[0].compute_capability, found[0].driver) == (9.0, "580.82")


def test_no_gpus_say_why() -> None:
    assert gpus(None) == (
        (),
        "pynvml is not installed (pip install 'quantgate[gpu]'), so NVIDIA GPUs were not looked for",
    )
    assert gpus(nvml(0, driver=False)) == ((), "NVML finds no driver (Driver Not Loaded)")
    assert gpus(nvml(0)) == ((), "NVML knows no device")


def test_instruction_sets_are_read_off_the_kernels_list(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_tile amx_int8\n")
    assert features(told) == ("avx2", "avx512", "avx512_vnni", "amx")
    told.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp sve i8mm bf16\n")
    assert features(told) == ("neon", "dotprod", "i8mm", "bf16", "sve")
    told.write_text("processor\t: 0\n")
    assert features(told) == ()


def test_a_compiler_is_told_by_the_line_that_has_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 13.0, V13.0.88\n"
    (tmp_path / "nvcc").write_text(f"#!/bin/sh\nprintf '{told}'\n")
    (tmp_path / "nvcc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert _compiler("nvcc") == "Cuda compilation tools, release 13.0, V13.0.88"
    assert _compiler("no-such-compiler") == ""


def test_doctor_prints_what_it_found_what_is_missing_and_what_to_do_next() -> None:
    shown = CliRunner().invoke(app, ["doctor", "--threads", "1"], env={"COLUMNS": "160"})
    assert shown.exit_code == 0, shown.output
    for told in ("instruction sets", "GB/s read", "tera-operations a second", "1 thread,", "not installed", "--save"):
        assert told in shown.output
    assert ("vllm" in shown.output.partition("not installed")[2]) == (find_spec("vllm") is None)


def test_a_containers_limit_counts_where_it_is_lower(tmp_path: Path) -> None:
    limit, whole = tmp_path / "memory.max", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit.write_text("1000000\n")
    assert memory_bytes(limit) == 1_000_000
    limit.write_text("max\n")
    assert memory_bytes(limit) == memory_bytes(tmp_path / "none") == whole
