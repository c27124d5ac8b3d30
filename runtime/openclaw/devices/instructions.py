"""The instruction sets of this CPU that matter to inference, in one vocabulary for x86 and ARM.

On x86 Linux lists them in ``/proc/cpuinfo`` under ``flags`` (Linux: arch/x86/include/asm/cpufeatures.h). On ARM the
kernel tells every process what it may use in its auxiliary vector, getauxval(3), and that holds under emulation and
where ``/proc/cpuinfo`` is that of another CPU; ``Features`` there is the second best (Linux:
arch/arm64/include/uapi/asm/hwcap.h, Documentation/arch/arm64/elf_hwcaps.rst). Parsing is pure; the functions that
begin with ``read`` alone touch files.
"""

from __future__ import annotations

import platform
import struct
from pathlib import Path

# The kernel's word -> ours. One word for bfloat16 arithmetic, whoever made the CPU.
_NAMES = {
    "sse4_1": "sse4_1",
    "avx": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512vl": "avx512vl",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx_vnni_int8": "avx_vnni_int8",
    "avx512_bf16": "bf16",
    "avx512_fp16": "fp16",
    "amx_tile": "amx_tile",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "asimd": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fp16",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
}

_AT_HWCAP = 16
_AT_HWCAP2 = 26

# Bits of these entries on arm64 -> ours.
_HWCAP = {
    _AT_HWCAP: {1: "neon", 10: "fp16", 20: "dotprod", 22: "sve"},
    _AT_HWCAP2: {1: "sve2", 13: "i8mm", 14: "bf16"},
}


def parse_cpuinfo(text: str) -> frozenset[str]:
    """What every core of ``/proc/cpuinfo`` has; empty if the text says nothing of it."""
    cores = [
        frozenset(_NAMES[word] for word in value.split() if word in _NAMES)
        for name, _, value in (line.partition(":") for line in text.splitlines())
        if name.strip() in ("flags", "Features")
    ]
    return frozenset.intersection(*cores) if cores else frozenset()


def parse_auxv(data: bytes) -> frozenset[str] | None:
    """What the auxiliary vector of a 64-bit ARM process grants it; None if the vector does not say."""
    pairs = dict(struct.iter_unpack("<QQ", data[: len(data) // 16 * 16]))
    if _AT_HWCAP not in pairs:
        return None
    return frozenset(
        name for entry, bits in _HWCAP.items() for bit, name in bits.items() if pairs.get(entry, 0) >> bit & 1
    )


def parse_processor(text: str) -> str:
    """What the CPU calls itself in ``/proc/cpuinfo``; empty where it does not (most of ARM)."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return ""


def read_instructions(root: Path = Path("/")) -> frozenset[str]:
    """Reads what this machine's CPU can; nothing where it is not told."""
    if root == Path("/") and platform.machine() == "aarch64":
        granted = parse_auxv(_read(root / "proc/self/auxv"))
        if granted is not None:
            return granted
    return parse_cpuinfo(_cpuinfo(root))


def read_processor(root: Path = Path("/")) -> str:
    """Reads the name of this machine's CPU; empty where it is not told."""
    return parse_processor(_cpuinfo(root))


def _cpuinfo(root: Path) -> str:
    return _read(root / "proc/cpuinfo").decode("utf-8", "replace")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
