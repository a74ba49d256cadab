"""What this machine is: cores, instruction sets, memory, GPUs through NVML, runtimes with versions, compilers.

Nothing here is guessed: what the system does not tell is absent.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from quantgate.hardware.profiles import HERE, Profile, nearest, normal, profile
from quantgate.records import Record

FLAGS = {  # the system's word for an instruction set -> ours
    "avx2": "avx2", "avx512f": "avx512", "avx512_vnni": "avx512_vnni", "avx512_bf16": "avx512_bf16",
    "amx_tile": "amx", "avx_vnni": "avx_vnni", "asimd": "neon", "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16",
    "sve": "sve", "sve2": "sve2",
}  # fmt: skip
PACKAGES = {  # runtime -> its distribution
    "vllm": "vllm", "sglang": "sglang", "tensorrt-llm": "tensorrt_llm", "llama.cpp": "llama-cpp-python",
    "transformers": "transformers", "onnxruntime": "onnxruntime", "openvino": "openvino", "torch": "torch",
    "compressed-tensors": "compressed-tensors",
}  # fmt: skip
COMPILERS = ("cc", "gcc", "clang", "nvcc")
BUFFER = 1 << 30  # bytes whose reading is timed, or an eighth of what is free


class Gpu(Record):
    name: str
    memory_bytes: int
    compute_capability: float
    driver: str


class Machine(Record):
    """This machine, as ``quantgate doctor`` found it."""

    system: str  # Linux x86_64
    cores: int  # that this process may use
    features: tuple[str, ...]  # instruction sets
    memory_bytes: int  # of the machine, or the container's limit
    gpus: tuple[Gpu, ...]
    no_gpus: str = ""  # why none were found
    runtimes: dict[str, str]  # name -> version
    llamacpp: dict[str, str] = {}  # what llama.cpp was built for
    compilers: dict[str, str]  # name -> the line of --version that has a number
    copy_bandwidth: float  # bytes a second, read and written bytes counted
    nearest: str  # published profile
    profile: Profile  # what targets call ``here``


def detect(today: str, *, threads: int | None = None) -> Machine:
    """Look, and measure for a few seconds. ``today``: the date that stands in the profile; ``threads``: torch's."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    found, reason = gpus(_module("pynvml"))
    memory = memory_bytes()
    here, copied = _here(found, memory, today)
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        cores=cores(),
        features=features(),
        memory_bytes=memory,
        gpus=found,
        no_gpus=reason,
        runtimes={name: version for name, package in PACKAGES.items() if (version := _version(package))},
        llamacpp=llamacpp(),
        compilers={name: told for name in COMPILERS if (told := _compiler(name))},
        copy_bandwidth=copied,
        nearest=nearest(here).name,
        profile=here,
    )


def cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def features(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Instruction sets that matter to low-bit kernels, by our words; none where the system has no such file."""
    if not cpuinfo.is_file():
        return ("neon",) if platform.machine() == "arm64" else ()
    told = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
    have = set(told[1].split()) if told else set()
    return tuple(ours for flag, ours in FLAGS.items() if flag in have)


def memory_bytes(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Of the machine, or of the container where that has less."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    told = limit.read_text().strip() if limit.is_file() else ""
    return min(whole, int(told)) if told.isdigit() else whole


def gpus(nvml: Any) -> tuple[tuple[Gpu, ...], str]:
    """NVIDIA's devices through ``pynvml``, or why there are none: not installed, or no driver."""
    if nvml is None:
        return (), "pynvml is not installed (pip install 'quantgate[gpu]'), so NVIDIA GPUs were not looked for"
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as problem:
        return (), f"NVML finds no driver ({problem})"
    driver, found = _text(nvml.nvmlSystemGetDriverVersion()), []
    for at in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(at)
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        found.append(
            Gpu(
                name=_text(nvml.nvmlDeviceGetName(handle)),
                memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
                compute_capability=float(f"{major}.{minor}"),
                driver=driver,
            )
        )
    nvml.nvmlShutdown()
    return tuple(found), "" if found else "NVML knows no device"


def llamacpp() -> dict[str, str]:
    """What llama.cpp was built for and finds here; nothing where it is not installed."""
    library = _module("llama_cpp")
    if library is None:
        return {}
    told = re.findall(r"(\w+) = (\w+)", library.llama_print_system_info().decode())
    return {key: value for key, value in told if value != "0"}


def _here(found: tuple[Gpu, ...], memory: int, today: str) -> tuple[Profile, float]:
    """The profile of the first GPU, where torch can measure it, else of the processor; bytes copied a second."""
    import torch

    from quantgate.hardware.measure import bandwidth, call_seconds, rates

    on_gpu = bool(found) and torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    moved = bandwidth(min(BUFFER, memory // 8), device)
    common: dict[str, Any] = {
        "name": HERE,
        "bandwidth": moved.read,
        "rates": rates(device),
        "cores": cores(),
        "call_s": call_seconds(),
        "measured": True,
        "source": f"quantgate doctor, torch {torch.__version__.partition('+')[0]}, {_threads()}",
        "date": today,
    }
    if on_gpu:
        first = found[0]
        known = _known(first.name)
        body = {
            "title": first.name,
            "vendor": "nvidia",
            "unit": "gpu",
            "memory_bytes": first.memory_bytes,
            "compute_capability": first.compute_capability,
            "rates": {**(known.rates if known else {}), **common["rates"]},
        }
        return Profile.model_validate(common | body), moved.copy
    vendor = "apple" if platform.system() == "Darwin" else "x86" if platform.machine() in ("x86_64", "AMD64") else "arm"
    title = f"this machine ({cores()} cores, {', '.join(features()) or platform.machine()})"
    body = {"title": title, "vendor": vendor, "unit": "cpu", "memory_bytes": memory, "features": features()}
    return Profile.model_validate(common | body), moved.copy


def _threads() -> str:
    import torch

    count = torch.get_num_threads()
    return f"{count} thread{'s' if count > 1 else ''}"


def _known(name: str) -> Profile | None:
    from quantgate.errors import UnknownName

    try:
        return profile(normal(name))
    except UnknownName:
        return None


def _module(name: str) -> Any:
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def _version(package: str) -> str:
    found = [one for one in importlib.metadata.distributions(name=package) if one.version]
    return found[0].version if found else ""


def _compiler(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        return ""
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout.splitlines()
    return next((line for line in told if re.search(r"\d+\.\d+", line)), told[0] if told else "")


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
