"""What is read of a CPU's instructions."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from openclaw.devices.instructions import parse_cpuinfo, parse_processor, read_instructions, read_processor

X86 = """processor\t: 0
model name\t: A Processor @ 2.50GHz
flags\t\t: fpu sse4_1 avx2 avx512f avx512_vnni avx512_bf16 amx_int8

processor\t: 1
model name\t: A Processor @ 2.50GHz
flags\t\t: fpu sse4_1 avx2 avx512f avx512_vnni avx512_bf16
"""
ARM = """processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd asimdhp asimddp i8mm bf16
"""


def test_only_what_every_core_has_counts_and_is_called_the_same_on_both_families() -> None:
    assert parse_cpuinfo(X86) == {"sse4_1", "avx2", "avx512f", "avx512_vnni", "bf16"}
    assert parse_cpuinfo(ARM) == {"neon", "fp16", "dotprod", "i8mm", "bf16"}


def test_the_name_is_told_where_there_is_one() -> None:
    assert parse_processor(X86) == "A Processor @ 2.50GHz"
    assert parse_processor(ARM) == ""


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    parse_cpuinfo(text)
    parse_processor(text)


def test_a_machine_that_says_nothing_has_nothing(tmp_path: Path) -> None:
    assert read_instructions(tmp_path) == frozenset()
    assert read_processor(tmp_path) == ""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(ARM)
    assert "neon" in read_instructions(tmp_path)
