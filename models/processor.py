"""The CPU's vendor and instruction sets, and the rules by which they decide how products are computed.

The rules measure nothing, so that they choose the same in every run on a machine: a run that is resumed gives bit for
bit what it would have given. docs/performance.md has the measurements behind them.
"""

import functools
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")


@functools.cache
def vendor_and_flags() -> tuple[str, frozenset[str]]:
    """AuthenticAMD, GenuineIntel or another vendor, and the instruction sets; empty where no /proc/cpuinfo says so."""
    entries = {}
    if CPUINFO.is_file():
        lines = [line.split(":", 1) for line in CPUINFO.read_text().splitlines() if ":" in line]
        entries = {name.strip(): value.strip() for name, value in lines}
    return entries.get("vendor_id", ""), frozenset(entries.get("flags", "").split())


def onednn_is_faster(vendor: str, capability: str) -> bool:
    """Whether oneDNN's float32 products are faster than MKL's, which torch calls.

    They are on AMD's processors with AVX-512, which MKL leaves unused there.

    Args:
        vendor: as /proc/cpuinfo has it.
        capability: torch.backends.cpu.get_cpu_capability(), which ATEN_CPU_CAPABILITY lowers.
    """
    return vendor == "AuthenticAMD" and capability.startswith("AVX512")


def is_slower(dtype: torch.dtype, vendor: str, flags: frozenset[str]) -> bool:
    """Whether training in bfloat16 or float16 is known to be slower than in float32.

    It is without instructions for it, and in bfloat16 on Intel's processors with those of AVX-512 alone, without AMX.
    """
    fast = {"amx_fp16", "avx512_fp16"}
    if dtype is torch.bfloat16:
        fast = {"amx_bf16"} if vendor == "GenuineIntel" else {"avx512_bf16"}
    return bool(flags) and not flags & fast


# the product is the one that torch's compiler calls, in every torch since 2.0; without MKL, torch calls oneDNN itself
HAS_ONEDNN = (
    torch.backends.mkl.is_available()
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
USES_ONEDNN = HAS_ONEDNN and onednn_is_faster(vendor_and_flags()[0], torch.backends.cpu.get_cpu_capability())
