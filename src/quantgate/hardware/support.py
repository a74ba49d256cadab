"""Whether a runtime runs a variant on a device, by which kernel, and what is lost: the matrix and its rules."""

from __future__ import annotations

from pydantic import Field

from quantgate.errors import Unsupported
from quantgate.formats import Scheme
from quantgate.hardware.geometry import CHECKS, Geometry, check_parallel
from quantgate.hardware.matrix import Row, Runtime, runtime
from quantgate.hardware.profiles import Profile
from quantgate.records import Record

KV_BITS = {  # of one cached number, scales of blocks included
    "f32": 32.0, "f16": 16.0, "bf16": 16.0, "fp8": 8.0, "int8": 8.0, "int4": 4.0, "q8_0": 8.5, "q5_1": 6.0,
    "q5_0": 5.5, "q4_1": 5.0, "q4_0": 4.5, "iq4_nl": 4.5,
}  # fmt: skip
VENDORS = {
    "nvidia": "NVIDIA GPUs", "amd": "AMD GPUs", "gaudi": "Gaudi", "apple": "Apple chips", "x86": "x86 CPUs",
    "arm": "Arm CPUs", "intel-npu": "Intel NPUs", "other": "others",
}  # fmt: skip


class Support(Record):
    """What will run. ``problems``: why it will not, each a sentence with its rule; none: it runs."""

    runtime: str
    scheme: str
    container: str
    hardware: str
    kernel: str  # expected; empty where nothing runs
    computes: str  # the type of its products
    fallback: str = ""  # what is lost, where it runs another way than the scheme says
    needs: str = ""  # what must be made before
    decompressed: bool = False  # weights are held and read in 16 bits
    resident_bits: float | None = None  # of a code in memory, where it is not what is stored
    read_bits: float | None = None
    repacks: tuple[str, ...] = ()  # block formats that are held a second time
    share: float = 1.0  # of the memory's bandwidth that the kernel reaches, where known
    status: str  # verified or documented
    versions: str = Field(default="", exclude_if=lambda versions: not versions)  # of what was run, where verified
    source: str
    date: str
    problems: tuple[str, ...] = ()

    @property
    def runs(self) -> bool:
        return not self.problems


def support(
    runtime_: str,
    scheme: Scheme,
    container: str,
    device: Profile,
    shapes: Geometry,
    tp: int = 1,
    *,
    kv_cache: str = "auto",
) -> Support:
    """The first row of ``runtime_``'s matrix that fits, and every rule that the variant breaks there.

    Raises UnknownName for a runtime nobody has; what cannot run is no error here but ``problems``.
    """
    found = runtime(runtime_)
    row = next((row for row in found.rows if row.fits(scheme, container, device, experts=shapes.experts)), None)
    problems = [] if row is None or row.refuse else [*check_parallel(shapes, tp)] if tp > 1 else []
    if row is None:
        problems.append(_not_listed(found, scheme, container, device))
    elif row.refuse:
        problems.append(row.refuse)
    else:
        for rule in row.rules:
            broken = list(CHECKS[rule](scheme, shapes, tp))
            if broken and rule.startswith("torch_"):  # the engine decodes what its kernel does not take
                return _support(found, _decoded(found, row, broken[0]), scheme, container, device, problems)
            problems += broken
    if kv_cache != "auto" and kv_cache not in found.kv_cache:
        problems.append(f"a KV cache in {kv_cache}: {found.kv_rule}; choose {', '.join(found.kv_cache)}")
    return _support(found, row, scheme, container, device, problems)


def require(found: Support, where: str) -> Support:
    """``found`` where it runs. Raises Unsupported with the first rule that is broken, and its source."""
    if found.runs:
        return found
    more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
    raise Unsupported(f"{where}: {found.problems[0]}{more} [{found.source}, {found.date}]")


def kv_bits(found: Runtime, kv_cache: str) -> float:
    """Bits of a cached number in ``found``; ``auto`` is the usual type."""
    bits = KV_BITS[found.kv_cache[0] if kv_cache == "auto" else kv_cache]
    return bits if found.kv_stored_bits is None else max(bits, found.kv_stored_bits)


def _decoded(found: Runtime, row: Row, because: str) -> Row:
    last = next(one for one in found.rows if "*" in one.schemes and one.decompressed)
    return last.model_copy(update={"fallback": f"{last.fallback} ({because})", "status": row.status})


def _support(
    found: Runtime, row: Row | None, scheme: Scheme, container: str, device: Profile, problems: list[str]
) -> Support:
    told = row or Row.model_validate(
        {"schemes": [scheme.name], "refuse": "x", "source": found.source, "date": found.date}
    )
    ran = told.ran_on(device)
    elsewhere = told.status == "verified" and not ran
    return Support(
        runtime=found.name,
        scheme=scheme.label,
        container=container,
        hardware=device.name,
        kernel=told.kernel,
        computes=told.computes,
        fallback=told.fallback,
        needs=told.needs,
        decompressed=told.decompressed,
        resident_bits=told.resident_bits,
        read_bits=told.read_bits,
        repacks=told.repacks,
        share=told.share,
        status="verified" if ran else "documented",
        versions=told.versions if ran else "",
        source=f"{told.source}, run with {told.versions} alone" if elsewhere else told.source,
        date=told.date,
        problems=tuple(problems),
    )


def _not_listed(found: Runtime, scheme: Scheme, container: str, device: Profile) -> str:
    """Why no row fits: the vendor, the compute capability, the container or the scheme."""
    named = [row for row in found.rows if not row.refuse and ("*" in row.schemes or _names(row, scheme))]
    if not named:
        return f"{scheme.label} is in no row of {found.title}'s matrix; choose a scheme that {found.title} documents"
    held = [row for row in named if not row.containers or container in row.containers or scheme.name == "BF16"]
    if not held:
        wanted = sorted({one for row in named for one in row.containers})
        return f"{found.title} does not read {scheme.label} from {container}; store it as {', '.join(wanted)}"
    vendors = sorted({one for row in held for one in row.vendors})
    if device.vendor not in vendors:
        return (
            f"{found.title} runs {scheme.label} on {', '.join(VENDORS[one] for one in vendors)}, not on "
            f"{device.title}; choose other hardware"
        )
    least = min((row.from_ for row in held if device.vendor in row.vendors and row.from_ is not None), default=None)
    if least is not None and (device.compute_capability or 0) < least:
        return (
            f"{found.title} runs {scheme.label} from compute capability {least} on, and {device.title} has "
            f"{device.compute_capability}; choose another scheme or a newer device"
        )
    return f"{found.title}'s matrix has no row for {scheme.label} on {device.title}; choose another scheme"


def _names(row: Row, scheme: Scheme) -> bool:
    from quantgate.formats.schemes import BLOCK_SCHEMES

    return scheme.name in row.schemes or ("ggml" in row.schemes and scheme.name in BLOCK_SCHEMES)
