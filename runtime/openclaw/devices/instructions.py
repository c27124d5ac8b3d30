"""The instruction sets of this CPU that matter to inference, in one vocabulary for x86 and ARM.

Linux lists them in ``/proc/cpuinfo``: under ``flags`` on x86 and ``Features`` on ARM
(Linux: arch/x86/include/asm/cpufeatures.h, Documentation/arch/arm64/elf_hwcaps.rst). Parsing is pure;
:func:`read_instructions` alone touches files.
"""

from __future__ import annotations

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


def parse_cpuinfo(text: str) -> frozenset[str]:
    """What every core of ``/proc/cpuinfo`` has; empty if the text says nothing of it."""
    cores = [
        frozenset(_NAMES[word] for word in value.split() if word in _NAMES)
        for name, _, value in (line.partition(":") for line in text.splitlines())
        if name.strip() in ("flags", "Features")
    ]
    return frozenset.intersection(*cores) if cores else frozenset()


def parse_processor(text: str) -> str:
    """What the CPU calls itself in ``/proc/cpuinfo``; empty where it does not (most of ARM)."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return ""


def read_instructions(root: Path = Path("/")) -> frozenset[str]:
    """Reads what this machine's CPU can; nothing where it is not told."""
    return parse_cpuinfo(_cpuinfo(root))


def read_processor(root: Path = Path("/")) -> str:
    """Reads the name of this machine's CPU; empty where it is not told."""
    return parse_processor(_cpuinfo(root))


def _cpuinfo(root: Path) -> str:
    try:
        return (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
